//! What a scanner says and how long it takes, counted for whoever watches.

use std::time::Duration;

use crate::metrics::{self, Counter, Gauge, ScanResult, Seconds, Table};
use crate::policy::content::{Opinion, Word};

/// The counters of one scanner.
#[derive(Debug)]
pub(super) struct Tally {
    results: Table<ScanResult, Counter>,
    seconds: Table<(), Seconds>,
    up: Table<(), Gauge>,
}

impl Tally {
    /// For the scanner of this name, which is held to be in service.
    pub(super) fn new(name: &str) -> Self {
        let metrics = metrics::get();
        let up = metrics.scanner_up.named(name);
        up.of(()).set(1);
        Self {
            results: metrics.scans.named(name),
            seconds: metrics.scan_seconds.named(name),
            up,
        }
    }

    /// It was asked, and answered or not.
    pub(super) fn asked(&self, took: Duration) {
        self.seconds.of(()).observe(took);
    }

    /// This is what it says, or what stands for its silence.
    pub(super) fn said(&self, opinions: &[Opinion]) {
        for opinion in opinions {
            self.results.of(result(&opinion.word)).inc();
        }
    }

    /// It is in service.
    pub(super) fn in_service(&self) {
        self.up.of(()).set(1);
    }

    /// It is out of service.
    pub(super) fn out_of_service(&self) {
        self.up.of(()).set(0);
    }
}

fn result(word: &Word) -> ScanResult {
    match word {
        Word::Clean => ScanResult::Clean,
        Word::Infected(_) => ScanResult::Infected,
        Word::Score { .. } => ScanResult::Scored,
        Word::Refuse { .. } => ScanResult::Refuse,
        Word::Defer { .. } => ScanResult::Defer,
        Word::Quarantine(_) => ScanResult::Quarantine,
        Word::Unscanned => ScanResult::Unscanned,
        Word::Failed(_) => ScanResult::Failed,
    }
}
