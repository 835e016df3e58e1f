//! The places for sessions: how many there are, who sits in them, and who must
//! get up when they run out.
//!
//! Above 80 % of `SESSIONS_MAX` nobody may keep Portcullis waiting for a
//! command longer than ten seconds, nor for thirty in all without getting
//! anything done. Who has got nothing done yet, neither a message nor a sign-in,
//! has less time the fewer places are left, and ten seconds in all. A waiting
//! client costs nothing but its place; the eyes of the keeper open only under
//! stress.
//!
//! A body may pause, but its octets pay for the time that it takes: who sends
//! slower than [`BODY_RATE`] uses up its time in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use tokio::sync::Notify;

use crate::metrics;

/// The share of the places above which Portcullis is under stress, per cent.
const STRESS: usize = 80;

/// How long a client may keep Portcullis waiting under stress.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may in all between two things that it gets done, however many
/// commands it spreads its waiting over.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);

/// Octets of a body that pay for a second of waiting: an ISDN line brings as many.
/// To hold the 10,000 places of the default by bodies takes 650 Mbit/s then.
const BODY_RATE: u64 = 8 * 1024;

/// How long one may that has got nothing done, when no place is left.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// How often at most the log tells of it.
const COMPLAIN: u64 = 10_000;

/// How often the keeper looks.
const ROUND: Duration = Duration::from_millis(250);

/// The places.
pub struct Places {
    most: usize,
    taken: AtomicUsize,
    guests: DashMap<u64, Arc<Guest>, RandomState>,
    numbers: AtomicU64,
    closing: AtomicBool,
    /// Clients that wait for a connection to the guarded server.
    pub(super) standing: AtomicUsize,
    /// Clients asked to leave since the log told of it.
    asked: AtomicUsize,
    /// When it did, in milliseconds since the start.
    told: AtomicU64,
    start: Instant,
}

/// A place that is taken; dropping it gives it back.
pub struct Place {
    places: Arc<Places>,
    guest: Arc<Guest>,
}

/// What the keeper knows of a session.
#[derive(Debug, Default)]
pub(super) struct Guest {
    number: u64,
    /// Milliseconds since the start of the house, plus one; 0 while we work for it.
    pub(super) waiting_since: AtomicU64,
    /// Likewise, since when it has held a connection to the guarded server without
    /// getting anything done; 0 while it holds none.
    pub(super) holds_since: AtomicU64,
    /// How many connections it has been given so far.
    pub(super) seats: AtomicU64,
    /// How many its fullest network had, by weight, when it asked for the last.
    pub(super) share: AtomicU32,
    /// Milliseconds that we have waited before that, since it got something done.
    waited: AtomicU64,
    /// Those of them in which we waited for commands.
    idled: AtomicU64,
    useful: AtomicBool,
    /// Whether it is a body that we wait for.
    in_body: AtomicBool,
    pub(super) call: Notify,
}

/// Tells the keeper how a body comes in.
pub struct Meter {
    places: Arc<Places>,
    guest: Arc<Guest>,
}

/// A wait for a body; it ends when this is dropped.
pub struct BodyWait<'a>(&'a Meter);

impl Places {
    /// `most` places.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
            guests: DashMap::default(),
            numbers: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            standing: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            told: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// A house that has stood for some minutes.
    #[cfg(test)]
    pub(super) fn long_open(most: usize) -> Arc<Self> {
        let mut house = Arc::into_inner(Self::new(most)).unwrap();
        house.start = Instant::now()
            .checked_sub(Duration::from_secs(300))
            .unwrap();
        Arc::new(house)
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.most {
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let guest = Arc::new(Guest {
            number,
            waiting_since: AtomicU64::new(self.now()),
            ..Guest::default()
        });
        self.guests.insert(number, Arc::clone(&guest));
        metrics::get().places_taken.inc();
        Some(Place {
            places: Arc::clone(self),
            guest,
        })
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Places there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Whether places are running out.
    pub fn stressed(&self) -> bool {
        self.taken() * 100 > self.most * STRESS
    }

    /// The house closes: whoever is at rest is called to leave, now or as soon
    /// as it is.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for guest in &self.guests {
            guest.call.notify_one();
        }
    }

