//! Places taken before Redis was asked. Whatever becomes of the question, even
//! if the future that asks is dropped, no place is left behind.

use super::places::Place;
use super::{Count, Shared};

/// Places of which it is not yet known whether they may be kept. Dropped, they
/// are given back.
pub(super) struct Taken<'a> {
    shared: &'a Shared,
    pub(super) places: Vec<(&'a Count, Place)>,
}

impl<'a> Taken<'a> {
    pub(super) fn new(shared: &'a Shared, counts: &'a [Count]) -> Self {
        let take = |count: &'a Count| (count, shared.places.take(&count.key));
        Self {
            shared,
            places: counts.iter().map(take).collect(),
        }
    }

    /// Redis knows of them.
    pub(super) fn keep(mut self) {
        self.places.clear();
    }

    /// Redis may know of them or not.
    pub(super) fn keep_unheard(mut self) {
        for (count, _) in self.places.drain(..) {
            self.shared.publish_later(&count.key);
        }
    }

    /// Redis wrote nothing. But if the key changed meanwhile, then that change
    /// was written with these places in it.
    pub(super) fn refused(mut self) {
        for (count, place) in self.places.drain(..) {
            let before = self.shared.places.give_back(&count.key);
            if before.is_some_and(|before| before.change != place.change) {
                self.shared.publish_later(&count.key);
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for (count, _) in self.places.drain(..) {
            self.shared.places.give_back(&count.key);
            self.shared.publish_later(&count.key);
        }
    }
}
