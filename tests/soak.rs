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

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use support::{Doors, Guest, Manner, Options, Portcullis, Postfix, Senders, Sham};
use support::{connect_from, trusting_config, wait_for};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

const SETTINGS: &[(&str, &str)] = &[
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

/// What may be more in the last third than in the first, by their medians.
const MORE_MEMORY: u64 = 1536 << 10;
const MORE_DESCRIPTORS: usize = 60;
const MORE_THREADS: usize = 8;

const SAMPLES: u32 = 150;
const ROWS: usize = 30;

const BETWEEN_RELOADS: Duration = Duration::from_secs(3);

/// Until the last one has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a visitor comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Visit {
    LooksIn,
    WantsToRelay,
    BreaksOffInABody,
    TalksRubbish,
    Smuggles,
    ShakesHands,
    ShakesHandsAgain,
    IsSlow,
    IsBanned,
}

/// How many come for each at one time, and how soon the next ones.
const VISITORS: [(Visit, usize, Duration); 9] = [
    (Visit::LooksIn, 4, Duration::ZERO),
    (Visit::WantsToRelay, 1, Duration::from_millis(20)),
    (Visit::BreaksOffInABody, 1, Duration::from_millis(20)),
    (Visit::TalksRubbish, 1, Duration::from_millis(20)),
    (Visit::Smuggles, 1, Duration::from_millis(50)),
    (Visit::ShakesHands, 1, Duration::from_millis(50)),
    (Visit::ShakesHandsAgain, 1, Duration::from_millis(50)),
    (Visit::IsSlow, 10, Duration::ZERO),
    (Visit::IsBanned, 1, Duration::from_millis(100)),
];

const ENVELOPE: [(&str, &str); 3] = [
    ("MAIL FROM:<ann@sender.test>", "250"),
    ("RCPT TO:<bob@example.org>", "250"),
    ("DATA", "354"),
];

impl Visit {
    /// One visit that ends as it should, or why not.
    async fn pay(self, house: &House) -> io::Result<()> {
        house.visits.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::LooksIn => house.enter().await?.dialogue(&[("QUIT", "221")]).await,
            Self::WantsToRelay => {
                let [mail, rcpt, _] = ENVELOPE;
                let foreign = ("RCPT TO:<eve@elsewhere.test>", "550 5.7.1");
                let lines = [mail, foreign, rcpt, ("RSET", "250"), ("QUIT", "221")];
                house.enter().await?.dialogue(&lines).await
            }
            Self::BreaksOffInABody => {
                let mut guest = house.enter().await?;
                guest.dialogue(&ENVELOPE).await?;
                guest.send(&[b'x'; 20_000]).await
            }
            Self::TalksRubbish => talk_rubbish(house.enter().await?).await,
            Self::Smuggles => {
                let mut guest = house.enter().await?;
                guest.dialogue(&ENVELOPE).await?;
                guest
                    .send(b"one\r\n\n.\nMAIL FROM:<two@sender.test>\r\n.\r\n")
                    .await?;
                expect(&guest.reply().await?, "5")
            }
            Self::ShakesHands => {
                let kind = house.shake_hands(Arc::new(trusting_config())).await?;
                expect(&format!("{kind:?}"), "Some(Full")
            }
            Self::ShakesHandsAgain => {
                let kind = house.shake_hands(Arc::clone(&house.returning)).await?;
                expect(&format!("{kind:?}"), "Some(Resumed")
            }
            Self::IsSlow => {
                let mut guest = house.enter().await?;
                expect(&guest.drip(b"NOOP").await, "421 4.4.2")
            }
            Self::IsBanned => {
                // Each comes once, and its neighbours much later: they would be
                // refused for its sake.
                let number = house.abusers.fetch_add(1, Ordering::Relaxed);
                let [.., host, network] = number.to_be_bytes();
                let source = Ipv4Addr::new(127, 66, network, host);
                for _ in 0..3 {
                    talk_rubbish(house.enter_from(source).await?).await?;
                }
                match house.enter_from(source).await {
                    Ok(_) => Err(io::Error::other("was let in")),
                    Err(_) => Ok(()),
                }
            }
        }
    }
}

/// Goes on until it is shown the door.
async fn talk_rubbish<S: AsyncRead + AsyncWrite + Unpin>(mut guest: Guest<S>) -> io::Result<()> {
    for line in [
        "rubbish",
        "MAIL FORM:<a@b.test>",
        "RCPT",
        "\u{80}\u{ff}",
        "nul\0",
    ] {
        guest.send(format!("{line}\r\n").as_bytes()).await?;
        expect(&guest.reply().await?, "5")?;
    }
    while let Ok(heard) = guest.ask("more of it").await {
        expect(&heard, "5").or_else(|_| expect(&heard, "421"))?;
    }
    Ok(())
}

