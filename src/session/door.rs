//! The door: who is let in, and what the others hear.
//!
//! [`knock`] decides in the accept loop itself, without a task, a session or a
//! TLS handshake: an address that is refused costs a look at a table and one
//! small write. Refusals are counted one by one, but not all of them logged: a
//! flood must not become a flood of log lines.

use std::net::{self, IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::id::SessionId;
use super::journal::Journal;
use super::refusal::Refusal;
use super::{Listener, Service};
use crate::limits::{Permit, Place};
use crate::metrics::{self, Admission};
use crate::policy::{Finding, Mode};

/// A client that has been let in, with its place.
pub struct Arrival {
    pub(super) caller: Caller,
    pub(super) place: Place,
}

/// What is known of a client before its first octet.
pub(super) struct Caller {
    /// Belongs to no runtime: the session may run on another one than the door.
    pub(super) stream: net::TcpStream,
    pub(super) listener: Listener,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// Leave to stay; not yet for a balancer, whose client is not known.
    pub(super) permit: Option<Permit>,
}

/// Looks at who knocks, from `peer`. `None`: it has been sent away.
pub fn knock(
    service: &Service,
    stream: TcpStream,
    peer: SocketAddr,
    listener: Listener,
) -> Option<Arrival> {
    // A reply must not wait for the acknowledgement of the last one.
    stream.set_nodelay(true).ok()?;
    let local = stream.local_addr().ok()?;
    let turn_away = |stream: &TcpStream, refusal| {
        let journal = Journal::new(SessionId::next(), listener, peer, service.log_addresses);
        turn_away(service, stream, listener, journal, refusal);
        None
    };
    let permit = if service.proxy_trusted.contains(peer.ip()) {
        None
    } else {
        match service.limits.admit(peer.ip()) {
            Ok(permit) => Some(permit),
            Err(finding) if service.policy.mode == Mode::Monitor => {
                let id = SessionId::next();
                let journal = Journal::new(id, listener, peer, service.log_addresses);
                would_turn_away(service, journal, finding);
                Some(Permit::default())
            }
            Err(finding) => return turn_away(&stream, Refusal::Policy(finding)),
        }
    };
    match service.places.take() {
        None => turn_away(&stream, Refusal::Busy),
        Some(place) => {
            let caller = Caller {
                stream: stream.into_std().ok()?,
                listener,
                peer,
                local,
                permit,
            };
            Some(Arrival { caller, place })
        }
    }
}

/// Asks the limits about a client whose address is known by now: this
/// instance's unless `permit` says that they have been asked, then those of all
/// instances together.
pub(super) async fn admit(
    service: &Service,
    client: IpAddr,
    permit: Option<Permit>,
    journal: &Journal,
) -> Result<Permit, Finding> {
    let admitted = async {
        let mut permit = match permit {
            Some(permit) => permit,
            None => service.limits.admit(client)?,
        };
        service.limits.admit_by_all(client, &mut permit).await?;
        Ok(permit)
    };
    match admitted.await {
        Err(finding) if service.policy.mode == Mode::Monitor => {
            would_turn_away(service, journal.clone(), finding);
            Ok(Permit::default())
        }
        other => other,
    }
}

/// Sends a client away, by one small write or none: where TLS comes first no
/// word could be read, and the banned are not worth one. The caller then closes.
pub(super) fn turn_away(
    service: &Service,
    stream: &TcpStream,
    listener: Listener,
    mut journal: Journal,
    refusal: Refusal,
) {
    let socket = SockRef::from(stream);
    journal.came(match refusal {
        Refusal::Policy(Finding::Banned { .. }) => Admission::Banned,
        Refusal::Policy(_) => Admission::RefusedLimit,
        _ => Admission::Busy,
    });
    if matches!(refusal, Refusal::Policy(Finding::Banned { .. })) {
        // Closing resets, and nothing waits in the kernel for the last acknowledgement.
        let _ = socket.set_linger(Some(Duration::ZERO));
    } else if listener != Listener::Tls {
        let mut reply = refusal.reply();
        reply.append(&format!(" [{}]", journal.id()));
        // The buffer of a new connection is empty, so this does not block.
        let _ = socket.send(reply.to_string().as_bytes());
    }
    if service.door_log.may_write() {
        journal.refused(&refusal, None, None);
    } else {
        journal.refused_silently(&refusal, metrics::Mode::Enforced);
    }
}

fn would_turn_away(service: &Service, mut journal: Journal, finding: Finding) {
    let refusal = Refusal::Policy(finding);
    if service.door_log.may_write() {
        journal.would_refuse(&refusal, None, None);
    } else {
        journal.refused_silently(&refusal, metrics::Mode::Would);
    }
}

/// How many refusals at the door are logged a second, and at once.
const LINES: (u32, u32) = (10, 100);

/// Keeps the log of refusals at the door short, and counts what it leaves out.
pub struct DoorLog {
    lines: Option<DefaultDirectRateLimiter>,
    left_out: AtomicU64,
}

impl DoorLog {
    /// A log that nothing has been written into.
    pub fn new() -> Self {
        let (rate, burst) = (LINES.0.try_into(), LINES.1.try_into());
        let quota = match (rate, burst) {
            (Ok(rate), Ok(burst)) => Some(Quota::per_second(rate).allow_burst(burst)),
            _ => None,
        };
        Self {
            lines: quota.map(RateLimiter::direct),
            left_out: AtomicU64::new(0),
        }
    }

    fn may_write(&self) -> bool {
        if self
            .lines
            .as_ref()
            .is_some_and(|lines| lines.check().is_err())
        {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let refusals = self.left_out.swap(0, Ordering::Relaxed);
        if refusals > 0 {
            tracing::warn!(refusals, "refused at the door, not logged one by one");
        }
        true
    }
}

impl Default for DoorLog {
    fn default() -> Self {
        Self::new()
    }
}
