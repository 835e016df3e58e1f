//! Judging while scanners stop, die, hang, lie or are late.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::{
    Act, Arrived, Clamd, Manner, Options, Portcullis, Postfix, Pymilter, Rspamd, Scripted, Sham,
    Smtp, Spamd, dot_stuffed, eicar, free_address, heard, letter, spam, torture, wait_for,
};

const SENDER: &str = "a@sender.test";
const RECIPIENT: &str = "b@example.org";

/// A message that the scanners' failure keeps back.
const DEFERRED: &str = "451 4.7.1 Message cannot be checked at the moment";

#[track_caller]
fn deliver(client: &mut Smtp, message: &[u8]) -> String {
    client.deliver(SENDER, RECIPIENT, message)
}

/// A client at `portcullis` that has sent all of `message` and waits.
#[track_caller]
fn waiting(portcullis: &Portcullis, message: &[u8]) -> Smtp {
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data(SENDER, RECIPIENT);
    client.send(&dot_stuffed(message));
    client
}

/// The scanner is in the middle of its work when it is frozen, and has to be
/// given up.
#[test]
fn spamd_frozen_in_the_middle_of_a_scan_is_given_up_in_time() {
    let (postfix, spamd) = (Postfix::start(Options::default()), Spamd::start(&[]));
    let address = spamd.address.to_string();
    let settings = [("SPAMASSASSIN", address.as_str()), ("SCAN_TIMEOUT", "4s")];
    for (fail, expected) in [("tempfail", DEFERRED), ("open", "250")] {
        let settings = [&settings[..], &[("SCAN_FAIL", fail)]].concat();
        let portcullis = Portcullis::before(&postfix, &settings);
        let name = format!("frozen-{fail}");
        let sent = letter(&name) + &"A line among many others.\r\n".repeat(30_000);
        let mut client = waiting(&portcullis, sent.as_bytes());
        // spamd names the message when it begins to look at it.
        let begun = wait_for(Duration::from_secs(20), || {
            let log = spamd.daemon.log();
            log.contains(&format!("message <{name}@sender.test>"))
                .then_some(())
        });
        assert!(begun.is_some(), "{}", spamd.daemon.log());
        spamd.daemon.stop();
        let began = Instant::now();
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{reply}");
        assert!(began.elapsed() < Duration::from_secs(20));
        spamd.daemon.cont();
        let log = portcullis.log_with("\"scanned\"");
        assert!(
            log.contains("spamassassin failed no answer in time"),
            "{log}"
        );
        if fail == "open" {
            let arrived = Arrived::at(&postfix, sent.as_bytes());
            assert_eq!(arrived.added, ["X-Portcullis-Scan: spamassassin=failed"]);
        }
        assert_eq!(postfix.messages(0).len(), usize::from(fail == "open"));
    }
}

/// Of whatever kind, and whatever the setting says about it.
#[test]
fn any_scanner_that_stands_still_is_given_up_in_time() {
    let postfix = Postfix::start(Options::default());
    let (spamd, clamd) = (Spamd::start(&[]), Clamd::start(""));
    let (rspamd, pymilter) = (Rspamd::start(""), Pymilter::start(&[]));
    let scanners = [
        ("SPAMASSASSIN", spamd.address.to_string()),
        ("CLAMAV", clamd.address.to_string()),
        ("RSPAMD", format!("http://{}", rspamd.address)),
        ("MILTERS", format!("inet:{}", pymilter.address)),
    ];
    spamd.daemon.stop();
    clamd.daemon.stop();
    rspamd.stop();
    pymilter.daemon.stop();
    let time = ("SCAN_TIMEOUT", "2s");
    for (setting, address) in &scanners {
        let portcullis = Portcullis::before(&postfix, &[time, (setting, address)]);
        let reply = deliver(
            &mut Smtp::greeted(portcullis.mx),
            letter("kept-back").as_bytes(),
        );
        assert!(reply.starts_with(DEFERRED), "{setting}: {reply}");
    }
    let mut settings = vec![time, ("SCAN_FAIL", "open")];
    settings.extend(
        scanners
            .iter()
            .map(|(name, address)| (*name, address.as_str())),
    );
    let portcullis = Portcullis::before(&postfix, &settings);
    let sent = letter("passed");
    let began = Instant::now();
    let reply = deliver(&mut Smtp::greeted(portcullis.mx), sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    // They share their time.
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        Arrived::at(&postfix, sent.as_bytes()).added,
        ["X-Portcullis-Scan: spamassassin=failed; clamav=failed; rspamd=failed; milter-1=failed"]
    );
    assert_eq!(postfix.messages(0).len(), 1);
}