    /// Asks those to leave who wait too long, for ever.
    pub async fn keep_order(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.look_around();
            self.free_seats();
        }
    }

    /// One round; tells how many were asked to leave.
    fn look_around(&self) -> usize {
        if !self.stressed() {
            return 0;
        }
        let (now, useless) = (self.now(), self.patience_with_the_useless());
        let guests = self.guests.iter();
        let overdue = guests.filter(|guest| guest.is_overdue(now, useless));
        let mut asked = 0;
        for guest in overdue {
            guest.call.notify_one();
            asked += 1;
        }
        if asked > 0 {
            self.tell(asked, now);
        }
        asked
    }

    /// Whether a guest must leave at this moment.
    fn needs_place_of(&self, guest: &Guest) -> bool {
        let now = self.now();
        (self.stressed() && guest.is_overdue(now, self.patience_with_the_useless()))
            || (self.standing.load(Ordering::Relaxed) > 0 && guest.overstays(now).is_some())
    }

    fn tell(&self, asked: usize, now: u64) {
        self.asked.fetch_add(asked, Ordering::Relaxed);
        let told = self.told.load(Ordering::Relaxed);
        if told != 0 && now.saturating_sub(told) < COMPLAIN {
            return;
        }
        self.told.store(now, Ordering::Relaxed);
        tracing::warn!(
            sessions = self.taken(),
            sessions_max = self.most,
            asked = self.asked.swap(0, Ordering::Relaxed),
            "places run out: idle clients are closed"
        );
    }

    /// From the full patience when stress begins to the shortest when no place is left.
    fn patience_with_the_useless(&self) -> Duration {
        let free = u32::try_from(self.most.saturating_sub(self.taken())).unwrap_or(u32::MAX);
        let spare = u32::try_from(self.most.saturating_mul(100 - STRESS) / 100).unwrap_or(u32::MAX);
        let more = (PATIENCE - SHORTEST_PATIENCE)
            .saturating_mul(free)
            .checked_div(spare);
        SHORTEST_PATIENCE + more.unwrap_or_default()
    }

    /// All that sit here.
    pub(super) fn guests(&self) -> impl Iterator<Item = Arc<Guest>> {
        self.guests.iter().map(|guest| Arc::clone(&guest))
    }

    pub(super) fn now(&self) -> u64 {
        let milliseconds = u64::try_from(self.start.elapsed().as_millis());
        milliseconds.unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Guest {
    fn is_overdue(&self, now: u64, useless: Duration) -> bool {
        let since = self.waiting_since.load(Ordering::Relaxed);
        if since == 0 {
            return false;
        }
        let waited = Duration::from_millis(now.saturating_sub(since));
        let in_all = waited + Duration::from_millis(self.waited.load(Ordering::Relaxed));
        let (at_once, most) = match self.useful.load(Ordering::Relaxed) {
            true => (PATIENCE, PATIENCE_IN_ALL),
            false => (useless, PATIENCE),
        };
        in_all >= most || (waited >= at_once && !self.in_body.load(Ordering::Relaxed))
    }

    fn waits(&self, now: u64) {
        self.waiting_since.store(now, Ordering::Relaxed);
    }

    fn works(&self, now: u64) {
        let since = self.waiting_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            let waited = now.saturating_sub(since);
            self.waited.fetch_add(waited, Ordering::Relaxed);
            if !self.in_body.load(Ordering::Relaxed) {
                self.idled.fetch_add(waited, Ordering::Relaxed);
            }
        }
    }

    /// Since when it has held a connection to the guarded server, if it must give it
    /// up to who needs one: it has held it for long and has got nothing done, and it
    /// is the client that has kept us waiting for as long, not the server.
    pub(super) fn overstays(&self, now: u64) -> Option<u64> {
        let held = self.holds_since.load(Ordering::Relaxed);
        let since = self.waiting_since.load(Ordering::Relaxed);
        if held == 0 || since == 0 {
            return None;
        }
        let waited = self.waited.load(Ordering::Relaxed);
        let in_all = now.saturating_sub(since).saturating_add(waited);
        let patience = millis(PATIENCE);
        (now.saturating_sub(held) >= patience && in_all >= patience).then_some(held)
    }
}

