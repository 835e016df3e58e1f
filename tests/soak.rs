//! Visitors of all kinds for as long as one likes: memory, file descriptors, threads
//! and sessions stay level, and in the end nothing is left of anybody.
//!
//! `SOAK_TIME` in seconds, 25 when unset. One test alone in its process, because
//! others would take the time that its visitors need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{Attempt, Manner, Options, Portcullis, Postfix, Senders, Sham};
use support::{Visitors, wait_for};

const SETTINGS: &[(&str, &str)] = &[
    // All but those who come to be banned.
    ("LIMIT_EXEMPT", "127.0.0.0/16"),
    ("OFFENCE_RATE", "2/min"),
    ("BAN_TIME", "5s"),
    ("LIMIT_MEMORY", "1M"),
    ("TIMEOUT_COMMAND", "5s"),
    ("SPOOL_BUFFER", "64K"),
    ("BACKEND_PROBE_INTERVAL", "1s"),
];

/// Of all the time: until every table, pool and page that is kept has been used.
const WARM_UP: f64 = 0.3;

/// What may be more in the last third than in the first, by their medians. Memory: what
/// the limiter may take for those who are banned, and as much again. Threads: the pool
/// for what blocks has as many as there were files to write at one time.
const MORE_MEMORY: u64 = 2 << 20;
const MORE_DESCRIPTORS: usize = 60;
const MORE_THREADS: usize = 12;

const SAMPLES: u32 = 150;
const TICK: Duration = Duration::from_millis(100);
const ROWS: usize = 30;

const BETWEEN_RELOADS: Duration = Duration::from_secs(3);

/// Until the last one has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// What Portcullis needs at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    visits: usize,
    memory: u64,
    descriptors: usize,
    threads: usize,
    sessions: usize,
}

impl Sample {
    fn take(portcullis: &Portcullis, began: Instant, visits: usize) -> Self {
        Self {
            at: began.elapsed(),
            visits,
            memory: portcullis.resident(),
            descriptors: portcullis.descriptors(),
            threads: portcullis.threads(),
            sessions: sessions(portcullis),
        }
    }

    fn print(&self) {
        let (seconds, memory) = (self.at.as_secs(), self.memory >> 10);
        let Self {
            visits,
            descriptors,
            threads,
            sessions,
            ..
        } = self;
        println!(
            "{seconds:5} s {visits:9} visits {memory:8} KiB {descriptors:5} descriptors \
             {threads:3} threads {sessions:4} sessions"
        );
    }
}

/// All that are going on, at whatever listener.
fn sessions(portcullis: &Portcullis) -> usize {
    let text = portcullis.metrics();
    let of_listener = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let counts = series.starts_with("portcullis_sessions{");
        counts.then(|| value.parse::<usize>().unwrap())
    };
    text.lines().filter_map(of_listener).sum()
}

fn median<T: Ord + Copy>(samples: &[Sample], figure: impl Fn(&Sample) -> T) -> T {
    let mut figures: Vec<_> = samples.iter().map(figure).collect();
    figures.sort_unstable();
    figures[figures.len() / 2]
}

/// With a scanner or without one; both are read again on HUP.
fn configure(file: &Path, scanner: Option<&Sham>) {
    let text = scanner.map(|sham| format!("clamav = \"{}\"\n", sham.address));
    std::fs::write(file, text.unwrap_or_default()).unwrap();
}