#[test]
fn clamd_killed_in_the_middle_of_a_scan_costs_no_time_out() {
    let postfix = Postfix::start(Options::default());
    let address = free_address();
    let mut clamd = Clamd::start_at(address, "");
    let text = address.to_string();
    let settings = [("CLAMAV", text.as_str()), ("SCAN_TIMEOUT", "5min")];
    let portcullis = Portcullis::before(&postfix, &settings);
    // It has taken part of the stream and cannot come to its end.
    clamd.daemon.stop();
    let large = torture("large", 16 << 20);
    let mut client = waiting(&portcullis, &large);
    std::thread::sleep(Duration::from_millis(500));
    clamd.daemon.kill();
    let reply = client.reply();
    assert!(reply.starts_with(DEFERRED), "{reply}");

    // Nobody listens any more.
    let reply = deliver(&mut client, letter("meanwhile").as_bytes());
    assert!(reply.starts_with(DEFERRED), "{reply}");
    // It comes back, and the same session is served.
    let _clamd = Clamd::start_at(address, "");
    let reply = deliver(&mut client, letter("back").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    Arrived::at(&postfix, letter("back").as_bytes());
    assert_eq!(heard(&postfix, ["data", "mail"], 1), [1, 3]);
}

#[test]
fn a_scanner_that_hangs_lies_or_is_late_never_lets_a_message_pass() {
    let backend = Scripted::start(&[]);
    let late = &["no answer in time"][..];
    let cut_off = &["its answer is cut off"][..];
    let unintelligible = &["unintelligible answer"][..];
    for (manner, reasons) in [
        (Manner::Deaf, late),
        (Manner::Mute, late),
        (Manner::Late(Duration::from_secs(4)), late),
        // While it is sent to, or behind it.
        (
            Manner::HangsUp,
            &["Connection reset", "Broken pipe", "closed without"][..],
        ),
        (Manner::Says(b""), &["closed without an answer"]),
        (Manner::Says(b"stream: O"), cut_off),
        (Manner::Says(b"stream: OK"), cut_off),
        (Manner::Says(b"OK\0"), unintelligible),
        (Manner::Says(b"stream: FOUND\0"), unintelligible),
        (
            Manner::Says(b"250 \r\n.\r\nMAIL FROM:<x@y>\r\n\0"),
            unintelligible,
        ),
        (Manner::Says(&[b'x'; 100_000]), &["its answer has no end"]),
        (Manner::Says(&[0xff; 64]), cut_off),
    ] {
        let sham = Sham::start(manner);
        let address = sham.address.to_string();
        let settings = [("CLAMAV", address.as_str()), ("SCAN_TIMEOUT", "2s")];
        let portcullis = Portcullis::guarding(backend.address, &settings);
        let mut client = Smtp::greeted(portcullis.mx);
        let sent = torture("unjudged", 4 << 20);
        let began = Instant::now();
        let reply = deliver(&mut client, &sent);
        assert!(reply.starts_with(DEFERRED), "{manner:?}: {reply}");
        assert!(began.elapsed() < Duration::from_secs(20), "{manner:?}");
        let log = portcullis.log_with("\"scanned\"");
        let failed = |reason: &&str| log.contains(&format!("clamav failed {reason}"));
        assert!(reasons.iter().any(failed), "{manner:?}: {log}");

        sham.behave(Manner::Clean);
        let reply = deliver(&mut client, letter("judged").as_bytes());
        assert!(reply.starts_with("250"), "{manner:?}: {reply}");
    }
    // Not an octet of what was not judged.
    for heard in backend.transactions(12) {
        assert!(!heard.contains("unjudged"));
        assert_eq!(heard.matches("\nDATA\r\n").count(), 1, "{heard}");
        assert!(heard.contains("\nRSET\r\n"), "{heard}");
    }
}

/// With `SCAN_FAIL=open` a failure is told in the header, and what the other
/// scanners find counts all the same.
#[test]
fn open_passes_unjudged_mail_and_the_other_scanner_still_refuses() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let (nobody, clamav) = (free_address().to_string(), clamd.address.to_string());
    let settings = [
        ("SPAMASSASSIN", nobody.as_str()),
        ("CLAMAV", clamav.as_str()),
        ("SCAN_FAIL", "open"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let sent = spam("unscored");
    let forged = format!("X-Portcullis-Scan: spamassassin=clean\r\n{sent}");
    let reply = deliver(&mut client, forged.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    assert_eq!(arrived.added, ["X-Portcullis-Scan: spamassassin=failed"]);
    let infected = letter("infected") + &eicar() + "\r\n";
    let reply = deliver(&mut client, infected.as_bytes());
    assert!(reply.starts_with("554 5.7.1"), "{reply}");
}

/// Three messages wait in vain, then the scanner is left alone, and asked again
/// once in a while.
#[test]
fn a_dead_scanner_does_not_cost_every_message_its_time_out() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Mute));
    let address = sham.address.to_string();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SCAN_TIMEOUT", "2s"),
        ("SCAN_FAIL", "open"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let mut deliver = |name: &str| {
        let began = Instant::now();
        let reply = deliver(&mut client, letter(name).as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        began.elapsed()
    };
    for number in 0..3 {
        let took = deliver(&format!("in-vain-{number}"));
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }
    let took: Duration = (0..20).map(|_| deliver("passed-over")).sum();
    // The pause before it is asked again is five seconds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(sham.begun(), 3);

    sham.behave(Manner::Clean);
    let back = wait_for(Duration::from_secs(20), || {
        deliver("probe");
        portcullis
            .log()
            .contains("scanner is back in service")
            .then_some(())
    });
    assert!(back.is_some(), "{}", portcullis.log());
    let before = sham.whole();
    deliver("scanned-again");
    assert_eq!(sham.whole(), before + 1);
}

#[test]
fn monitoring_lets_mail_pass_when_scanners_are_down() {
    let (postfix, nobody) = (
        Postfix::start(Options::default()),
        free_address().to_string(),
    );
    let settings = [("CLAMAV", nobody.as_str()), ("MODE", "monitor")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let sent = letter("unjudged");
    let reply = deliver(&mut Smtp::greeted(portcullis.mx), sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    assert_eq!(arrived.added, ["X-Portcullis-Scan: clamav=failed"]);
    let log = portcullis.log_with("let pass");
    assert!(log.contains("\"would\":\"refuse\""), "{log}");
}

/// A server that learns of the client guards its relay itself, and recipients of others
/// pass; one that takes everybody for the proxy must not be told of them instead.
#[test]
fn monitoring_opens_no_relay_when_another_server_must_take_over() {
    const FOREIGN: &str = "RCPT TO:<x@foreign.test>";
    let knows: &[(&str, &[Act])] = &[
        ("EHLO", &[Act::Say("250-knows.test\r\n250 XCLIENT ADDR")]),
        ("XCLIENT", &[Act::Say("220 knows.test")]),
        ("DATA", &[Act::Close]),
    ];
    let (knows, relays) = (Scripted::start(knows), Scripted::start(&[]));
    let sham = Sham::start(Manner::Clean);
    let both = format!("{}, {}", knows.address, relays.address);
    let clamav = sham.address.to_string();
    let settings = [
        ("MODE", "monitor"),
        ("CLIENT_INFO", "auto"),
        ("CLAMAV", clamav.as_str()),
        ("BACKEND", both.as_str()),
    ];
    let portcullis = Portcullis::guarding(knows.address, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask(FOREIGN, "250");
    client.ask("DATA", "354");
    assert!(knows.transactions(1)[0].contains(FOREIGN));
    drop(knows);
    client.send(b"text\r\n.\r\n");
    client.expect("451 4.4.1");
    client.ask("RCPT TO:<x@foreign.test>", "503");
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask(FOREIGN, "550");
    let told = relays.transactions(1).concat();
    assert!(!told.contains("foreign.test"), "{told}");
}

/// An address where nothing answers, while what is returned with it lives: its queue
/// is full, and nobody takes anything out of it.
fn black_hole(address: SocketAddr) -> Vec<Socket> {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let mut kept = vec![listener];
    loop {
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        let patience = Duration::from_millis(200);
        if client.connect_timeout(&address.into(), patience).is_err() {
            return kept;
        }
        kept.push(client);
    }
}

/// As where a host has lost its IPv6 and its name has not.
#[test]
fn a_scanner_is_reached_at_the_address_of_its_name_where_something_answers() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let rspamd = Rspamd::start("");
    let ports = [sham.address.port(), rspamd.address.port()];
    let _kept = ports.map(|port| black_hole((Ipv6Addr::LOCALHOST, port).into()));
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "::1 scanner.test\n127.0.0.1 scanner.test\n").unwrap();
    let launcher = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        hosts.to_str().unwrap(),
    ];
    let [clamav, rspamd] = ports.map(|port| format!("scanner.test:{port}"));
    let (address, rspamd) = (backend.address.to_string(), format!("http://{rspamd}"));
    let settings = [
        ("BACKEND", address.as_str()),
        ("DOMAINS", "example.org"),
        ("CLAMAV", &clamav),
        ("RSPAMD", &rspamd),
        ("SCAN_TIMEOUT", "20s"),
    ];
    let portcullis = Portcullis::start_under(&launcher, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = deliver(&mut client, letter("reached").as_bytes());
    assert!(reply.starts_with("250"), "{reply}\n{}", portcullis.log());
}