impl Meter {
    /// From now on the client keeps us waiting for more of a body.
    pub fn waits(&self) -> BodyWait<'_> {
        self.guest.in_body.store(true, Ordering::Relaxed);
        self.guest.waits(self.places.now());
        BodyWait(self)
    }

    /// So many octets of it have come.
    pub fn came(&self, octets: u64) {
        let paid = octets.saturating_mul(1000).div_ceil(BODY_RATE);
        let waited = &self.guest.waited;
        let rest = waited.load(Ordering::Relaxed).saturating_sub(paid);
        waited.store(rest, Ordering::Relaxed);
    }

    /// Returns when the client must leave because its place is needed. It may have
    /// been called for something that is past.
    pub async fn must_leave(&self) {
        loop {
            self.guest.call.notified().await;
            if self.places.needs_place_of(&self.guest) {
                return;
            }
        }
    }
}

impl Drop for BodyWait<'_> {
    fn drop(&mut self) {
        self.0.guest.works(self.0.places.now());
        self.0.guest.in_body.store(false, Ordering::Relaxed);
    }
}

impl Place {
    /// For the bodies of this session.
    pub fn meter(&self) -> Meter {
        Meter {
            places: Arc::clone(&self.places),
            guest: Arc::clone(&self.guest),
        }
    }

    /// From now on the client keeps us waiting.
    pub fn waits(&self) {
        self.guest.waits(self.places.now());
    }

    /// From now on the client keeps us waiting for the next part of a body that has
    /// begun: that is no idling between commands.
    pub fn waits_in_body(&self) {
        self.guest.in_body.store(true, Ordering::Relaxed);
        self.guest.waits(self.places.now());
    }

    /// From now on we are at work.
    pub fn works(&self) {
        self.guest.works(self.places.now());
        self.guest.in_body.store(false, Ordering::Relaxed);
    }

    /// The client has got something done: a message, a sign-in.
    pub fn done(&self) {
        self.guest.useful.store(true, Ordering::Relaxed);
        self.guest.waited.store(0, Ordering::Relaxed);
        self.guest.idled.store(0, Ordering::Relaxed);
        if self.guest.holds_since.load(Ordering::Relaxed) != 0 {
            let now = self.places.now();
            self.guest.holds_since.store(now, Ordering::Relaxed);
        }
    }

    /// How long the client has kept us waiting for commands since it got something
    /// done, or came; without the wait that goes on.
    pub fn idled(&self) -> Duration {
        Duration::from_millis(self.guest.idled.load(Ordering::Relaxed))
    }

    pub(super) fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Whether the house closes.
    pub fn closing(&self) -> bool {
        self.places.closing.load(Ordering::SeqCst)
    }

    /// Returns when the client is called: to leave at once, or because the
    /// house [closes](Self::closing). Each place has its own bell, so that
    /// those who wait share no lock.
    pub async fn called(&self) {
        loop {
            self.guest.call.notified().await;
            // It may have been called for something that is past.
            if self.closing() || self.places.needs_place_of(&self.guest) {
                return;
            }
        }
    }

    /// Returns when the client must leave because its place is needed.
    pub async fn must_leave(&self) {
        loop {
            self.called().await;
            if !self.closing() {
                return;
            }
        }
    }

    /// Whether places are running out.
    pub fn stressed(&self) -> bool {
        self.places.stressed()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.guests.remove(&self.guest.number);
        self.places.taken.fetch_sub(1, Ordering::AcqRel);
        metrics::get().places_taken.dec();
    }
}

#[cfg(test)]
mod tests;
