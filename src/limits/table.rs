//! The bounded memory of a rate limit: a fixed table under governor's GCRA.
//!
//! A slot is one atomic word: a tag of the key's seeded hash and the key's
//! theoretical arrival time. A time that has passed is worth nothing (to
//! forget it changes no decision), so its slot is free again without anybody
//! sweeping; a time yet to come is never thrown out for a newcomer. Where a
//! set of slots has no room, the newcomer is not remembered and the caller is
//! told: the wider network's bucket decides for it.
//!
//! It never allocates after it was made, never locks, and knows no addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::KeyedStateStore;

/// Slots of a set: one cache line of words.
const WAYS: usize = 8;

/// Octets of a slot.
pub(super) const SLOT: usize = size_of::<AtomicU64>();

/// Bits of the arrival time. The other 22 are the tag: two keys of one set are
/// taken for each other once in 500,000 looks at a full table.
const TIME_BITS: u32 = 42;

const TIME_MAX: u64 = (1 << TIME_BITS) - 1;

/// Nanoseconds of a tick as a power of two: 65.5 us, with which 42 bits last nine years.
const TICK_BITS: u32 = 16;

/// A key's place and tag, and whether there was room for it.
#[derive(Debug)]
pub(super) struct Probe {
    hash: u64,
    now: u64,
    crowded: AtomicBool,
}

impl Probe {
    /// `hash` must be seeded; `now` is nanoseconds on the limiter's clock.
    pub(super) fn new(hash: u64, now: u64) -> Self {
        Self {
            hash,
            now: now >> TICK_BITS,
            crowded: AtomicBool::new(false),
        }
    }

    /// Whether the key was not remembered, for want of room.
    pub(super) fn crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Never 0: that is an empty slot.
    fn tag(&self) -> u64 {
        (self.hash >> TIME_BITS).max(1)
    }
}

impl std::hash::Hash for Probe {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// The table. A clone is another hand on the same one.
#[derive(Clone)]
pub(super) struct Table {
    slots: Arc<Box<[AtomicU64]>>,
}

impl Table {
    /// As many slots as fit into `octets`, one set at least. Pages that are
    /// never used are never taken from the system.
    pub(super) fn new(octets: usize) -> Self {
        let sets = (octets / (SLOT * WAYS)).max(1);
        Self {
            slots: Arc::new(bytemuck::zeroed_slice_box(sets.saturating_mul(WAYS))),
        }
    }

    fn set(&self, hash: u64) -> &[AtomicU64] {
        let sets = u64::try_from(self.slots.len() / WAYS).unwrap_or(0);
        // The low half of the hash scaled to the sets; the tag is of the high half.
        let set = ((hash & u64::from(u32::MAX)) * sets) >> 32;
        let first = usize::try_from(set).unwrap_or(0) * WAYS;
        self.slots.get(first..first + WAYS).unwrap_or_default()
    }

    /// Slots whose time is yet to come at `now`, nanoseconds.
    pub(super) fn live(&self, now: u64) -> usize {
        let now = now >> TICK_BITS;
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        words.filter(|word| time(*word) > now).count()
    }
}

fn time(word: u64) -> u64 {
    word & TIME_MAX
}

fn word(tag: u64, arrival: Nanos) -> u64 {
    // Rounded down: up would cost a token of the burst.
    (tag << TIME_BITS) | (arrival.as_u64() >> TICK_BITS).min(TIME_MAX)
}

impl StateStore for Table {
    type Key = Probe;

    fn measure_and_replace<T, F, E>(&self, probe: &Probe, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let set = self.set(probe.hash);
        loop {
            let mut mine = None;
            let mut free = None;
            for slot in set {
                let word = slot.load(Ordering::Acquire);
                if word >> TIME_BITS == probe.tag() {
                    mine = Some((slot, word));
                    break;
                }
                if free.is_none() && time(word) <= probe.now {
                    free = Some((slot, word));
                }
            }
            let known = mine.map(|(_, word)| Nanos::from(time(word) << TICK_BITS));
            let (outcome, arrival) = measure(known)?;
            let Some((slot, old)) = mine.or(free) else {
                probe.crowded.store(true, Ordering::Relaxed);
                return Ok(outcome);
            };
            let new = word(probe.tag(), arrival);
            if slot
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return Ok(outcome);
            }
            // Somebody else was quicker: look again.
        }
    }
}

impl KeyedStateStore<Probe> for Table {}

/// The same table for a look: nothing is written.
pub(super) struct Look(pub(super) Table);

impl StateStore for Look {
    type Key = Probe;

    fn measure_and_replace<T, F, E>(&self, probe: &Probe, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let words = self.0.set(probe.hash).iter();
        let mut words = words.map(|slot| slot.load(Ordering::Acquire));
        let mine = words.find(|word| word >> TIME_BITS == probe.tag());
        let known = mine.map(|word| Nanos::from(time(word) << TICK_BITS));
        measure(known).map(|(outcome, _)| outcome)
    }
}

impl KeyedStateStore<Probe> for Look {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    /// Charges one second to a key, without any bound.
    fn charge(table: &Table, hash: u64, now: u64) -> (Option<u64>, bool) {
        let probe = Probe::new(hash, now);
        let before = table.measure_and_replace(&probe, |known| {
            let start = known.map_or(now, |known| known.as_u64().max(now));
            let next = Nanos::from(Duration::from_nanos(start + SECOND));
            Ok::<_, ()>((known.map(|known| known.as_u64()), next))
        });
        (before.unwrap(), probe.crowded())
    }

    fn hash(tag: u64) -> u64 {
        tag << TIME_BITS
    }

    #[test]
    fn remembers_a_key_to_the_tick() {
        let table = Table::new(64);
        assert_eq!(charge(&table, hash(5), SECOND), (None, false));
        let (known, _) = charge(&table, hash(5), SECOND);
        let error = 2 * SECOND - known.unwrap();
        assert!(error < 1 << TICK_BITS, "{error} ns off");
    }

    #[test]
    fn a_newcomer_never_throws_out_who_is_counted() {
        let table = Table::new(64);
        for tag in 1..=8 {
            assert_eq!(charge(&table, hash(tag), SECOND), (None, false));
        }
        assert_eq!(charge(&table, hash(9), SECOND), (None, true));
        for tag in 1..=8 {
            assert!(
                charge(&table, hash(tag), SECOND).0.is_some(),
                "{tag} was forgotten"
            );
        }
    }

    #[test]
    fn a_time_that_has_passed_makes_room() {
        let table = Table::new(64);
        for tag in 1..=8 {
            charge(&table, hash(tag), SECOND);
        }
        assert_eq!(table.live(SECOND), 8);
        assert_eq!(table.live(3 * SECOND), 0);
        assert_eq!(charge(&table, hash(9), 3 * SECOND), (None, false));
    }

    #[test]
    fn a_tag_of_zero_is_not_taken_for_an_empty_slot() {
        let table = Table::new(64);
        charge(&table, hash(0), SECOND);
        assert!(charge(&table, hash(0), SECOND).0.is_some());
    }

    #[test]
    fn nobody_is_lost_when_all_write_at_once() {
        let table = Table::new(64 * 1024);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        charge(&table, hash(7), SECOND);
                    }
                });
            }
        });
        // 4,000 charges of a second each; every one rounds down by less than a tick.
        let (known, _) = charge(&table, hash(7), SECOND);
        let charged = known.unwrap() - SECOND;
        assert!(
            charged > 3999 * SECOND && charged <= 4000 * SECOND,
            "{charged}"
        );
    }
}
