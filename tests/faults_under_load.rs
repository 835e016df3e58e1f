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

use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Account, Attempt, Cable, Manner, Options, Portcullis, Postfix, Senders, Sham};
use support::{between, run, wait_for};

/// The longest that anything may take that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that show that mail flows: more than are under way at one time.
const SOME: usize = 30;

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

/// It takes a second from the end of a message to the reply: most of what is under way
/// at any moment is in between, where a message could be lost or doubled.
const PENSIVE: &str = "smtpd_end_of_data_restrictions = sleep 1\n";

/// The size of the disk that fills up: `16M` to mount(8).
const DISK: usize = 16 << 20;

fn postfix() -> Postfix {
    Postfix::start(Options {
        extra: IMPATIENT,
        ..Options::default()
    })
}

fn pensive_postfix(behind: Option<&Cable>) -> Postfix {
    Postfix::start(Options {
        extra: &[IMPATIENT, PENSIVE].concat(),
        behind,
        ..Options::default()
    })
}

/// Waits until the readiness page has this status.
#[track_caller]
fn expect_readiness(portcullis: &Portcullis, status: u16) {
    let told = wait_for(PATIENCE, || (portcullis.ready().0 == status).then_some(()));
    assert!(told.is_some(), "never {status}: {:?}", portcullis.ready());
}

/// How a backend goes away.
#[derive(Clone, Copy, Debug)]
enum Absence {
    Killed,
    Stopped,
    /// Longer than Portcullis waits, and then it does what it was about to do.
    Frozen,
}

#[track_caller]
fn bear_an_absent_backend(settings: &[(&str, &str)]) {
    let mut postfix = pensive_postfix(None);
    let portcullis = Portcullis::before(&postfix, settings);
    let senders = Senders::start(&portcullis);
    for absence in [
        Absence::Killed,
        Absence::Stopped,
        Absence::Frozen,
        Absence::Killed,
    ] {
        senders.send_more(SOME);
        match absence {
            Absence::Killed => postfix.kill(),
            Absence::Stopped => postfix.stop(),
            Absence::Frozen => postfix.freeze(),
        }
        expect_readiness(&portcullis, 503);
        match absence {
            Absence::Killed | Absence::Stopped => postfix.start_again(),
            Absence::Frozen => {
                // The reply to a whole message is waited for twice as long as others.
                std::thread::sleep(Duration::from_secs(8));
                postfix.thaw();
            }
        }
        expect_readiness(&portcullis, 200);
    }
    senders.send_more(SOME);
    let account = Account::settle(&postfix, &senders.finish());
    assert!(account.failed > 0, "the faults hit nobody");
}

#[test]
fn a_backend_that_is_killed_stopped_or_frozen_loses_and_doubles_nothing() {
    bear_an_absent_backend(&QUICK);
}

#[test]
fn a_backend_that_goes_away_under_messages_that_are_judged_loses_and_doubles_nothing() {
    let sham = Sham::start(Manner::Clean);
    let clamav = sham.address.to_string();
    let mut settings = QUICK.to_vec();
    settings.extend([("CLAMAV", clamav.as_str()), ("SPOOL_BUFFER", "64K")]);
    bear_an_absent_backend(&settings);
}

#[test]
fn a_network_that_is_cut_and_loses_packets_loses_and_doubles_no_message() {
    let cable = Cable::lay();
    let postfix = pensive_postfix(Some(&cable));
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
    let account = Account::settle(&postfix, &senders.finish());
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
    Account::settle(&postfix, &senders.finish());
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
    Account::settle(&postfix, &senders.finish());
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
    kill_the_proxy(&QUICK);
}

#[test]
fn a_proxy_that_is_killed_while_it_judges_loses_and_doubles_nothing() {
    // There are always some that are kept at this moment.
    let sham = Sham::start(Manner::Late(Duration::from_millis(100)));
    let clamav = sham.address.to_string();
    let mut settings = QUICK.to_vec();
    settings.push(("CLAMAV", &clamav));
    kill_the_proxy(&settings);
}

#[track_caller]
fn kill_the_proxy(settings: &[(&str, &str)]) {
    let postfix = postfix();
    let mut portcullis = Portcullis::before(&postfix, settings);
    let senders = Senders::start(&portcullis);
    let (mx, tls) = (portcullis.mx.to_string(), portcullis.tls.to_string());
    let mut again = settings.to_vec();
    again.extend([("LISTEN", mx.as_str()), ("LISTEN_TLS", tls.as_str())]);
    for _ in 0..5 {
        senders.send_more(SOME);
        portcullis.kill();
        portcullis = Portcullis::guarding(postfix.address, &again);
    }
    senders.send_more(SOME);
    expect_readiness(&portcullis, 200);
    let account = Account::settle(&postfix, &senders.finish());
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
    for (jump, year) in [("+4000d", 1), ("-4000d", -1), ("+0", 0)] {
        let now = this_year();
        set(&clock, jump);
        let jumped = wait_for(PATIENCE, || {
            let last = last_year(&portcullis.log())?;
            ((last - now).signum() == year).then_some(())
        });
        assert!(jumped.is_some(), "{jump}: {}", portcullis.log());
        senders.send_more(SOME);
    }
    expect_readiness(&portcullis, 200);
    let account = Account::settle(&postfix, &senders.finish());
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

/// The year of the last line of this log that has been written whole.
fn last_year(log: &str) -> Option<i32> {
    let mut lines = log.lines().rev();
    lines.find_map(|line| {
        let year = between(line, "\"timestamp\":\"", "-")?;
        year.parse().ok()
    })
}

/// The library of Debian's package `libfaketime`.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists());
    found.expect("libfaketime is not installed (tests/run installs it)")
}
