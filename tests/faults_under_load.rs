//! Everything breaks while mail flows: the backend, the network, the disk, the limits of
//! the process, the process itself, the clock. Clients try again. In the end every
//! attempt to send that was acknowledged has been delivered exactly once, and every
//! other one at most once: the client cannot know of that (RFC 5321 6.1).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Attempt, Cable, Manner, Options, Portcullis, Postfix, Senders, Sham};
use support::{between, first_difference, run, sent_by_attempt, wait_for};

/// The longest that anything may take that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that show that mail flows: more than are under way at one time.
const SOME: usize = 40;

/// Portcullis finds out quickly.
const QUICK: [(&str, &str); 3] = [
    ("BACKEND_PROBE_INTERVAL", "1s"),
    ("TIMEOUT_BACKEND_CONNECT", "2s"),
    ("TIMEOUT_BACKEND_REPLY", "3s"),
];

/// Postfix comes back at once to what it could not deliver, and gives no number of a
/// message to another one.
const IMPATIENT: &str = "\
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
enable_long_queue_ids = yes
";

/// The size of the disk that fills up: `16M` to mount(8).
const DISK: usize = 16 << 20;

fn postfix() -> Postfix {
    Postfix::start(Options {
        extra: IMPATIENT,
        ..Options::default()
    })
}

/// Waits until the readiness page has this status.
#[track_caller]
fn expect_readiness(portcullis: &Portcullis, status: u16) {
    let told = wait_for(PATIENCE, || (portcullis.ready().0 == status).then_some(()));
    assert!(told.is_some(), "never {status}: {:?}", portcullis.ready());
}

/// What came of all attempts, laid beside what was delivered.
#[derive(Debug)]
struct Account {
    acknowledged: usize,
    failed: usize,
    /// Delivered although no 250 was heard.
    delivered_unheard: usize,
}

/// Fails the test unless every attempt that was acknowledged was delivered once, every
/// other at most once, each whole, and nobody was refused for good.
#[track_caller]
fn settle(postfix: &Postfix, attempts: &[Attempt]) -> Account {
    wait_until_delivered(postfix);
    let mut copies: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for delivered in postfix.messages(0) {
        let (head, text) = halves(&delivered);
        let number = between(&head, "Subject: attempt ", "\r\n").expect(&head);
        let number = number.parse().unwrap();
        let queue_id = between(&head, "SMTP id ", "\r\n")
            .or_else(|| between(&head, "SMTPS id ", "\r\n"))
            .expect(&head);
        let sent = sent_by_attempt(number);
        if let Some(difference) = first_difference(halves(&sent).1, text) {
            panic!("attempt {number} was not delivered as sent: {difference}");
        }
        // Two files of one message are Postfix's own doing: it was killed in between.
        let taken_as = copies.entry(number).or_default();
        taken_as.insert(queue_id.to_owned());
    }

    let mut account = Account {
        acknowledged: 0,
        failed: 0,
        delivered_unheard: 0,
    };
    for (number, attempt) in attempts.iter().enumerate() {
        let taken_as = copies.remove(&number).unwrap_or_default();
        let told = format!("attempt {number}: {attempt:?}, delivered as {taken_as:?}");
        assert!(!attempt.bounced(), "refused for good: {told}");
        if attempt.acknowledged {
            assert_eq!(taken_as.len(), 1, "{told}");
            account.acknowledged += 1;
        } else {
            assert!(taken_as.len() <= 1, "{told}");
            account.failed += 1;
            account.delivered_unheard += taken_as.len();
        }
    }
    assert!(copies.is_empty(), "nobody sent {copies:?}");
    println!("{account:?}\n{:#?}", reasons(attempts));
    account
}

/// Why attempts failed, and how many for each reason.
fn reasons(attempts: &[Attempt]) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| !attempt.acknowledged) {
        let digitless = |letter: char| if letter.is_ascii_digit() { '#' } else { letter };
        // Behind it stands which session it was.
        let reason = attempt.failure.split(" [").next().unwrap_or_default();
        let reason = reason.chars().map(digitless).collect();
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

/// Header and text of a message.
fn halves(message: &[u8]) -> (String, &[u8]) {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, text) = message.split_at(end.unwrap() + 2);
    (String::from_utf8_lossy(head).into_owned(), text)
}