fn expect(heard: &str, begin: &str) -> io::Result<()> {
    if heard.starts_with(begin) {
        return Ok(());
    }
    Err(io::Error::other(heard.to_owned()))
}

/// Where they come to, and what is known of them.
struct House {
    doors: Doors,
    /// Of a client that comes again.
    returning: Arc<ClientConfig>,
    closing: AtomicBool,
    visits: AtomicUsize,
    abusers: AtomicUsize,
    /// Those that ended as they should, the others, and the last reason for these.
    ends: Mutex<BTreeMap<Visit, (usize, usize, String)>>,
}

impl House {
    async fn enter(&self) -> io::Result<Guest<tokio::net::TcpStream>> {
        self.enter_from(Ipv4Addr::LOCALHOST).await
    }

    async fn enter_from(&self, source: Ipv4Addr) -> io::Result<Guest<tokio::net::TcpStream>> {
        let mut guest = Guest::new(connect_from(source, self.doors.mx).await?);
        expect(&guest.reply().await?, "220")?;
        guest.dialogue(&[("EHLO visitor.test", "250")]).await?;
        Ok(guest)
    }

    async fn shake_hands(&self, config: Arc<ClientConfig>) -> io::Result<Option<HandshakeKind>> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, self.doors.tls).await?;
        let name = ServerName::try_from("mx.portcullis.test").unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let kind = stream.get_ref().1.handshake_kind();
        let mut guest = Guest::new(stream);
        expect(&guest.reply().await?, "220")?;
        guest.dialogue(&[("QUIT", "221")]).await?;
        Ok(kind)
    }

    async fn receive(self: Arc<Self>, visit: Visit, pause: Duration) {
        while !self.closing.load(Ordering::Relaxed) {
            let outcome = visit.pay(&self).await;
            self.write_down(visit, outcome);
            sleep(pause).await;
        }
    }

    fn write_down(&self, visit: Visit, outcome: io::Result<()>) {
        let mut ends = self.ends.lock().unwrap();
        let end = ends.entry(visit).or_default();
        match outcome {
            Ok(()) => end.0 += 1,
            Err(error) => {
                end.1 += 1;
                end.2 = error.to_string();
            }
        }
    }
}

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

    let house = Arc::new(House {
        doors: Doors::from(&portcullis),
        returning: Arc::new(trusting_config()),
        closing: AtomicBool::new(false),
        visits: AtomicUsize::new(0),
        abusers: AtomicUsize::new(0),
        ends: Mutex::default(),
    });
    let senders = Senders::start_at_pace(&portcullis, Duration::from_millis(50));
    let visitors = std::thread::spawn({
        let house = Arc::clone(&house);
        move || receive_all(&house)
    });

    let (began, mut reloaded, mut reloads) = (Instant::now(), Instant::now(), 0);
    let mut samples = Vec::new();
    while began.elapsed() < time {
        std::thread::sleep(time / SAMPLES);
        let visits = house.visits.load(Ordering::Relaxed);
        samples.push(Sample::take(&portcullis, began, visits));
        if reloaded.elapsed() >= BETWEEN_RELOADS {
            reloaded = Instant::now();
            reloads += 1;
            configure(&file, Some(&sham).filter(|_| reloads % 2 == 1));
            portcullis.hang_up();
        }
    }
    house.closing.store(true, Ordering::Relaxed);
    let attempts = senders.finish();
    visitors.join().unwrap();

    for sample in samples.iter().step_by(samples.len().div_ceil(ROWS)) {
        sample.print();
    }
    let failed = attempts.iter().filter(|attempt| !attempt.acknowledged);
    println!("{} messages, {reloads} reloads", attempts.len());
    assert_eq!(failed.count(), 0, "{:#?}", attempts.last());
    assert!(sham.whole() > 0, "nothing was scanned");
    let ends = house.ends.lock().unwrap();
    for (visit, (well, badly, why)) in ends.iter() {
        println!("{visit:?}: {well} well, {badly} not {why}");
    }
    for (visit, _, _) in VISITORS {
        let (well, badly, why) = &ends[&visit];
        assert!(*well > 9 * badly, "{visit:?}: {badly} of {well}: {why}");
    }
    assert_level(&samples);
    assert_nothing_is_left(&portcullis, &at_rest);
}

fn receive_all(house: &Arc<House>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(async {
        let mut visitors = JoinSet::new();
        for (visit, at_once, pause) in VISITORS {
            for _ in 0..at_once {
                visitors.spawn(Arc::clone(house).receive(visit, pause));
            }
        }
        visitors.join_all().await;
    });
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
