//! How much has passed in the last ten minutes: samples of the counters.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{self, Counter, Outcome};

/// Pause between two samples.
pub(super) const PACE: Duration = Duration::from_secs(5);

/// Samples that make a minute.
const MINUTE: usize = 12;

/// Samples that are kept: ten minutes and where they begin.
const KEPT: usize = 10 * MINUTE + 1;

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Messages that the backend took.
    pub(super) delivered: u64,
    /// Refusals, those of `MODE=monitor` among them.
    pub(super) refused: u64,
    /// Connections.
    pub(super) connections: u64,
    /// Sessions that are going on.
    pub(super) sessions: u64,
}

impl Sample {
    /// Of this moment.
    pub(super) fn take() -> Self {
        let metrics = metrics::get();
        let gauges = metrics.sessions.iter().map(|(_, gauge)| gauge.get());
        Self {
            delivered: metrics.messages.of(Outcome::Delivered).get(),
            refused: metrics.refusals.iter().map(|(_, count)| count.get()).sum(),
            connections: sum(metrics.connections.iter().map(|(_, count)| count)),
            sessions: u64::try_from(gauges.sum::<i64>()).unwrap_or(0),
        }
    }

    /// What came since an earlier one; sessions are those of now.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            delivered: self.delivered.saturating_sub(earlier.delivered),
            refused: self.refused.saturating_sub(earlier.refused),
            connections: self.connections.saturating_sub(earlier.connections),
            sessions: self.sessions,
        }
    }
}

fn sum<'a>(counters: impl Iterator<Item = &'a Counter>) -> u64 {
    counters.map(|counter| counter.get()).sum()
}

/// The samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

impl History {
    /// Takes samples for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            self.add(Sample::take());
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while samples.len() >= KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// What came in the minute before `now`, or since the start.
    pub(super) fn minute(&self, now: &Sample) -> Sample {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = samples.get(samples.len().saturating_sub(MINUTE));
        now.since(&earlier.copied().unwrap_or_default())
    }

    /// What came between one sample and the next.
    pub(super) fn steps(&self) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later = samples.iter().skip(1);
        later
            .zip(samples.iter())
            .map(|(later, earlier)| later.since(earlier))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(delivered: u64) -> Sample {
        Sample {
            delivered,
            sessions: 3,
            ..Sample::default()
        }
    }

    #[test]
    fn a_minute_is_what_came_in_the_last_twelve_samples() {
        let history = History::default();
        assert_eq!(history.minute(&sample(7)).delivered, 7);
        for delivered in 0..20 {
            history.add(sample(delivered));
        }
        assert_eq!(history.minute(&sample(20)).delivered, 12);
    }

    #[test]
    fn steps_are_bounded_and_tell_what_came_in_each() {
        let history = History::default();
        assert!(history.steps().is_empty());
        for delivered in 0..1000 {
            history.add(sample(delivered * 2));
        }
        let steps = history.steps();
        assert_eq!(steps.len(), KEPT - 1);
        assert!(steps.iter().all(|step| *step == sample(2)));
    }
}