/// Until Postfix has had nothing to deliver for a second.
#[track_caller]
fn wait_until_delivered(postfix: &Postfix) {
    let mut idle_since = None;
    let delivered = wait_for(PATIENCE, || {
        if !postfix.is_idle() {
            idle_since = None;
            return None;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert!(delivered.is_some(), "Postfix still has mail to deliver");
}

#[test]
fn a_backend_that_is_killed_and_restarted_loses_and_doubles_nothing() {
    let mut postfix = postfix();
    let portcullis = Portcullis::before(&postfix, &QUICK);
    let senders = Senders::start(&portcullis);
    for killed in [true, false, true] {
        senders.send_more(SOME);
        if killed {
            postfix.kill();
        } else {
            postfix.stop();
        }
        expect_readiness(&portcullis, 503);
        postfix.start_again();
        expect_readiness(&portcullis, 200);
    }
    senders.send_more(SOME);
    let account = settle(&postfix, &senders.finish());
    assert!(account.failed > 0, "the faults hit nobody");
}

#[test]
fn a_network_that_is_cut_and_loses_packets_loses_and_doubles_no_message() {
    let cable = Cable::lay();
    let postfix = Postfix::start(Options {
        extra: IMPATIENT,
        behind: Some(&cable),
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &QUICK);
    let senders = Senders::start(&portcullis);
    // The first is over before anybody gives up, the others are not.
    for seconds in [1, 4, 9] {
        senders.send_more(SOME);
        cable.cut();
        std::thread::sleep(Duration::from_secs(seconds));
        cable.mend();
        expect_readiness(&portcullis, 200);
    }
    senders.send_more(SOME);
    cable.throttle();
    senders.send_more(SOME);
    let lost = cable.widen();
    assert!(lost > 0, "no packet was lost");
    senders.send_more(SOME);
    expect_readiness(&portcullis, 200);
    let account = settle(&postfix, &senders.finish());
    assert!(account.failed > 0, "the faults hit nobody");
}

#[test]
fn a_disk_that_fills_up_under_the_spool_costs_452_and_no_message() {
    let (postfix, sham) = (postfix(), Sham::start(Manner::Clean));
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().to_str().unwrap();
    let (backend, clamav) = (postfix.address.to_string(), sham.address.to_string());
    // Nobody else sees the disk, so that it goes with the process.
    let script = "mount -t tmpfs -o size=16M none \"$0\" && exec \"$@\"";
    let portcullis = Portcullis::start_under(
        &["unshare", "--mount", "sh", "-c", script, disk],
        &[
            ("BACKEND", &backend),
            ("DOMAINS", "example.org"),
            ("CLAMAV", &clamav),
            ("SPOOL_DIR", disk),
            ("SPOOL_BUFFER", "4K"),
        ],
    );
    let ballast = format!("/proc/{}/root{disk}/ballast", portcullis.id());
    let senders = Senders::start(&portcullis);
    for _ in 0..2 {
        senders.send_more(SOME);
        fill(Path::new(&ballast));
        let refused = |failed: &Attempt| failed.failure.starts_with("452");
        let found = wait_for(PATIENCE, || {
            senders.failures(1).iter().any(refused).then_some(())
        });
        assert!(found.is_some(), "{:#?}", senders.failures(10));
        // What is small needs no disk.
        senders.send_more(SOME);
        std::fs::remove_file(&ballast).unwrap();
    }
    senders.send_more(SOME);
    expect_readiness(&portcullis, 200);
    settle(&postfix, &senders.finish());
    // All that those who were refused had taken up is free again.
    std::fs::write(&ballast, vec![0; DISK - (64 << 10)]).unwrap();
}

/// Writes until there is no space left.
fn fill(file: &Path) {
    let full = std::fs::write(file, vec![0; 2 * DISK]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_process_without_file_descriptors_keeps_clients_waiting_and_recovers() {
    let postfix = postfix();
    let portcullis = Portcullis::before(&postfix, &QUICK);
    let senders = Senders::start(&portcullis);
    // Not even one more; as many as a session needs for its client, not its backend.
    for spare in [0, 1, 3] {
        senders.send_more(SOME);
        let open = portcullis.descriptors();
        limit_descriptors(&portcullis, &(open + spare).to_string());
        std::thread::sleep(Duration::from_secs(3));
        limit_descriptors(&portcullis, "4096");
    }
    senders.send_more(SOME);
    expect_readiness(&portcullis, 200);
    settle(&postfix, &senders.finish());
    portcullis.log_with("cannot accept; clients wait");
}

/// Sets the soft limit; the hard one stays.
#[track_caller]
fn limit_descriptors(portcullis: &Portcullis, limit: &str) {
    let process = portcullis.id().to_string();
    let words = ["--pid", &process, &format!("--nofile={limit}:")];
    run("prlimit", &words, b"", PATIENCE).assert_success();
}

#[test]
fn a_proxy_that_is_killed_in_mid_traffic_loses_and_doubles_nothing() {
    let postfix = postfix();
    let mut portcullis = Portcullis::before(&postfix, &QUICK);
    let senders = Senders::start(&portcullis);
    let (mx, tls) = (portcullis.mx.to_string(), portcullis.tls.to_string());
    let mut settings = vec![("LISTEN", mx.as_str()), ("LISTEN_TLS", tls.as_str())];
    settings.extend(QUICK);
    for _ in 0..5 {
        senders.send_more(SOME);
        portcullis.kill();
        portcullis = Portcullis::guarding(postfix.address, &settings);
    }
    senders.send_more(SOME);
    expect_readiness(&portcullis, 200);
    let account = settle(&postfix, &senders.finish());
    assert!(account.failed > 0, "the faults hit nobody");
}

#[test]
fn a_clock_that_jumps_disturbs_nobody() {
    let postfix = postfix();
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    set(&clock, "+0");
    let (library, backend) = (libfaketime(), postfix.address.to_string());
    let preload = format!("LD_PRELOAD={}", library.display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let portcullis = Portcullis::start_under(
        &[
            "env",
            &preload,
            &file,
            "FAKETIME_CACHE_DURATION=1",
            // As when an admin sets the clock: what counts durations goes on.
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ],
        &[
            ("BACKEND", &backend),
            ("DOMAINS", "example.org"),
            ("BACKEND_PROBE_INTERVAL", "1s"),
            // The file is read again and again.
            ("SANDBOX", "false"),
        ],
    );
    portcullis.log_with("backend probed");
    let senders = Senders::start(&portcullis);
    for (jump, year) in [("+4000d", 1), ("-4000d", -1), ("+3h", 0), ("+0", 0)] {
        let now = this_year();
        set(&clock, jump);
        let jumped = wait_for(PATIENCE, || {
            let last = last_year(&portcullis.log());
            ((last - now).signum() == year).then_some(())
        });
        assert!(jumped.is_some(), "{jump}: {}", portcullis.log());
        senders.send_more(SOME);
    }
    expect_readiness(&portcullis, 200);
    let account = settle(&postfix, &senders.finish());
    assert_eq!(account.failed, 0);
}

fn set(clock: &Path, jump: &str) {
    // In one step: the program may read it at any moment.
    let new = clock.with_extension("new");
    std::fs::write(&new, jump).unwrap();
    std::fs::rename(new, clock).unwrap();
}

fn this_year() -> i32 {
    time::OffsetDateTime::now_utc().year()
}

/// The year of the last line of this log.
fn last_year(log: &str) -> i32 {
    let line = log.lines().last().unwrap_or_default();
    let year = between(line, "\"timestamp\":\"", "-").expect(line);
    year.parse().unwrap()
}

/// The library of Debian's package `libfaketime`.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists());
    found.expect("libfaketime is not installed (tests/run installs it)")
}
