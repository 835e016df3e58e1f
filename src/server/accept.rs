//! Accepting clients: one task a listener, one task a session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{ServeError, Settings, addresses};
use crate::session::{Listener, Service, serve, turn_away};

/// Pause after an accept that failed (out of descriptors, mostly); the kernel
/// keeps the clients waiting meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

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
        places: &Arc<Semaphore>,
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
                places: Arc::clone(places),
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
    places: Arc<Semaphore>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(error) => {
                    tracing::warn!(listener = %self.kind, %error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream) {
        let service = Arc::clone(&self.service);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let kind = self.kind;
        self.sessions.spawn(async move {
            let (peer, local) = match ends(&stream) {
                Ok(ends) => ends,
                // Gone before it was looked at.
                Err(_) => return,
            };
            match place {
                Ok(_place) => serve(service, Box::new(stream), kind, peer, local).await,
                Err(_) => turn_away(&service, Box::new(stream), kind, peer).await,
            }
        });
    }
}

fn ends(stream: &TcpStream) -> io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
    // A reply must not wait for the acknowledgement of the last one.
    stream.set_nodelay(true)?;
    Ok((stream.peer_addr()?, stream.local_addr()?))
}
