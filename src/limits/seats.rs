//! The connections to the guarded server: how many at once, and who must give
//! one up when they run out.
//!
//! An old server serves a hundred or so at once, and each that a client has made
//! it open may be kept for hours by one octet now and then. So where somebody
//! waits for a connection, those leave who have held theirs longest without
//! getting anything done and have kept Portcullis waiting; nobody for what the
//! server itself takes its time over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::places::{Guest, Place, Places};
use super::settings::ConnMax;
use crate::metrics;

/// How long a client waits for one; longer than it takes until somebody must leave.
const WAIT: Duration = Duration::from_secs(15);

/// The connections that there may be.
pub struct Seats {
    bound: Option<Arc<Bound>>,
}

/// How many connections there may be, and are.
#[derive(Debug)]
struct Bound {
    most: AtomicUsize,
    free: Arc<Semaphore>,
    /// How many must go before one becomes free, since there are more than may be.
    surplus: AtomicUsize,
}

/// One connection; dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    guest: Arc<Guest>,
    /// Which of the guest's.
    number: u64,
    permit: Option<(OwnedSemaphorePermit, Arc<Bound>)>,
}

impl Seats {
    /// So many, or as many as anybody wants.
    pub fn new(most: ConnMax) -> Arc<Self> {
        let bound = permits(most).map(|most| {
            Arc::new(Bound {
                most: AtomicUsize::new(most),
                free: Arc::new(Semaphore::new(most)),
                surplus: AtomicUsize::new(0),
            })
        });
        Arc::new(Self { bound })
    }

    /// From now on so many. Nobody is sent away: what is too much goes as it ends. To
    /// or from `off` the count begins anew.
    pub fn resized(self: &Arc<Self>, most: ConnMax) -> Arc<Self> {
        match (&self.bound, permits(most)) {
            (Some(bound), Some(most)) => bound.resize(most),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return Self::new(most),
        }
        Arc::clone(self)
    }
}

fn permits(most: ConnMax) -> Option<usize> {
    let most = usize::try_from(most.0?.get()).unwrap_or(usize::MAX);
    Some(most.min(Semaphore::MAX_PERMITS))
}

impl Bound {
    fn resize(&self, most: usize) {
        let old = self.most.swap(most, Ordering::Relaxed);
        let fewer = old.saturating_sub(most);
        self.surplus.fetch_add(fewer, Ordering::AcqRel);
        // The free ones go at once, unless others have gone meanwhile.
        let gone = self.free.forget_permits(fewer);
        let back = gone.saturating_sub(self.shed(gone));
        let more = most.saturating_sub(old);
        let new = more.saturating_sub(self.shed(more));
        self.free.add_permits(back.saturating_add(new));
    }

    /// Of so many that are no more, how many were too much.
    fn shed(&self, ended: usize) -> usize {
        let less = |surplus: usize| Some(surplus.saturating_sub(ended));
        let before = self
            .surplus
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        before.unwrap_or_else(|surplus| surplus).min(ended)
    }
}

impl Place {
    /// One of these connections for the client here; `None` if none became free
    /// in [`WAIT`].
    pub async fn sit(&self, seats: &Seats) -> Option<Seat> {
        let permit = match &seats.bound {
            None => None,
            Some(bound) => {
                let permit = match Arc::clone(&bound.free).try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => self.wait_for(&bound.free).await?,
                };
                Some((permit, Arc::clone(bound)))
            }
        };
        let guest = Arc::clone(self.guest());
        let number = guest.seats.fetch_add(1, Ordering::Relaxed) + 1;
        guest
            .holds_since
            .store(self.places().now(), Ordering::Relaxed);
        metrics::get().backend_connections.inc();
        Some(Seat {
            guest,
            number,
            permit,
        })
    }

    async fn wait_for(&self, free: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let _waiting = Waiting::begin(self.places());
        let permit = timeout(WAIT, Arc::clone(free).acquire_owned()).await;
        permit.ok()?.ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The goodbye to one server may outlast the welcome of the next.
        if self.guest.seats.load(Ordering::Relaxed) == self.number {
            self.guest.holds_since.store(0, Ordering::Relaxed);
        }
        if let Some((permit, bound)) = self.permit.take()
            && bound.shed(1) == 1
        {
            permit.forget();
        }
        metrics::get().backend_connections.dec();
    }
}

