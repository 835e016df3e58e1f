//! The process: how it starts, what it refuses to start with, how it ends, and
//! how little it needs in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{Finished, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{dot_stuffed, first_difference, letter, torture};

const MIB: u64 = 1 << 20;

/// Exit codes of settings.md.
const MAY_NOT_BIND: Option<i32> = Some(77);
const CONFIGURATION: Option<i32> = Some(78);

#[track_caller]
fn assert_configuration_refused(finished: &Finished, complaints: &[&str]) {
    let output = finished.output();
    assert_eq!(finished.status.code(), CONFIGURATION, "{output}");
    for complaint in complaints {
        assert!(output.contains(complaint), "no `{complaint}` in\n{output}");
    }
}

#[test]
fn greets_soon_after_its_start_with_a_certificate_of_its_own_making() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    println!("greeted after {:?}", portcullis.greeted_after);
    assert!(portcullis.greeted_after < Duration::from_secs(5));
    Smtp::connect_tls(portcullis.tls).expect("220");
    let log = portcullis.log_with("NO CERTIFICATE: a self-signed one was made");
    let warning = log.lines().find(|line| line.contains("NO CERTIFICATE"));
    let folder = support::between(warning.unwrap(), r#""folder":""#, r#"""#).unwrap();
    assert!(
        folder.starts_with('/') && folder.ends_with("/certs"),
        "{log}"
    );
}

#[test]
fn a_silent_backend_does_not_keep_the_listeners_shut() {
    // Connections stay in its backlog: nobody accepts, nobody greets.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let portcullis = Portcullis::guarding(backend.local_addr().unwrap(), &[]);
    println!("greeted after {:?}", portcullis.greeted_after);
    assert!(portcullis.greeted_after < Duration::from_secs(5));
}

#[test]
fn missing_backend_and_domains_are_told_at_once() {
    let finished = Portcullis::run_to_end(&[]);
    assert_configuration_refused(
        &finished,
        &[
            "PORTCULLIS_BACKEND is required",
            "PORTCULLIS_DOMAINS is missing",
        ],
    );
}

/// What the settings name is looked at only when it is put to use.
#[test]
fn files_and_folders_that_cannot_be_used_are_told_at_once() {
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", "127.0.0.1:25"),
        ("DOMAINS", "example.org"),
        ("TLS_CERT", "/no/such/mx.pem"),
        ("TLS_KEY", "/no/such/mx.key"),
        ("TLS_DIR", "/no/such/folder"),
        ("BACKEND_TLS", "verify"),
        ("BACKEND_TLS_CA", "/no/such/ca.pem"),
        ("CLAMAV", "127.0.0.1:3310"),
        ("SPOOL_DIR", "/no/such/spool"),
    ]);
    assert_configuration_refused(
        &finished,
        &[
            "problems: 5",
            "PORTCULLIS_TLS_CERT cannot be used: cannot read /no/such/mx.pem: ",
            "PORTCULLIS_TLS_KEY cannot be used: cannot read /no/such/mx.key: ",
            "PORTCULLIS_TLS_DIR cannot be used: cannot read /no/such/folder: ",
            "PORTCULLIS_BACKEND_TLS_CA cannot be used: cannot read /no/such/ca.pem: ",
            "PORTCULLIS_SPOOL_DIR cannot be used: ",
            "no file can be made in /no/such/spool: ",
            "; example: PORTCULLIS_SPOOL_DIR=",
        ],
    );
}

#[test]
fn refuses_to_relay_for_everybody() {
    for everybody in ["0.0.0.0/0", "::/0", "10.0.0.0/8, 0.0.0.0/0"] {
        let finished = Portcullis::run_to_end(&[
            ("BACKEND", "127.0.0.1:1"),
            ("DOMAINS", "example.org"),
            ("RELAY_NETS", everybody),
        ]);
        assert_configuration_refused(
            &finished,
            &["PORTCULLIS_RELAY_NETS holds every address there is"],
        );
    }
}

#[test]
fn refuses_settings_it_does_not_know_and_those_it_does_not_obey_yet() {
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("BAKEND_TLS", "off"),
        ("NO_SUCH_THING", "1"),
        ("GREYLIST", "5min"),
    ]);
    assert_configuration_refused(
        &finished,
        &[
            "PORTCULLIS_BAKEND_TLS (environment) is unknown; did you mean PORTCULLIS_BACKEND_TLS?",
            "PORTCULLIS_NO_SUCH_THING (environment) is unknown",
            "PORTCULLIS_GREYLIST (environment) is unknown",
        ],
    );
}

#[test]
fn a_port_in_use_is_told_by_address_and_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("LISTEN", &address),
        ("LISTEN_TLS", "off"),
        ("LISTEN_SUBMISSION", "off"),
    ]);
    assert_eq!(finished.status.code(), MAY_NOT_BIND);
    let complaint = format!("cannot listen on {address}");
    assert!(
        finished.output().contains(&complaint),
        "{}",
        finished.output()
    );
}

