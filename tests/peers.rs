//! The test house itself: its parts must work before the proxy stands between them,
//! or a failure elsewhere would say nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::{Act, Authority, Learns, Options, Postfix, Scripted, Smtp};
use support::{first_difference, run, torture};

#[test]
fn postfix_starts_quickly_and_delivers_byte_for_byte() {
    let began = Instant::now();
    let postfix = Postfix::start(Options::default());
    Smtp::greeted(postfix.address);
    println!("postfix greets after {:?}", began.elapsed());

    let message = torture("direct", 300_000);
    let mut client = Smtp::greeted(postfix.address);
    let reply = client.deliver("ann@sender.test", "bob@example.org", &message);
    assert!(reply.starts_with("250"), "{reply}");

    let arrived = postfix.message();
    let body = &arrived[arrived.len() - message.len()..];
    assert_eq!(first_difference(&message, body), None);
}

#[test]
fn postfix_log_shows_the_client_told_by_xclient_and_by_proxy_header() {
    let postfix = Postfix::start(Options::default());
    let mut client = Smtp::greeted(postfix.address);
    client.ask("XCLIENT ADDR=127.0.0.5 NAME=[UNAVAILABLE]", "220");
    client.ask("EHLO real.test", "250");
    client.deliver("ann@sender.test", "bob@example.org", b"Subject: x\r\n\r\n");
    assert!(postfix.log().contains("client=unknown[127.0.0.5]"));

    let postfix = Postfix::start(Options {
        learns: Learns::ByProxyHeader,
        ..Options::default()
    });
    let mut client = Smtp::connect(postfix.address);
    client.say("PROXY TCP4 127.0.0.6 127.0.0.1 4000 25");
    client.expect("220");
    client.ask("EHLO real.test", "250");
    client.deliver("ann@sender.test", "bob@example.org", b"Subject: x\r\n\r\n");
    assert!(postfix.log().contains("client=unknown[127.0.0.6]"));
}

#[test]
fn postfix_is_an_open_relay_for_this_machine_and_discards() {
    let postfix = Postfix::start(Options::default());
    let mut client = Smtp::connect_from(Ipv4Addr::new(127, 0, 0, 5), postfix.address);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.deliver(
        "ann@sender.test",
        "victim@foreign.test",
        b"Subject: x\r\n\r\n",
    );
    assert!(postfix.log().contains("to=<victim@foreign.test>"));
    postfix.log_with("relay=none");
    postfix.log_with("status=sent");
    assert_eq!(postfix.taken(), 1);
}

#[test]
fn postfix_offers_tls_and_knows_its_users() {
    let authority = Authority::new("Test CA");
    let certificate = authority.sign("backend.portcullis.test");
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        certificate: Some(&certificate),
        ..Options::default()
    });
    let server = postfix.address.to_string();
    for (mechanism, password, welcome) in [
        ("PLAIN", "secret", true),
        ("LOGIN", "secret", true),
        ("PLAIN", "wrong", false),
    ] {
        let sent = run(
            "swaks",
            &[
                "--server",
                &server,
                "--tls",
                "--from",
                "ann@sender.test",
                "--to",
                "far@foreign.test",
                "--auth",
                mechanism,
                "--auth-user",
                "ann",
                "--auth-password",
                password,
            ],
            b"",
            Duration::from_secs(20),
        );
        assert_eq!(sent.success(), welcome, "{}", sent.output());
    }
    let log = postfix.log();
    assert!(
        log.contains("sasl_method=PLAIN, sasl_username=ann"),
        "{log}"
    );
    assert!(
        log.contains("sasl_method=LOGIN, sasl_username=ann"),
        "{log}"
    );

    let mut client = Smtp::greeted(postfix.address);
    client.start_tls();
    client.ask("NOOP", "250");
}

#[test]
fn two_postfixes_do_not_share_mail() {
    let (first, second) = (
        Postfix::start(Options::default()),
        Postfix::start(Options::default()),
    );
    let mut client = Smtp::greeted(first.address);
    client.deliver("ann@sender.test", "bob@example.org", b"Subject: x\r\n\r\n");
    assert_eq!(first.messages(1).len(), 1);
    assert_eq!(second.messages(0).len(), 0);
    assert_eq!(second.taken(), 0);
}

#[test]
fn scripted_backend_is_honest_but_for_its_rules() {
    let backend = Scripted::start(&[
        ("RCPT TO:<no", &[Act::Say("550 5.1.1 no")]),
        (".", &[Act::Close]),
    ]);
    let mut client = Smtp::greeted(backend.address);
    client.ask("MAIL FROM:<a@b.test>", "250");
    client.ask("RCPT TO:<no@example.org>", "550");
    client.ask("RCPT TO:<yes@example.org>", "250");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\n.\r\n");
    assert_eq!(client.rest(), "");
    let heard = backend.transactions(1);
    assert!(
        heard[0].ends_with("DATA\r\nSubject: x\r\n\r\n.\r\n"),
        "{heard:?}"
    );
}