/// Somebody who waits for a connection.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn begin(places: &'a Places) -> Self {
        places.standing.fetch_add(1, Ordering::Relaxed);
        Self(places)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// Asks as many to leave as wait for a connection; tells how many those were.
    pub(super) fn free_seats(&self) -> usize {
        let standing = self.standing.load(Ordering::Relaxed);
        if standing == 0 {
            return 0;
        }
        let now = self.now();
        let guests = self.guests();
        let overdue = guests.filter_map(|guest| Some((guest.overstays(now)?, guest)));
        let mut overdue: Vec<_> = overdue.collect();
        overdue.sort_unstable_by_key(|(since, _)| *since);
        overdue.truncate(standing);
        for (_, guest) in &overdue {
            guest.call.notify_one();
        }
        overdue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::time::Instant;

    use super::*;

    fn seats(most: u32) -> Arc<Seats> {
        Seats::new(ConnMax(NonZeroU32::new(most)))
    }

    /// Guests of a house that has stood for long.
    fn guests(count: usize) -> Vec<Place> {
        let house = Places::long_open(100);
        (0..count).map(|_| house.take().unwrap()).collect()
    }

    /// As if it had been sat there for so long, and waited for ever since.
    fn holds_for(place: &Place, held: Duration) {
        let since = place.places().now() - u64::try_from(held.as_millis()).unwrap();
        place.guest().holds_since.store(since, Ordering::Relaxed);
        place.guest().waiting_since.store(since, Ordering::Relaxed);
    }

    fn is_called(place: &Place) -> bool {
        let mut called = std::pin::pin!(place.called());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        called.as_mut().poll(&mut context).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_than_there_are() {
        let (seats, guests) = (seats(2), guests(3));
        let first = guests[0].sit(&seats).await.unwrap();
        let _second = guests[1].sit(&seats).await.unwrap();
        let began = Instant::now();
        assert!(guests[2].sit(&seats).await.is_none());
        assert_eq!(began.elapsed(), WAIT);
        drop(first);
        assert!(guests[2].sit(&seats).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_one() {
        let (seats, guests) = (seats(1), guests(2));
        let held = guests[0].sit(&seats).await.unwrap();
        let (seat, ()) = tokio::join!(guests[1].sit(&seats), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(held);
        });
        assert!(seat.is_some());
        assert_eq!(guests[1].places().standing.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_are_reached_as_connections_end_and_more_at_once() {
        let (seats, guests) = (seats(4), guests(6));
        let mut held = Vec::new();
        for guest in &guests[..3] {
            held.push(guest.sit(&seats).await.unwrap());
        }
        let most = |most| ConnMax(NonZeroU32::new(most));
        assert!(Arc::ptr_eq(&seats.resized(most(1)), &seats));
        // Three where one may be.
        for _ in 0..2 {
            held.pop();
            assert!(guests[3].sit(&seats).await.is_none());
        }
        held.pop();
        held.push(guests[3].sit(&seats).await.unwrap());
        assert!(guests[4].sit(&seats).await.is_none());

        let (seat, _) = tokio::join!(guests[4].sit(&seats), async { seats.resized(most(2)) });
        held.push(seat.expect("who waits gets the new one"));
        // What was too much and is allowed again has not to go first.
        seats.resized(most(1));
        seats.resized(most(3));
        held.push(guests[5].sit(&seats).await.unwrap());
        assert!(guests[0].sit(&seats).await.is_none());
        held.pop();
        assert!(guests[0].sit(&seats).await.is_some());

        let unbounded = seats.resized(ConnMax(None));
        assert!(guests[1].sit(&unbounded).await.is_some());
        assert!(Arc::ptr_eq(&unbounded.resized(ConnMax(None)), &unbounded));
    }

    #[tokio::test]
    async fn without_a_bound_everybody_sits() {
        let (seats, guests) = (Seats::new(ConnMax(None)), guests(50));
        let mut held = Vec::new();
        for guest in &guests {
            held.push(guest.sit(&seats).await.unwrap());
        }
    }

    #[tokio::test]
    async fn those_leave_that_have_sat_longest_for_nothing() {
        let (seats, guests) = (seats(5), guests(7));
        let mut held = Vec::new();
        for (guest, seconds) in guests.iter().zip([30, 20, 50, 9, 60]) {
            held.push(guest.sit(&seats).await.unwrap());
            holds_for(guest, Duration::from_secs(seconds));
        }
        // We work for it: it is no idler, whatever it came to before.
        guests[4].works();
        guests[5].waits();
        let house = guests[0].places();
        assert_eq!(house.free_seats(), 0, "nobody waits for one");

        let waiting = [Waiting::begin(house), Waiting::begin(house)];
        assert_eq!(house.free_seats(), 2);
        let called: Vec<_> = guests.iter().map(is_called).collect();
        assert_eq!(called, [true, false, true, false, false, false, false]);

        // Whoever gets something done begins anew.
        guests[2].done();
        guests[0].done();
        assert_eq!(house.free_seats(), 1);
        assert!(is_called(&guests[1]));
        drop(waiting);
        assert_eq!(house.free_seats(), 0);
    }

    #[tokio::test]
    async fn nobody_leaves_because_the_server_is_slow_or_a_call_is_past() {
        let (seats, guests) = (seats(1), guests(2));
        let _held = guests[0].sit(&seats).await.unwrap();
        holds_for(&guests[0], Duration::from_secs(60));
        let house = guests[0].places();
        let waiting = Waiting::begin(house);
        assert_eq!(house.free_seats(), 1);
        // The command comes at the same moment.
        guests[0].works();
        guests[0].done();
        guests[0].waits();
        assert!(!is_called(&guests[0]));

        holds_for(&guests[0], Duration::from_secs(60));
        guests[0].waits();
        assert_eq!(house.free_seats(), 0, "it has only just begun to wait");
        drop(waiting);
    }

    #[tokio::test]
    async fn a_late_goodbye_does_not_hide_the_next_connection() {
        let (seats, guests) = (seats(2), guests(1));
        let first = guests[0].sit(&seats).await.unwrap();
        let second = guests[0].sit(&seats).await.unwrap();
        let holds = || guests[0].guest().holds_since.load(Ordering::Relaxed) != 0;
        drop(first);
        assert!(holds());
        drop(second);
        assert!(!holds());
    }
}
