//! What this instance holds of every shared count. This is the truth; what Redis
//! says of this instance is a copy, which a later change overwrites. So an
//! answer that got lost does no lasting harm: nothing is added or subtracted
//! in Redis.
//!
//! There is an entry for a key that is held, and for no other: memory is
//! bounded by `SESSIONS_MAX` times the counts of a session.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::{DashMap, Entry};

/// The places held of one key, as of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Places held.
    pub(super) count: u32,
    /// Changes are numbered in the order in which they happened to a key, so
    /// that a write which was overtaken on its way is known as the older one.
    pub(super) change: u64,
}

/// What is held.
#[derive(Debug, Default)]
pub(super) struct Places {
    held: DashMap<String, Place, foldhash::quality::RandomState>,
    changes: AtomicU64,
}

impl Places {
    /// Takes a place.
    pub(super) fn take(&self, key: &str) -> Place {
        let mut held = self.held.entry(key.to_owned()).or_insert(Place {
            count: 0,
            change: 0,
        });
        *held = Place {
            count: held.count.saturating_add(1),
            change: self.next_change(),
        };
        *held
    }

    /// Gives a place back, and says what was held before.
    pub(super) fn give_back(&self, key: &str) -> Option<Place> {
        let Entry::Occupied(mut held) = self.held.entry(key.to_owned()) else {
            return None;
        };
        let before = *held.get();
        if before.count <= 1 {
            held.remove();
        } else {
            held.insert(Place {
                count: before.count - 1,
                change: self.next_change(),
            });
        }
        Some(before)
    }

    /// What is held, to be written: a change too, for whoever took a place
    /// meanwhile and will have to give it back.
    pub(super) fn held(&self, key: &str) -> Place {
        // Of a key that nobody holds: who takes a place after the look gets a
        // higher number.
        let before = self.next_change();
        match self.held.get_mut(key) {
            Some(mut place) => {
                place.change = self.next_change();
                *place
            }
            None => Place {
                count: 0,
                change: before,
            },
        }
    }

    /// All keys that are held.
    pub(super) fn keys(&self) -> Vec<String> {
        self.held.iter().map(|held| held.key().clone()).collect()
    }

    fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_forgets_what_is_no_longer_held() {
        let places = Places::default();
        assert_eq!(places.take("a").count, 1);
        let second = places.take("a");
        assert_eq!(second.count, 2);
        assert_eq!(places.give_back("a"), Some(second));
        assert_eq!(places.held("a").count, 1);
        assert!(places.give_back("a").is_some());
        assert_eq!(places.give_back("a"), None, "never below zero");
        assert!(places.keys().is_empty());
    }

    #[test]
    fn to_write_a_place_is_a_change() {
        let places = Places::default();
        let taken = places.take("a");
        let written = places.held("a");
        assert_eq!(written.count, 1);
        assert_eq!(places.give_back("a"), Some(written));
        assert_ne!(written.change, taken.change);
    }

    #[test]
    fn numbers_changes_upwards() {
        let places = Places::default();
        let numbers = [
            places.take("a").change,
            places.take("b").change,
            places.held("a").change,
            places.take("a").change,
            places.held("nobody's").change,
            places.take("nobody's").change,
        ];
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }
}
