//! The circuit breaker before Redis: after several failures in a row nobody asks
//! for a while, so that a dead server does not cost every client a deadline.
//! It holds atomics only and never waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 5;

/// How long nobody asks, in microseconds. Then one question at a time is let through, at this
/// pace, until one is answered.
const PAUSE_MICROS: u64 = 250_000;

/// Closed: questions pass. Open: they do not, but for a probe now and then.
#[derive(Debug)]
pub(super) struct Breaker {
    start: Instant,
    failures: AtomicU32,
    /// When the next probe may pass, in microseconds after `start`; 0: closed.
    probe_at: AtomicU64,
}

/// What a failure did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The breaker was closed and is open now.
    Opened,
    /// It is as it was.
    None,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            failures: AtomicU32::new(0),
            probe_at: AtomicU64::new(0),
        }
    }

    /// Whether a question may be asked now. Whoever asks reports how it went;
    /// a probe of which nothing is heard is followed by the next one.
    pub(super) fn lets_through(&self) -> bool {
        let probe_at = self.probe_at.load(Ordering::Relaxed);
        if probe_at == 0 {
            return true;
        }
        let now = self.now();
        now >= probe_at
            && self
                .probe_at
                .compare_exchange(
                    probe_at,
                    now + PAUSE_MICROS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// A question was answered in time.
    pub(super) fn succeeded(&self) {
        // Looking first keeps the cache line shared while all is well.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.is_open() {
            self.probe_at.store(0, Ordering::Relaxed);
        }
    }

    /// A question was not answered, not in time, or with an error.
    pub(super) fn failed(&self) -> Change {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) < FAILURES_MAX {
            return Change::None;
        }
        let probe_at = self.now() + PAUSE_MICROS;
        match self.probe_at.swap(probe_at, Ordering::Relaxed) {
            0 => Change::Opened,
            _ => Change::None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.probe_at.load(Ordering::Relaxed) != 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - PAUSE_MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_closes_at_a_success() {
        let breaker = Breaker::new();
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(), Change::None);
        }
        breaker.succeeded();
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(), Change::None);
            assert!(breaker.lets_through());
        }
        assert_eq!(breaker.failed(), Change::Opened);
        assert!(breaker.is_open() && !breaker.lets_through());
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.lets_through());
    }

    #[test]
    fn lets_one_probe_through_after_the_pause() {
        let breaker = Breaker::new();
        for _ in 0..FAILURES_MAX {
            breaker.failed();
        }
        std::thread::sleep(std::time::Duration::from_micros(PAUSE_MICROS));
        assert!(breaker.lets_through());
        assert!(!breaker.lets_through(), "a second probe at once");
        assert_eq!(breaker.failed(), Change::None, "it was open already");
        assert!(!breaker.lets_through());
    }
}
