//! The connections to the guarded server: how many at once, and who must give
//! one up when they run out.
//!
//! An old server serves a hundred or so at once, and each that a client has made
//! it open may be kept for hours by one octet now and then. So where somebody
//! waits for a connection, those leave who have held theirs for long without
//! getting anything done and have kept Portcullis waiting; nobody for what the
//! server itself takes its time over. Networks that have many give one up first,
//! and get one last ([`queue`]).

mod queue;

use std::cmp::Reverse;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;

use super::places::{Guest, Place, Places};
use super::settings::ConnMax;
use crate::metrics;
use queue::{Queue, Ticket, Turn};

/// How long a client waits for one; longer than it takes until somebody must leave.
const WAIT: Duration = Duration::from_secs(15);

/// The connections that there may be.
pub struct Seats {
    bound: Option<Arc<Queue>>,
    factor: NonZeroU32,
}

/// One connection; dropping it gives it back.
pub struct Seat {
    guest: Arc<Guest>,
    /// Which of the guest's.
    number: u64,
    _ticket: Option<Ticket>,
}

impl Seats {
    /// So many, or as many as anybody wants. A network wider than a client may have
    /// `factor` times as many as one before it has to wait for others.
    pub fn new(most: ConnMax, factor: NonZeroU32) -> Arc<Self> {
        let bound = most.0.map(|most| Queue::new(most, factor));
        Arc::new(Self { bound, factor })
    }

    /// From now on so many. Nobody is sent away: what is too much goes as it ends. To
    /// or from `off` the count begins anew.
    pub fn resized(self: &Arc<Self>, most: ConnMax) -> Arc<Self> {
        match (&self.bound, most.0) {
            (Some(queue), Some(most)) => queue.resize(most),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return Self::new(most, self.factor),
        }
        Arc::clone(self)
    }
}

impl Place {
    /// One of these connections for the client here, which is counted in `networks`,
    /// its own first; `None` if none became free in [`WAIT`].
    pub async fn sit(&self, seats: &Seats, networks: &[IpNet]) -> Option<Seat> {
        let ticket = match &seats.bound {
            None => None,
            Some(queue) => Some(match queue.join(networks) {
                Turn::Now(ticket) => ticket,
                Turn::Later(waiting) => {
                    let _standing = Standing::begin(self.places());
                    timeout(WAIT, waiting.over()).await.ok()??
                }
            }),
        };
        let guest = Arc::clone(self.guest());
        let share = ticket.as_ref().map_or(0, Ticket::share);
        guest.share.store(share, Ordering::Relaxed);
        let number = guest.seats.fetch_add(1, Ordering::Relaxed) + 1;
        guest
            .holds_since
            .store(self.places().now(), Ordering::Relaxed);
        metrics::get().backend_connections.inc();
        Some(Seat {
            guest,
            number,
            _ticket: ticket,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The goodbye to one server may outlast the welcome of the next.
        if self.guest.seats.load(Ordering::Relaxed) == self.number {
            self.guest.holds_since.store(0, Ordering::Relaxed);
        }
        metrics::get().backend_connections.dec();
    }
}

/// Somebody who waits for a connection.
struct Standing<'a>(&'a Places);

impl<'a> Standing<'a> {
    fn begin(places: &'a Places) -> Self {
        places.standing.fetch_add(1, Ordering::Relaxed);
        Self(places)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// Asks as many to leave as wait for a connection, first of networks that had
    /// many when they got theirs, then who has held it longest; tells how many those were.
    pub(super) fn free_seats(&self) -> usize {
        let standing = self.standing.load(Ordering::Relaxed);
        if standing == 0 {
            return 0;
        }
        let now = self.now();
        let overdue = self.guests().filter_map(|guest| {
            let since = guest.overstays(now)?;
            let share = guest.share.load(Ordering::Relaxed);
            Some(((Reverse(share), since), guest))
        });
        let mut overdue: Vec<_> = overdue.collect();
        overdue.sort_unstable_by_key(|(order, _)| *order);
        overdue.truncate(standing);
        for (_, guest) in &overdue {
            guest.call.notify_one();
        }
        overdue.len()
    }
}

#[cfg(test)]
mod tests;
