//! A circuit breaker: a scanner that keeps failing is left alone for a while,
//! so that not every message waits for it in vain. It never asks anybody itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a scanner is out of service.
const FAILURES_MAX: u32 = 3;

/// The first pause; each probe that fails doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Counts the failures of one scanner.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The scanner's name, for the log.
    name: String,
    /// Never held over an await.
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In service, after so many failures in a row.
    Closed { failures: u32 },
    /// Out of service.
    Open { until: Instant, pause: Duration },
    /// One message is tried after this pause; the others do not wait for it.
    Probing { pause: Duration },
}

/// Leave to ask the scanner once. Dropped without a word it tells nothing.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    kind: Kind,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ordinary,
    Probe,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Unknown,
    Success,
    Failure,
}

impl Breaker {
    pub(super) fn new(name: String) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { name, state }
    }

    /// Whether it would be in vain to wait for a place.
    pub(super) fn is_open(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { until, .. } => Instant::now() < until,
            State::Probing { .. } => true,
        }
    }

    /// Leave to ask the scanner; `None` while it is out of service.
    pub(super) fn admit(&self) -> Option<Attempt<'_>> {
        let mut state = self.state();
        let kind = match *state {
            State::Closed { .. } => Kind::Ordinary,
            State::Open { until, pause } if Instant::now() >= until => {
                *state = State::Probing { pause };
                Kind::Probe
            }
            State::Open { .. } | State::Probing { .. } => return None,
        };
        Some(Attempt {
            breaker: self,
            kind,
            outcome: Outcome::Unknown,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is replaced in one move, so it is whole whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, kind: Kind, outcome: Outcome) {
        let mut state = self.state();
        let now = Instant::now();
        *state = match (*state, kind, outcome) {
            (State::Closed { .. }, _, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, _, Outcome::Failure) if failures + 1 < FAILURES_MAX => {
                State::Closed {
                    failures: failures + 1,
                }
            }
            (State::Closed { .. }, _, Outcome::Failure) => {
                tracing::warn!(scanner = %self.name, failures = FAILURES_MAX, "scanner is out of service");
                State::Open {
                    until: now + PAUSE_MIN,
                    pause: PAUSE_MIN,
                }
            }
            // Whoever answers is in service, even to a question from before.
            (State::Open { .. } | State::Probing { .. }, _, Outcome::Success) => {
                tracing::info!(scanner = %self.name, "scanner is back in service");
                State::Closed { failures: 0 }
            }
            (State::Probing { pause }, Kind::Probe, Outcome::Failure) => {
                let pause = pause.saturating_mul(2).min(PAUSE_MAX);
                let until = now + pause;
                State::Open { until, pause }
            }
            // Its client left before the answer came: the next message is the probe.
            (State::Probing { pause }, Kind::Probe, Outcome::Unknown) => {
                State::Open { until: now, pause }
            }
            (unmoved, ..) => unmoved,
        };
    }
}

impl Attempt<'_> {
    /// The scanner answered.
    pub(super) fn succeeded(mut self) {
        self.outcome = Outcome::Success;
    }

    /// The scanner is down, late or talks nonsense.
    pub(super) fn failed(mut self) {
        self.outcome = Outcome::Failure;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.breaker.settle(self.kind, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.admit().unwrap().failed();
    }

    fn opened() -> Breaker {
        let breaker = Breaker::new("test".to_owned());
        (0..3).for_each(|_| fail(&breaker));
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_three_failures_in_a_row() {
        let breaker = Breaker::new("test".to_owned());
        fail(&breaker);
        fail(&breaker);
        breaker.admit().unwrap().succeeded();
        fail(&breaker);
        fail(&breaker);
        assert!(!breaker.is_open());
        fail(&breaker);
        assert!(breaker.is_open());
        assert!(breaker.admit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn lets_one_probe_through_at_a_time() {
        let breaker = opened();
        advance(PAUSE_MIN - Duration::from_millis(1)).await;
        assert!(breaker.admit().is_none());
        advance(Duration::from_millis(1)).await;
        assert!(!breaker.is_open());
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_none());
        assert!(breaker.is_open());
        probe.succeeded();
        let (one, other) = (breaker.admit(), breaker.admit());
        assert!(one.is_some() && other.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn doubles_its_pause_up_to_a_minute_and_starts_anew_after_a_success() {
        let breaker = opened();
        for seconds in [5, 10, 20, 40, 60, 60] {
            advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert!(breaker.admit().is_none(), "{seconds}");
            advance(Duration::from_millis(1)).await;
            fail(&breaker);
        }
        advance(PAUSE_MAX).await;
        breaker.admit().unwrap().succeeded();
        (0..3).for_each(|_| fail(&breaker));
        advance(PAUSE_MIN).await;
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_given_up_makes_room_for_the_next() {
        let breaker = opened();
        advance(PAUSE_MIN).await;
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_of_earlier_messages_do_not_prolong_the_pause() {
        let breaker = Breaker::new("test".to_owned());
        let late = breaker.admit().unwrap();
        (0..3).for_each(|_| fail(&breaker));
        advance(PAUSE_MIN).await;
        let probe = breaker.admit().unwrap();
        late.failed();
        probe.succeeded();
        assert!(!breaker.is_open());
    }
}
