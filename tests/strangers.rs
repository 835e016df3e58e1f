//! A backend treats clients differently: what it makes of one must cost the others
//! nothing, and what it tells one must be its own word.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use support::{Act, Learns, Options, Portcullis, Postfix, Scripted, Smtp, wait_for};

/// The client of whom the backend thinks little; the proxy's address is 127.0.0.1.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);

fn greeted(portcullis: &Portcullis, name: &str) -> Smtp {
    let mut client = Smtp::connect_from(STRANGER, portcullis.mx);
    client.expect("220");
    client.ask(&format!("EHLO {name}"), "250");
    client
}

/// As ready as before, and others are served.
#[track_caller]
fn assert_unmoved(portcullis: &Portcullis) {
    let (status, body) = portcullis.ready();
    assert_eq!(status, 200, "{body}");
    let mut other = Smtp::greeted(portcullis.mx);
    other.ask("MAIL FROM:<ann@sender.test>", "250");
}

/// XCLIENT values have a length, which Postfix holds them to in their encoded form.
#[test]
fn a_name_that_xclient_cannot_carry_costs_nobody_anything() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let name = "=".repeat(100);
    let mut client = greeted(&portcullis, &name);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    let log = postfix.log();
    assert!(log.contains(&format!("helo=<{name}>")), "{log}");
    assert!(log.contains("from unknown[127.0.0.8]"), "{log}");
    assert_unmoved(&portcullis);
}

#[test]
fn a_client_over_a_limit_of_the_backend_hears_of_it_and_leaves_the_backend_up() {
    for version in ["proxy-v1", "proxy-v2"] {
        let postfix = Postfix::start(Options {
            learns: Learns::ByProxyHeader,
            extra: "smtpd_client_connection_count_limit = 1\n\
                    smtpd_client_event_limit_exceptions =\n",
            ..Options::default()
        });
        let portcullis = Portcullis::before(&postfix, &[("CLIENT_INFO", version)]);
        let mut first = greeted(&portcullis, "one.test");
        first.ask("MAIL FROM:<ann@sender.test>", "250");
        let mut second = greeted(&portcullis, "two.test");
        let reply = second.ask("MAIL FROM:<ann@sender.test>", "421 4.7.0");
        assert!(reply.contains("too many connections"), "{reply}");
        assert_eq!(second.rest(), "");
        assert_unmoved(&portcullis);
    }
}

#[test]
fn a_client_whom_the_backend_refuses_at_once_hears_its_word() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_delay_reject = no\n\
                smtpd_client_restrictions = check_client_access inline:{ {127.0.0.8 = 550 go away} }\n",
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = greeted(&portcullis, "bad.test");
    let reply = client.ask("MAIL FROM:<ann@sender.test>", "550 5.7.1");
    assert!(reply.contains("go away"), "{reply}");
    assert_unmoved(&portcullis);
}

/// Delivery reports for nobody but the proxy's own network, as Postfix's DSN_README
/// has it.
const REPORTS_FOR_OURS: &str = "smtpd_discard_ehlo_keyword_address_maps = \
    cidr:{ {127.0.0.1 silent-discard}, {0.0.0.0/0 silent-discard, dsn} }\n";

#[test]
fn nobody_is_offered_what_the_backend_withholds_from_strangers() {
    for (learns, by) in [
        (Learns::ByXclient, "xclient"),
        (Learns::ByProxyHeader, "proxy-v2"),
    ] {
        let postfix = Postfix::start(Options {
            learns,
            extra: REPORTS_FOR_OURS,
            ..Options::default()
        });
        let portcullis = Portcullis::before(&postfix, &[("CLIENT_INFO", by)]);
        // The stranger comes after the first probe.
        portcullis.log_with("withholds");
        let mut client = greeted(&portcullis, "client.test");
        let offer = client.ask("EHLO client.test", "250");
        assert!(!offer.contains("DSN"), "{by}: {offer}");
        assert!(offer.contains("CHUNKING"), "{by}: {offer}");
    }
}

