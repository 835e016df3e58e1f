//! Durations as a histogram in seconds.
//!
//! The histogram of prometheus-client keeps its buckets behind a mutex; this one
//! is a row of atomics, because all sessions observe the same few histograms.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in seconds, from a loopback's answer to the longest timeouts;
/// the same everywhere, so that histograms can be laid over each other.
const BOUNDS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 600.0,
];

/// How long something took, each time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seconds(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// Those of each bound alone, not summed up.
    within: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    /// 2^64 nanoseconds are more than five hundred years.
    nanoseconds: AtomicU64,
}

impl Seconds {
    /// It took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let within = BOUNDS.iter().zip(&self.0.within);
        let bucket = within
            .into_iter()
            .find_map(|(bound, bucket)| (seconds <= *bound).then_some(bucket));
        bucket
            .unwrap_or(&self.0.beyond)
            .fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Seconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.0.within.iter().chain([&self.0.beyond]);
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Summed up here rather than kept, so that it always equals the last bucket.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
