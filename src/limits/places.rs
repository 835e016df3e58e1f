//! The places for sessions: how many there are, who sits in them, and who must
//! get up when they run out.
//!
//! Above 80 % of `SESSIONS_MAX` nobody may keep Portcullis waiting for a
//! command longer than ten seconds, nor for thirty in all without getting
//! anything done. Who has done nothing useful yet has less time the fewer places
//! are left, and ten seconds in all. A waiting client costs nothing but its
//! place; the eyes of the keeper open only under stress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use tokio::sync::Notify;

/// The share of the places above which Portcullis is under stress, per cent.
const STRESS: usize = 80;

/// How long a client may keep Portcullis waiting under stress.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may in all between two things that it gets done, however many
/// commands it spreads its waiting over.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);

/// How long one may that has done nothing useful, when no place is left.
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
    number: u64,
}

/// What the keeper knows of a session.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Milliseconds since the start of the house, plus one; 0 while we work for it.
    pub(super) waiting_since: AtomicU64,
    /// Likewise, since when it has held a connection to the guarded server without
    /// getting anything done; 0 while it holds none.
    pub(super) holds_since: AtomicU64,
    /// How many connections it has been given so far.
    pub(super) seats: AtomicU64,
    /// Milliseconds that we have waited before that, since it got something done.
    waited: AtomicU64,
    useful: AtomicBool,
    pub(super) call: Notify,
}

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
            waiting_since: AtomicU64::new(self.now()),
            ..Guest::default()
        });
        self.guests.insert(number, Arc::clone(&guest));
        Some(Place {
            places: Arc::clone(self),
            guest,
            number,
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
        let overdue = self.guests.iter().filter(|guest| {
            let since = guest.waiting_since.load(Ordering::Relaxed);
            let waited = Duration::from_millis(now.saturating_sub(since));
            if since == 0 {
                return false;
            }
            let in_all = waited + Duration::from_millis(guest.waited.load(Ordering::Relaxed));
            if guest.useful.load(Ordering::Relaxed) {
                waited >= PATIENCE || in_all >= PATIENCE_IN_ALL
            } else {
                waited >= useless || in_all >= PATIENCE
            }
        });
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

impl Place {
    /// From now on the client keeps us waiting.
    pub fn waits(&self) {
        let now = self.places.now();
        self.guest.waiting_since.store(now, Ordering::Relaxed);
    }

    /// From now on we, or a body, are at work.
    pub fn works(&self) {
        let since = self.guest.waiting_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            let waited = self.places.now().saturating_sub(since);
            self.guest.waited.fetch_add(waited, Ordering::Relaxed);
        }
    }

    /// The client has begun something useful.
    pub fn useful(&self) {
        self.guest.useful.store(true, Ordering::Relaxed);
    }

    /// The client has got something done: a message, a sign-in.
    pub fn done(&self) {
        self.useful();
        self.guest.waited.store(0, Ordering::Relaxed);
        if self.guest.holds_since.load(Ordering::Relaxed) != 0 {
            let now = self.places.now();
            self.guest.holds_since.store(now, Ordering::Relaxed);
        }
    }

    /// How long the client has kept us waiting since it got something done, or came;
    /// without the wait that goes on.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.guest.waited.load(Ordering::Relaxed))
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
        self.guest.call.notified().await;
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

impl Drop for Place {
    fn drop(&mut self) {
        self.places.guests.remove(&self.number);
        self.places.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_house() -> (Arc<Places>, Vec<Place>) {
        let places = Places::new(10);
        let taken = (0..10).map(|_| places.take().unwrap()).collect();
        (places, taken)
    }

    /// As if the client had kept us waiting since then.
    fn waits_for(place: &Place, waited: Duration) {
        let since = place
            .places
            .now()
            .saturating_sub(u64::try_from(waited.as_millis()).unwrap());
        place.guest.waiting_since.store(since, Ordering::Relaxed);
    }

    #[test]
    fn no_more_places_than_there_are() {
        let (places, mut taken) = full_house();
        assert!(places.take().is_none());
        assert_eq!(places.taken(), 10);
        taken.pop();
        assert!(places.take().is_some());
    }

    #[test]
    fn stress_begins_above_80_per_cent() {
        let (places, mut taken) = full_house();
        assert!(places.stressed());
        taken.truncate(8);
        assert!(!places.stressed());
    }

    #[test]
    fn the_useless_lose_patience_first() {
        let house = Places::long_open(10);
        let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
        for place in &taken {
            place.useful();
            waits_for(place, Duration::from_secs(5));
        }
        let useless = house.guests.iter().next().unwrap().key().to_owned();
        house
            .guests
            .get(&useless)
            .unwrap()
            .useful
            .store(false, Ordering::Relaxed);
        assert_eq!(house.look_around(), 1);
        let place = taken.iter().find(|place| place.number == useless).unwrap();
        assert!(futures_ready(place.must_leave()));
    }

    #[test]
    fn the_useless_gain_nothing_by_a_command_now_and_then() {
        let house = Places::long_open(10);
        let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
        for place in &taken {
            for _ in 0..20 {
                waits_for(place, Duration::from_millis(600));
                place.works();
            }
            place.waits();
        }
        taken[0].useful();
        assert_eq!(house.look_around(), 9);
    }

    #[test]
    fn nobody_keeps_us_waiting_for_ever_in_small_pieces() {
        let house = Places::long_open(10);
        let taken: Vec<_> = (0..9).map(|_| house.take().unwrap()).collect();
        for place in &taken {
            place.useful();
            for _ in 0..4 {
                waits_for(place, Duration::from_secs(8));
                place.works();
            }
            waits_for(place, Duration::from_secs(1));
        }
        taken[0].done();
        assert_eq!(house.look_around(), 8);
    }

    #[test]
    fn nobody_keeps_us_waiting_for_ten_seconds_under_stress() {
        let house = Places::long_open(10);
        let taken: Vec<_> = (0..9).map(|_| house.take().unwrap()).collect();
        for place in &taken {
            place.useful();
            waits_for(place, Duration::from_secs(11));
        }
        taken[0].works();
        assert_eq!(house.look_around(), 8);
    }

    #[test]
    fn a_house_that_closes_calls_everybody_and_sends_nobody_away_at_once() {
        let (house, taken) = full_house();
        assert!(!taken[3].closing() && !futures_ready(taken[3].called()));
        house.close();
        assert!(taken[3].closing() && futures_ready(taken[3].called()));
        assert!(!futures_ready(taken[4].must_leave()));
    }

    #[test]
    fn without_stress_everybody_may_stay() {
        let house = Places::long_open(10);
        let taken: Vec<_> = (0..8).map(|_| house.take().unwrap()).collect();
        for place in &taken {
            waits_for(place, Duration::from_secs(50));
        }
        assert_eq!(house.look_around(), 0);
    }

    #[test]
    fn patience_shrinks_with_the_places_left() {
        let house = Places::new(100);
        let mut taken: Vec<_> = (0..80).map(|_| house.take().unwrap()).collect();
        assert_eq!(house.patience_with_the_useless(), PATIENCE);
        taken.extend((0..10).map(|_| house.take().unwrap()));
        assert_eq!(
            house.patience_with_the_useless(),
            Duration::from_millis(5500)
        );
        taken.extend((0..10).map(|_| house.take().unwrap()));
        assert_eq!(house.patience_with_the_useless(), SHORTEST_PATIENCE);
    }

    fn futures_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }
}
