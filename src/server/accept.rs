//! Accepting clients: one task a listener, one task a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{ServeError, Settings, addresses};
use crate::session::{Listener, Service, knock, serve};

/// Pause after an accept that failed (out of descriptors, mostly); the kernel
/// keeps the clients waiting meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// How often at most the log says that accepting fails.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The open listeners.
pub(super) struct Doors(Vec<(Listener, TcpListener)>);

impl Doors {
    /// Binds all listeners, or none.
    pub(super) fn open(settings: &Settings) -> Result<Self, ServeError> {
        let mut doors = Vec::new();
        for (kind, address) in addresses(settings) {
            let listener = address
                .bind()
                .map_err(|error| ServeError::Bind { address, error })?;
            doors.push((kind, listener));
        }
        if doors.is_empty() {
            Err(ServeError::Deaf)
        } else {
            Ok(Self(doors))
        }
    }

    /// Begins to accept.
    pub(super) fn serve(
        self,
        service: &Arc<Service>,
        sessions: &TaskTracker,
    ) -> Vec<JoinHandle<()>> {
        let Self(doors) = self;
        let accepting = doors.into_iter().map(|(kind, listener)| {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(listener = %kind, %address, "listening");
            }
            let door = Door {
                kind,
                service: Arc::clone(service),
                sessions: sessions.clone(),
            };
            tokio::spawn(door.accept(listener))
        });
        accepting.collect()
    }
}

/// What a listener needs to start a session.
struct Door {
    kind: Listener,
    service: Arc<Service>,
    sessions: TaskTracker,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let mut complained: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(arrival) = knock(&self.service, stream, self.kind) {
                        self.sessions
                            .spawn(serve(Arc::clone(&self.service), arrival));
                    }
                }
                Err(error) => {
                    if complained.is_none_or(|last| last.elapsed() > COMPLAIN) {
                        complained = Some(Instant::now());
                        tracing::warn!(listener = %self.kind, %error, "cannot accept; clients wait");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
