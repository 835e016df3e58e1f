//! The admin server: health and metrics over HTTP for the machines that watch, and
//! a page for people.
//!
//! It must answer when everything else is full or stopping, so it has its own
//! sockets and its own bounds, and a connection that dawdles makes room for the
//! next. It shows; it changes nothing but that a ban is lifted for whoever bears
//! `ADMIN_TOKEN`.

mod ask;
mod facts;
mod guard;
mod history;
mod lift;
mod page;
mod router;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::ServeError;
use super::accept::COMPLAIN;
use super::handover::Sockets;
use super::health::Health;
use super::listen::{ListenAddress, Reserved};
use crate::session::Service;
use history::History;
use status::Status;

pub use ask::{NotReady, ask};
pub(super) use facts::Facts;

/// Connections at once for each listener; one more takes the place of the oldest.
const CONNECTIONS_MAX: usize = 64;

/// A whole request head.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// A whole connection: one request, one answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Octets of a request head.
const HEAD_MAX: usize = 8 * 1024;

/// Header fields of a request.
const FIELDS_MAX: usize = 64;

/// Pause after an accept that failed, as for clients.
const PAUSE: Duration = Duration::from_millis(50);

/// Open listeners that nobody answers yet.
pub(super) struct Admin(Vec<TcpListener>);

impl Admin {
    /// Binds all addresses, or none.
    pub(super) fn bind(
        addresses: &[ListenAddress],
        sockets: &mut Sockets,
    ) -> Result<Self, ServeError> {
        let bind = |address: &ListenAddress| {
            let bound = sockets.reserve(*address).and_then(Reserved::listen);
            bound.map_err(|error| ServeError::Bind {
                address: *address,
                setting: "ADMIN",
                error,
            })
        };
        addresses
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Begins to answer, until the process ends.
    pub(super) fn serve(
        self,
        facts: &Arc<ArcSwap<Facts>>,
        health: &Arc<Health>,
        service: &Arc<ArcSwap<Service>>,
    ) {
        if self.0.is_empty() {
            return;
        }
        let history = Arc::new(History::default());
        tokio::spawn(Arc::clone(&history).keep());
        let status = Arc::new(Status {
            facts: Arc::clone(facts),
            health: Arc::clone(health),
            service: Arc::clone(service),
            history,
        });
        for listener in self.0 {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(listener = "admin", %address, "listening");
            }
            tokio::spawn(accept(listener, Arc::clone(&status)));
        }
    }
}

/// Never waits for a place: a hundred slow connections would hold them all.
async fn accept(listener: TcpListener, status: Arc<Status>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut complained: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let connection = tokio::spawn(converse(stream, Arc::clone(&status)));
                open.push_back(connection.abort_handle());
            }
            Err(error) => {
                if complained.is_none_or(|last| last.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!(listener = "admin", %error, "cannot accept");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, status: Arc<Status>) {
    // Counting large tables takes its time, which no session shall wait for.
    let service = service_fn(move |request: Request<Incoming>| {
        let status = Arc::clone(&status);
        async move {
            if request.uri().path() == lift::PATH {
                Ok(lift::answer(request, &status).await)
            } else {
                spawn_blocking(move || router::answer(&request, &status)).await
            }
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX)
        // A connection costs little; one kept would hold a place.
        .keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(listener = "admin", %error, "request failed"),
        Err(_) => tracing::debug!(listener = "admin", "request took too long"),
    }
}
