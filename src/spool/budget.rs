//! An amount of octets that all messages share, and one message's part of it.
//!
//! Shares are taken and given back by single atomic steps: nobody ever waits,
//! and what a share holds goes back when it is dropped, whatever happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Octets that may be used in all.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// Octets in use now.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A share that holds nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: Arc::clone(self),
            held: 0,
        }
    }
}

/// What one message holds of a budget.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: u64,
}

impl Share {
    /// Octets held.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Takes `octets` more: all of them or none. Tells whether it did.
    #[must_use]
    pub(super) fn grow(&mut self, octets: u64) -> bool {
        let sum = |used: u64| {
            used.checked_add(octets)
                .filter(|sum| *sum <= self.budget.limit)
        };
        // The counter guards no other memory, so no ordering is needed.
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
        if taken.is_ok() {
            self.held += octets;
        }
        taken.is_ok()
    }

    /// Gives back what is held beyond `octets`.
    pub(super) fn shrink_to(&mut self, octets: u64) {
        let excess = self.held.saturating_sub(octets);
        self.held -= excess;
        self.budget.used.fetch_sub(excess, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
