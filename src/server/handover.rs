//! From one process to the next without a gap: the sockets that a process
//! takes over, and what it tells systemd about itself.
//!
//! Two processes may listen side by side (`SO_REUSEPORT`), or systemd keeps the
//! sockets and hands them to one process after the other (`sd_listen_fds(3)`).

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::listen::{ListenAddress, Port, Reserved};

/// Where the sockets to listen on come from.
#[derive(Debug)]
pub struct Sockets {
    inherited: Vec<TcpListener>,
    /// Handed over, but nothing that TCP clients come through.
    unusable: usize,
    port: Port,
}

impl Sockets {
    /// Those that systemd hands over, else new ones beside an older process of
    /// the same user. To be called once, before there is a second thread: it
    /// takes `LISTEN_FDS` out of the environment.
    pub fn handed_over() -> Self {
        let mut given = ListenFd::from_env();
        let sockets = (0..given.len()).map(|index| given.take_tcp_listener(index));
        let (inherited, unusable): (Vec<_>, Vec<_>) =
            sockets.partition(|socket| matches!(socket, Ok(Some(_))));
        Self {
            inherited: inherited.into_iter().flatten().flatten().collect(),
            unusable: unusable.len(),
            port: Port::Shared,
        }
    }

    /// New ones, which nobody shares.
    pub fn alone() -> Self {
        Self {
            inherited: Vec::new(),
            unusable: 0,
            port: Port::Exclusive,
        }
    }

    /// The socket for this address.
    pub(super) fn reserve(&mut self, address: ListenAddress) -> io::Result<Reserved> {
        let known = |socket: &TcpListener| socket.local_addr().is_ok_and(|at| at == address.0);
        if let Some(index) = self.inherited.iter().position(known) {
            tracing::info!(%address, "takes over a socket");
            return Ok(self.inherited.swap_remove(index).into());
        }
        if self.port == Port::Shared && is_taken(address) {
            tracing::warn!(%address, "another listener is there too: each gets a part of the clients until one closes");
        }
        address.bind(self.port)
    }

    /// Closes what no setting asks for.
    pub(super) fn close_others(&mut self) {
        if self.unusable > 0 {
            let count = self.unusable;
            tracing::warn!(count, "sockets handed over are no TCP listeners");
            self.unusable = 0;
        }
        for socket in self.inherited.drain(..) {
            match socket.local_addr() {
                Ok(address) => {
                    tracing::warn!(%address, "a socket handed over is closed: no setting names its address");
                }
                Err(error) => tracing::warn!(%error, "a socket handed over is closed"),
            }
        }
    }
}

/// Whether somebody listens there already.
fn is_taken(address: ListenAddress) -> bool {
    let alone = address.bind(Port::Exclusive);
    alone.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// What systemd is told (`sd_notify(3)`), if it started us and asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// Clients are accepted, by the settings in force.
    Ready,
    /// Settings and certificates are read again.
    Reloading,
    /// No more clients are accepted.
    Stopping,
}

/// Tells systemd. Without systemd it does nothing.
pub(super) fn notify(notice: Notice) {
    let told = match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // The time tells systemd which READY belongs to it.
        Notice::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_handed_over_is_taken_by_its_address_and_only_once() {
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress(given.local_addr().unwrap());
        let mut sockets = Sockets {
            inherited: vec![TcpListener::bind("127.0.0.1:0").unwrap(), given],
            unusable: 0,
            port: Port::Shared,
        };
        let taken = sockets.reserve(address).unwrap();
        assert_eq!(taken.address(), Some(address.0));
        assert!(sockets.reserve(address).is_err());
        sockets.close_others();
        assert!(sockets.inherited.is_empty());
    }
}