/// A stranger who comes too often for the backend has been there once.
#[test]
fn what_was_withheld_once_stays_so_while_no_stranger_is_let_in() {
    let limits = "smtpd_client_connection_rate_limit = 1\n\
        smtpd_client_event_limit_exceptions = 127.0.0.0/8\n";
    let postfix = Postfix::start(Options {
        learns: Learns::ByProxyHeader,
        extra: &format!("{REPORTS_FOR_OURS}{limits}"),
        ..Options::default()
    });
    let settings = [
        ("CLIENT_INFO", "proxy-v2"),
        ("BACKEND_PROBE_INTERVAL", "50ms"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    // What came of the second visit is known by the third.
    postfix.log_with("rate limit exceeded: 3 from unknown[192.0.2.1]");
    let offer = greeted(&portcullis, "client.test").ask("EHLO client.test", "250");
    assert!(!offer.contains("DSN"), "{offer}");
}

/// Then nobody knows what it withholds, until a client finds out.
#[test]
fn a_backend_that_sends_a_stranger_away_offers_what_it_did_and_mail_passes() {
    let refusal = "smtpd_delay_reject = no\n\
        smtpd_client_restrictions = check_client_access inline:{ {192.0.2.1 = REJECT} }\n";
    let postfix = Postfix::start(Options {
        extra: &format!("{REPORTS_FOR_OURS}{refusal}"),
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = greeted(&portcullis, "client.test");
    let offer = client.ask("EHLO client.test", "250");
    assert!(offer.contains("DSN"), "{offer}");
    client.ask("MAIL FROM:<ann@sender.test> RET=HDRS ENVID=x", "250");
    client.ask(
        "RCPT TO:<bob@example.org> ORCPT=rfc822;b@example.org",
        "250",
    );
    client.ask("RCPT TO:<eve@example.org> NOTIFY=SUCCESS", "451 4.3.5");
    client.ask("DATA", "354");
    client.send(b"Subject: reports\r\n\r\n.\r\n");
    client.expect("250");
    assert_unmoved(&portcullis);
}

/// What a server says to XCLIENT, and what the client hears of it.
#[test]
fn nothing_that_a_server_says_to_xclient_takes_it_down() {
    let ehlo = Act::Say("250-scripted.test\r\n250 XCLIENT ADDR");
    for (said, heard) in [
        ("220 go on", "250"),
        ("250 go on", "250"),
        ("550 5.7.1 not you", "550 5.7.1 not you"),
        ("450 4.7.1 later", "450 4.7.1 later"),
        ("421 4.7.0 too often", "421 4.7.0 too often"),
        // Portcullis itself is meant: no client shall lose its mail by that.
        ("550 5.7.0 insufficient authorization", "451 4.4.1"),
        ("550 who are you", "451 4.4.1"),
        ("501 5.5.4 bad value", "451 4.4.1"),
    ] {
        let acts = [Act::Say(said)];
        let rules: [(&str, &[Act]); 2] =
            [("EHLO", std::slice::from_ref(&ehlo)), ("XCLIENT", &acts)];
        let backend = Scripted::start(&rules);
        let portcullis = Portcullis::guarding(backend.address, &[]);
        portcullis.log_with("backend probed");
        let mut client = greeted(&portcullis, "client.test");
        client.ask("MAIL FROM:<ann@sender.test>", heard);
        assert_eq!(portcullis.ready().0, 200, "{said}");
    }
}

/// Another server may have room for the client.
#[test]
fn a_client_whom_one_server_sends_away_is_taken_to_the_next() {
    let ehlo = Act::Say("250-scripted.test\r\n250 XCLIENT ADDR");
    let acts = [Act::Say("421 4.7.0 too often"), Act::Close];
    let full = Scripted::start(&[("EHLO", std::slice::from_ref(&ehlo)), ("XCLIENT", &acts)]);
    let free = Scripted::start(&[]);
    let both = format!("{}, {}", full.address, free.address);
    let portcullis = Portcullis::guarding(full.address, &[("BACKEND", both.as_str())]);
    portcullis.log_with("backend probed");
    for _ in 0..2 {
        let mut client = greeted(&portcullis, "client.test");
        client.ask("MAIL FROM:<ann@sender.test>", "250");
    }
    assert_eq!(portcullis.ready().0, 200);
}

/// Whether it minds the client or is ill itself nobody can tell: the next probe will.
#[test]
fn a_server_that_breaks_off_on_a_client_is_not_taken_for_dead() {
    let ehlo = Act::Say("250-scripted.test\r\n250 XCLIENT ADDR");
    let rules = [
        ("EHLO", std::slice::from_ref(&ehlo)),
        ("XCLIENT", &[Act::Close]),
    ];
    let backend = Scripted::start(&rules);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    portcullis.log_with("backend probed");
    let mut client = greeted(&portcullis, "client.test");
    client.ask("MAIL FROM:<ann@sender.test>", "451");
    portcullis.log_with("breaks off on the client");
    assert_eq!(portcullis.ready().0, 200);
}

/// What it offers to Portcullis counts while a stranger is still kept waiting.
#[test]
fn a_stranger_who_is_kept_waiting_holds_up_no_offer() {
    let ehlo = Act::Say("250-scripted.test\r\n250-8BITMIME\r\n250 XCLIENT ADDR");
    let rules = [
        ("EHLO", std::slice::from_ref(&ehlo)),
        ("XCLIENT", &[Act::Silence]),
    ];
    let backend = Scripted::start(&rules);
    let portcullis = Portcullis::guarding(backend.address, &[("TIMEOUT_BACKEND_CONNECT", "1h")]);
    let offered = wait_for(Duration::from_secs(20), || {
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let offer = client.ask("EHLO client.test", "250");
        offer.contains("8BITMIME").then_some(())
    });
    assert!(offered.is_some(), "{}", portcullis.log());
}

/// A server that is told of clients by PROXY, and greets all but one of them.
fn silent_towards(client: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let header = format!("PROXY TCP4 {client} ");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let header = header.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for line in lines.map_while(Result::ok) {
                    let reply: &[u8] = match line.as_str() {
                        named if named.starts_with(&header) => b"",
                        named if named.starts_with("PROXY") => b"220 picky.test\r\n",
                        _ => b"250 fine\r\n",
                    };
                    drop(stream.write_all(reply));
                }
            });
        }
    });
    address
}

/// It may be looking up the client's name, which takes as long as its owner likes.
#[test]
fn a_server_that_keeps_a_client_waiting_is_not_taken_for_dead() {
    let settings = [
        ("CLIENT_INFO", "proxy-v1"),
        ("TIMEOUT_BACKEND_CONNECT", "1s"),
    ];
    let portcullis = Portcullis::guarding(silent_towards(STRANGER), &settings);
    portcullis.log_with("backend probed");
    let mut client = greeted(&portcullis, "client.test");
    client.ask("MAIL FROM:<ann@sender.test>", "451");
    portcullis.log_with("breaks off on the client: not ready in time");
    assert_unmoved(&portcullis);
}