/// A session that has sent the first half of `wire` behind its DATA.
fn halfway(server: SocketAddr, wire: &[u8]) -> Smtp {
    let mut client = Smtp::greeted(server);
    client.open_data("ann@sender.test", "bob@example.org");
    client.send(&wire[..wire.len() / 2]);
    client
}

#[test]
fn term_ends_idle_sessions_and_lets_a_running_message_finish() {
    let postfix = Postfix::start(Options::default());
    let mut portcullis = Portcullis::before(&postfix, &[]);
    let message = torture("drain", 5 << 20);
    let wire = dot_stuffed(&message);
    let mut idle = Smtp::greeted(portcullis.mx);
    let mut running = halfway(portcullis.mx, &wire);

    portcullis.terminate();
    idle.expect("421 4.3.2");
    assert_eq!(idle.rest(), "");
    let refused = TcpStream::connect(portcullis.mx).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    running.send(&wire[wire.len() / 2..]);
    running.expect("250 2.0.0");
    running.expect("421 4.3.2");
    assert_eq!(portcullis.ended(Duration::from_secs(10)), Some(0));
    let arrived = postfix.message();
    let body = &arrived[arrived.len().saturating_sub(message.len())..];
    assert_eq!(first_difference(&message, body), None);
}

#[test]
fn a_transaction_that_is_still_stuck_after_drain_is_cut_off_and_not_delivered() {
    let postfix = Postfix::start(Options::default());
    let mut portcullis = Portcullis::before(&postfix, &[("DRAIN", "1s")]);
    let mut stuck = halfway(portcullis.mx, &dot_stuffed(letter("stuck").as_bytes()));

    let began = Instant::now();
    portcullis.terminate();
    assert_eq!(portcullis.ended(Duration::from_secs(10)), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(portcullis.log().contains("DRAIN is over"));
    assert_eq!(stuck.rest(), "");
    postfix.log_with("lost connection after DATA");
    assert!(postfix.messages(0).is_empty());
}

#[test]
fn a_second_term_ends_it_at_once() {
    let postfix = Postfix::start(Options::default());
    let mut portcullis = Portcullis::before(&postfix, &[("DRAIN", "1h")]);
    let _stuck = halfway(portcullis.mx, &dot_stuffed(letter("stuck").as_bytes()));

    portcullis.terminate();
    portcullis.log_with("stopping: no new clients");
    let began = Instant::now();
    portcullis.terminate();
    assert_eq!(portcullis.ended(Duration::from_secs(10)), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(portcullis.log().contains("stopped at once"));
    postfix.log_with("lost connection after DATA");
    assert!(postfix.messages(0).is_empty());
}

#[test]
fn memory_does_not_grow_with_the_messages_that_pass() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let deliver = |message: &[u8]| {
        let mut client = Smtp::greeted(portcullis.mx);
        let reply = client.deliver("ann@sender.test", "bob@example.org", message);
        assert!(reply.starts_with("250"), "{reply}");
    };
    // What any first message needs is no growth.
    deliver(letter("warm-up").as_bytes());

    let before = portcullis.resident();
    let message = torture("big", 20 << 20);
    std::thread::scope(|scope| {
        for count in [3, 2] {
            let (deliver, message) = (&deliver, &message);
            scope.spawn(move || (0..count).for_each(|_| deliver(message)));
        }
    });
    let grown = portcullis.resident().saturating_sub(before);
    let peak = portcullis.peak_resident().saturating_sub(before);
    println!(
        "{} KiB before, {} KiB more after, {} KiB more at most",
        before / 1024,
        grown / 1024,
        peak / 1024
    );
    assert!(grown < 8 * MIB && peak < 8 * MIB);
}

#[test]
fn one_client_more_than_sessions_max_hears_421() {
    let backend = Scripted::start(&[]);
    for mode in ["enforce", "monitor"] {
        let settings = [("SESSIONS_MAX", "5"), ("MODE", mode)];
        let portcullis = Portcullis::guarding(backend.address, &settings);
        let admitted = || Smtp::admitted(portcullis.mx);
        let mut clients: Vec<_> = (0..5).map(|_| admitted()).collect();

        let mut sixth = Smtp::connect(portcullis.mx);
        sixth.expect("421 4.7.0 SESSIONS_MAX");
        assert_eq!(sixth.rest(), "");
        for client in &mut clients {
            client.ask("NOOP", "250");
        }
        clients.pop();
        admitted();
    }
}

#[test]
fn hostname_stands_in_greeting_ehlo_reply_and_trace_header() {
    let postfix = Postfix::start(Options::default());
    let settings = [
        ("HOSTNAME", "gate.example.net"),
        ("CLIENT_INFO", "received"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220 gate.example.net ESMTP");
    client.ask("EHLO client.test", "250-gate.example.net");
    let reply = client.deliver(
        "ann@sender.test",
        "bob@example.org",
        letter("trace").as_bytes(),
    );
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    let trace = "Received: from client.test ([127.0.0.1])\r\n\tby gate.example.net (Portcullis) with ESMTP id ";
    assert!(arrived.contains(trace), "{arrived}");
}
