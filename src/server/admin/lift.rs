//! `POST /bans/lift`: the one thing that the admin server changes.
//!
//! ```text
//! curl -H "Authorization: Bearer $TOKEN" --data 192.0.2.7 http://127.0.0.1:9090/bans/lift
//! ```
//!
//! The body is an address, or a network as the status page shows it. Without
//! `ADMIN_TOKEN` there is no such path.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use ipnet::IpNet;

use super::router::{Answer, TEXT, full, not_found};
use super::status::Status;
use super::{guard, page};
use crate::limits::Lifted;
use crate::settings::Value;

/// Where it is.
pub(super) const PATH: &str = "/bans/lift";

/// Octets of a body: the longest network has 43.
const BODY_MAX: usize = 64;

/// What a wrong token costs, so that it cannot be guessed quickly.
const WRONG: Duration = Duration::from_secs(1);

/// The answer.
pub(super) async fn answer<B>(request: Request<B>, status: &Status) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let facts = status.facts.load_full();
    let Some(token) = &facts.token else {
        return not_found();
    };
    if request.method() != Method::POST {
        let mut answer = full(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST\n");
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    if !guard::is_ours(&request, &facts.hostname) {
        return page::misdirected();
    }
    if !guard::bears(&request, token) {
        tracing::warn!(
            listener = "admin",
            "a ban was to be lifted with a wrong token"
        );
        tokio::time::sleep(WRONG).await;
        let mut answer = full(StatusCode::UNAUTHORIZED, TEXT, "wrong token\n");
        let headers = answer.headers_mut();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let network = std::str::from_utf8(&body).map(|text| IpNet::parse(text.trim()));
    let Ok(Ok(network)) = network else {
        let text = "the body is to be an address or a network, such as 192.0.2.7\n";
        return full(StatusCode::BAD_REQUEST, TEXT, text);
    };
    lift(network, status).await
}

async fn lift(network: IpNet, status: &Status) -> Answer {
    let network = if network.prefix_len() == network.max_prefix_len() {
        status.limits().client(network.addr())
    } else {
        network
    };
    let lifted = status.limits().lift(network).await;
    let (code, told) = match lifted {
        Lifted::Everywhere => (StatusCode::OK, "is no longer banned"),
        Lifted::HereOnly => (
            StatusCode::BAD_GATEWAY,
            "is no longer banned here; Redis gave no answer and may still know the ban: try again",
        ),
        Lifted::NotBanned => (StatusCode::NOT_FOUND, "was not banned"),
    };
    let client = status.facts.load().addresses.ip(network.addr());
    tracing::info!(listener = "admin", %client, width = network.prefix_len(), "{told}");
    full(code, TEXT, format!("{network} {told}\n"))
}
