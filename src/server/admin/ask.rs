//! The other end of `/readyz`: asks the process that runs with these settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::listen::ListenAddress;

/// For all of it: a container's health check is soon given up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Octets of an answer.
const ANSWER_MAX: usize = 64 * 1024;

/// Why the process is not ready, as far as can be told.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// There is no address to ask at.
    #[error("ADMIN is off, there is nobody to ask")]
    Off,
    /// Nobody answers.
    #[error("no answer from {address}: {reason}")]
    Unreachable {
        /// Where it was asked.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// What answers is not Portcullis.
    #[error("{address} does not answer like Portcullis: {status}")]
    Stranger {
        /// Where it was asked.
        address: SocketAddr,
        /// What it said.
        status: StatusCode,
    },
    /// It says so itself.
    #[error("not ready\n{}", .0.join("\n"))]
    Conditions(Vec<String>),
}

/// Asks the first of the `ADMIN` addresses whether the process is ready.
///
/// # Errors
/// [`NotReady`], with every condition that is not met.
pub async fn ask(admin: &[ListenAddress]) -> Result<(), NotReady> {
    let address = loopback(admin.first().ok_or(NotReady::Off)?.0);
    let unreachable = |reason: String| NotReady::Unreachable { address, reason };
    let (status, body) = match timeout(PATIENCE, readyz(address)).await {
        Ok(answered) => answered.map_err(|error| unreachable(error.to_string()))?,
        Err(_) => return Err(unreachable(format!("took longer than {PATIENCE:?}"))),
    };
    match (status, unmet(&body)) {
        (StatusCode::OK, Some(_)) => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(unmet)) => Err(NotReady::Conditions(unmet)),
        (status, _) => Err(NotReady::Stranger { address, status }),
    }
}

/// Where a process of this machine is reached that listens there. `[::]` serves
/// IPv4 too, and is `0.0.0.0` on a machine without IPv6.
fn loopback(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn readyz(address: SocketAddr) -> Result<(StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX);
        Ok((status, body.collect().await?.to_bytes()))
    };
    // The connection moves only while it is polled.
    tokio::select! {
        answered = asked => answered,
        Err(error) = connection => Err(error.into()),
    }
}

/// The conditions that are not met; `None` if the answer names none at all.
fn unmet(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let conditions = answer.get("conditions")?.as_object()?.iter();
    let unmet = conditions.filter(|(_, state)| state.get("met") != Some(&Value::Bool(true)));
    let told = unmet.map(|(name, state)| {
        let detail = state.get("detail").and_then(Value::as_str);
        format!("{name}: {}", detail.unwrap_or_default())
    });
    Some(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        for (listens, asked) in [
            ("[::]:9090", "127.0.0.1:9090"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("192.0.2.1:2", "192.0.2.1:2"),
            ("[::1]:3", "[::1]:3"),
        ] {
            assert_eq!(loopback(listens.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn only_conditions_that_are_met_are_left_out() {
        let body =
            br#"{"conditions": {"a": {"met": true}, "b": {"met": false, "detail": "x"}, "c": 1}}"#;
        assert_eq!(unmet(body).unwrap(), ["b: x", "c: "]);
        assert_eq!(unmet(b"{}"), None);
        assert_eq!(unmet(b"<html>"), None);
    }
}
