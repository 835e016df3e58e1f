//! What the admin server answers to each path.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::page;
use super::status::Status;
use crate::metrics;
use crate::server::health::Condition;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
/// OpenMetrics 1.0.0, section "Protocol Negotiation".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OLDER: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer on its way.
pub(super) type Answer = Response<Full<Bytes>>;

/// Makes the answer to a request of any kind of body.
type Page<B> = fn(&Request<B>, &Status) -> Answer;

/// One path, one page.
fn page_at<B>(path: &str) -> Option<Page<B>> {
    match path {
        "/" => Some(page::html),
        "/page.css" => Some(page::css),
        "/page.js" => Some(page::script),
        "/icon.svg" => Some(page::icon),
        "/status.json" => Some(page::data),
        "/livez" => Some(livez),
        "/readyz" => Some(readyz),
        "/metrics" => Some(scrape),
        _ => None,
    }
}

/// The answer. Bodies of requests are not read; that of an answer to HEAD is
/// left out by the HTTP library.
pub(super) fn answer<B>(request: &Request<B>, status: &Status) -> Answer {
    match (page_at(request.uri().path()), request.method()) {
        (None, _) => not_found(),
        (Some(page), &Method::GET | &Method::HEAD) => page(request, status),
        (Some(_), _) => not_allowed(),
    }
}

pub(super) fn not_found() -> Answer {
    full(StatusCode::NOT_FOUND, TEXT, "not found\n")
}

fn not_allowed() -> Answer {
    let text = "only GET and HEAD\n";
    let mut answer = full(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// Whether the process runs at all.
fn livez<B>(_: &Request<B>, _: &Status) -> Answer {
    full(StatusCode::OK, TEXT, "alive\n")
}

/// Whether clients should be sent here, and if not, why.
fn readyz<B>(_: &Request<B>, status: &Status) -> Answer {
    let conditions = status.health.conditions();
    let ready = conditions.iter().all(|condition| condition.state.is_ok());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let named: Map<String, Value> = conditions.into_iter().map(entry).collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{:#}", json!({ "ready": ready, "conditions": named }));
    full(status, JSON, text)
}

fn entry(condition: Condition) -> (String, Value) {
    let met = condition.state.is_ok();
    let (Ok(detail) | Err(detail)) = condition.state;
    (
        condition.name.to_owned(),
        json!({ "met": met, "detail": detail }),
    )
}

/// OpenMetrics, or the older format for whoever asks for text but not for that.
fn scrape<B>(request: &Request<B>, _: &Status) -> Answer {
    let accept = request.headers().get_all(ACCEPT).iter();
    let wanted: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
    let wants = |kind| wanted.iter().any(|value| value.contains(kind));
    if wants("text/plain") && !wants("application/openmetrics-text") {
        full(StatusCode::OK, OLDER, metrics::get().plain())
    } else {
        full(StatusCode::OK, OPENMETRICS, metrics::get().openmetrics())
    }
}

/// One that is kept nowhere.
pub(super) fn full(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
