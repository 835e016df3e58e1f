//! Accepting clients: one task a listener, one task a session.
//!
//! A listener that closes takes in first whom the kernel has already let
//! through: those would be reset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::crew::Crew;
use super::handover::Sockets;
use super::listen::{BACKLOG, ListenAddress, Reserved};
use super::{ServeError, Settings, addresses};
use crate::session::{Listener, Service, knock, serve};

/// Pause after an accept that failed (out of descriptors, mostly); the kernel
/// keeps the clients waiting meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// How often at most the log says that accepting fails.
pub(super) const COMPLAIN: Duration = Duration::from_secs(10);

/// The place of a listener in the settings.
type Place = (Listener, ListenAddress);

/// Bound sockets behind which nobody waits yet.
pub(super) struct Bound(Vec<(Place, Reserved)>);

/// The open listeners.
pub(super) struct Doors {
    open: Vec<Door>,
    /// What the next session obeys.
    service: Arc<ArcSwap<Service>>,
    sessions: TaskTracker,
    crew: Arc<Crew>,
}

/// One open listener.
struct Door {
    place: Place,
    closing: CancellationToken,
    accepting: JoinHandle<()>,
}

impl Bound {
    /// Binds all of these, or none.
    pub(super) fn new(
        places: impl IntoIterator<Item = Place>,
        sockets: &mut Sockets,
    ) -> Result<Self, ServeError> {
        let bind = |place: Place| match sockets.reserve(place.1) {
            Ok(reserved) => Ok((place, reserved)),
            Err(error) => Err(ServeError::Bind {
                address: place.1,
                setting: place.0.setting(),
                error,
            }),
        };
        places
            .into_iter()
            .map(bind)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Lets the kernel take clients in, at all of them or at none.
    pub(super) fn listen(self) -> Result<Listening, ServeError> {
        let listen = |(place, reserved): (Place, Reserved)| match reserved.listen() {
            Ok(listener) => Ok((place, listener)),
            Err(error) => Err(ServeError::Bind {
                address: place.1,
                setting: place.0.setting(),
                error,
            }),
        };
        let Self(bound) = self;
        bound
            .into_iter()
            .map(listen)
            .collect::<Result<_, _>>()
            .map(Listening)
    }
}

/// Listeners behind which clients wait to be accepted.
pub(super) struct Listening(Vec<(Place, TcpListener)>);

impl Doors {
    /// None yet.
    pub(super) fn new(
        service: Arc<ArcSwap<Service>>,
        sessions: TaskTracker,
        crew: Arc<Crew>,
    ) -> Self {
        Self {
            open: Vec::new(),
            service,
            sessions,
            crew,
        }
    }

    /// Begins to accept there too.
    pub(super) fn open(&mut self, Listening(listeners): Listening) {
        for (place, listener) in listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(listener = %place.0, %address, "listening");
            }
            let closing = CancellationToken::new();
            let porter = Porter {
                kind: place.0,
                service: Arc::clone(&self.service),
                sessions: self.sessions.clone(),
                crew: Arc::clone(&self.crew),
            };
            self.open.push(Door {
                place,
                closing: closing.clone(),
                accepting: tokio::spawn(porter.accept(listener, closing)),
            });
        }
    }

    /// Where the settings want a listener and there is none.
    pub(super) fn missing(&self, settings: &Settings) -> Vec<Place> {
        let open = |place: &Place| self.open.iter().any(|door| door.place == *place);
        addresses(settings).filter(|place| !open(place)).collect()
    }

    /// Closes the listeners that the settings do not want. Sessions go on.
    pub(super) async fn close_others(&mut self, settings: &Settings) {
        let wanted: Vec<Place> = addresses(settings).collect();
        self.close_where(|door| !wanted.contains(&door.place)).await;
    }

    /// Closes all listeners. Sessions go on.
    pub(super) async fn close(&mut self) {
        self.close_where(|_| true).await;
    }

    /// Returns once nobody is let in there any more. If it is given up, the
    /// doors close all the same, and are still known.
    async fn close_where(&mut self, leaves: impl Fn(&Door) -> bool) {
        for door in self.open.iter().filter(|door| leaves(door)) {
            door.closing.cancel();
        }
        for door in self.open.iter_mut().filter(|door| leaves(door)) {
            if !door.accepting.is_finished() {
                let _ = (&mut door.accepting).await;
            }
            tracing::info!(listener = %door.place.0, address = %door.place.1, "no longer listening");
        }
        self.open.retain(|door| !leaves(door));
    }
}

/// What a listener needs to start a session.
struct Porter {
    kind: Listener,
    service: Arc<ArcSwap<Service>>,
    sessions: TaskTracker,
    crew: Arc<Crew>,
}

impl Porter {
    async fn accept(self, listener: TcpListener, closing: CancellationToken) {
        let mut complained: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) => {
                    if complained.is_none_or(|last| last.elapsed() > COMPLAIN) {
                        complained = Some(Instant::now());
                        tracing::warn!(listener = %self.kind, %error, "cannot accept; clients wait");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.empty(listener);
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        let service = self.service.load_full();
        if let Some(arrival) = knock(&service, stream, peer, self.kind) {
            self.crew.run(serve(service, arrival), &self.sessions);
        }
    }

    /// Takes in all who wait behind the listener, asking the system and not the
    /// runtime, which may not have heard of the last ones yet. Then nothing
    /// stands between the answer that nobody waits and the close; Linux can hand
    /// over even those who come in between (`net.ipv4.tcp_migrate_req`).
    fn empty(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        // A flood must not keep it open for ever.
        for _ in 0..2 * BACKLOG {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stream = stream
                        .set_nonblocking(true)
                        .and_then(|()| TcpStream::from_std(stream));
                    if let Ok(stream) = stream {
                        self.welcome(stream, peer);
                    }
                }
                // One who has left already says nothing of those behind.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }
}