#[test]
fn nothing_grows_with_the_number_of_visits() {
    let seconds = std::env::var("SOAK_TIME").map_or(25, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let postfix = Postfix::start(Options {
        extra: "virtual_transport = discard:\n",
        ..Options::default()
    });
    let (sham, folder) = (Sham::start(Manner::Clean), tempfile::tempdir().unwrap());
    let file = folder.path().join("portcullis.toml");
    configure(&file, None);
    let mut settings = SETTINGS.to_vec();
    settings.push(("CONFIG", file.to_str().unwrap()));
    let portcullis = Portcullis::before(&postfix, &settings);
    let at_rest = at_rest(&portcullis);

    let senders = Senders::start_at_pace(&portcullis, Duration::from_millis(50));
    let visitors = Visitors::start(&portcullis);

    let (began, mut reloaded, mut reloads) = (Instant::now(), Instant::now(), 0);
    let mut samples = Vec::new();
    while began.elapsed() < time {
        std::thread::sleep(TICK);
        if reloaded.elapsed() >= BETWEEN_RELOADS {
            reloaded = Instant::now();
            reloads += 1;
            configure(&file, Some(&sham).filter(|_| reloads % 2 == 1));
            portcullis.hang_up();
        }
        if began.elapsed() >= time / SAMPLES * samples.len() as u32 {
            samples.push(Sample::take(&portcullis, began, visitors.visits()));
        }
    }
    let attempts = senders.finish();
    let visits = visitors.finish();

    for sample in samples.iter().step_by(samples.len().div_ceil(ROWS)) {
        sample.print();
    }
    let failed: Vec<_> = attempts.iter().filter(|sent| !sent.acknowledged).collect();
    println!("{} messages, {reloads} reloads", attempts.len());
    assert!(failed.len() * 100 <= attempts.len(), "{failed:#?}");
    assert!(!attempts.iter().any(Attempt::bounced), "{failed:#?}");
    assert!(sham.whole() > 0, "nothing was scanned");
    for (visit, paid) in &visits {
        println!("{visit:?}: {paid:?}");
        assert!(paid.well > 9 * paid.badly, "{visit:?}: {paid:?}");
    }
    assert_level(&samples);
    assert_nothing_is_left(&portcullis, &at_rest);
}

#[track_caller]
fn assert_level(samples: &[Sample]) {
    let warm = (samples.len() as f64 * WARM_UP) as usize;
    let third = (samples.len() - warm) / 3;
    let (first, last) = (
        &samples[warm..warm + third],
        &samples[samples.len() - third..],
    );
    let memory = [first, last].map(|part| median(part, |sample| sample.memory));
    let descriptors = [first, last].map(|part| median(part, |sample| sample.descriptors));
    let threads = [first, last].map(|part| median(part, |sample| sample.threads));
    let sessions = [first, last].map(|part| median(part, |sample| sample.sessions));
    println!(
        "first and last third: {:?} KiB, {descriptors:?} descriptors, {threads:?} threads, \
         {sessions:?} sessions",
        memory.map(|octets| octets >> 10)
    );
    assert!(memory[1] <= memory[0] + MORE_MEMORY, "memory grows");
    assert!(
        descriptors[1] <= descriptors[0] + MORE_DESCRIPTORS,
        "descriptors grow"
    );
    assert!(threads[1] <= threads[0] + MORE_THREADS, "threads grow");
    assert!(
        sessions[1] <= sessions[0] + MORE_DESCRIPTORS,
        "sessions grow"
    );
}

/// Descriptors and threads without any session.
fn at_rest(portcullis: &Portcullis) -> (usize, usize) {
    let none = wait_for(PATIENCE, || (sessions(portcullis) == 0).then_some(()));
    assert!(none.is_some(), "{} sessions", sessions(portcullis));
    // A probe comes and goes; the fewest are those that stay.
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        (portcullis.descriptors(), portcullis.threads())
    });
    looks.min().unwrap()
}

#[track_caller]
fn assert_nothing_is_left(portcullis: &Portcullis, before: &(usize, usize)) {
    let mut left = at_rest(portcullis);
    let gone = wait_for(PATIENCE, || {
        left = at_rest(portcullis);
        // The pool for what blocks keeps some threads while it has anything to do.
        (left.0 <= before.0 && left.1 <= before.1 + MORE_THREADS).then_some(())
    });
    println!(
        "at rest: {before:?} descriptors and threads before, {left:?} after, {} KiB",
        portcullis.resident() >> 10
    );
    assert!(gone.is_some(), "{left:?} remain of {before:?}");
}
