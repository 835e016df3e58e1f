//! A user who has signed in, and a Postfix that loses him: it is told his name again,
//! though not his password.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::{Learns, Options, Portcullis, Postfix, Smtp, letter, wait_for};

/// The client's address, from which Postfix takes no XCLIENT and relays nothing.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// As a Postfix is set where the proxy alone is trusted.
const STRICT: &str = "smtpd_authorized_xclient_hosts = 127.0.0.1\nmynetworks = 127.0.0.1\n";

fn signed_in(portcullis: &Portcullis, hello: &str, user: &str) -> Smtp {
    let mut client = Smtp::connect_from(CLIENT, portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.start_tls();
    client.ask(&format!("EHLO {hello}"), "250");
    let said = STANDARD.encode(format!("\0{user}\0secret"));
    client.ask(&format!("AUTH PLAIN {said}"), "235");
    client
}

/// The header comes before anything else there, too.
#[test]
fn a_user_behind_a_balancer_is_known_by_his_own_address() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        extra: STRICT,
        ..Options::default()
    });
    let settings = [("PROXY_TRUSTED", "127.0.0.9")];
    let portcullis = Portcullis::guarding(postfix.address, &settings);
    portcullis.log_with("backend probed");
    let balancer = Ipv4Addr::new(127, 0, 0, 9);
    let mut client = Smtp::connect_from(balancer, portcullis.submission);
    client.send(b"PROXY TCP4 127.0.0.77 127.0.0.1 4000 587\r\n");
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<ann@example.org>", "530");
    client.start_tls();
    client.ask("EHLO client.test", "250");
    client.ask(
        &format!("AUTH PLAIN {}", STANDARD.encode("\0ann\0secret")),
        "235",
    );
    let message = letter("balanced");
    let reply = client.deliver("ann@example.org", "far@foreign.test", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let log = postfix.log();
    let known = "client=unknown[127.0.0.77], sasl_method=PLAIN, sasl_username=ann";
    assert!(log.contains(known), "{log}");

    // Whoever does not begin with it is closed.
    let mut client = Smtp::connect_from(balancer, portcullis.submission);
    client.send(b"EHLO liar.test\r\n");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_user_outlives_the_backends_connection() {
    // With a name so long and this EHLO it takes two XCLIENT commands.
    let long = "u".repeat(200);
    let mut postfix = Postfix::start(Options {
        users: &[("ann", "secret"), (&long, "secret")],
        extra: STRICT,
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    for (hello, user) in [
        ("client.test", "ann"),
        (&"=".repeat(80), &long),
        ("client.test", "ann@portcullis.test"),
    ] {
        let mut client = signed_in(&portcullis, hello, user);
        postfix.kill();
        // The last of its processes holds the socket.
        let closed = || TcpStream::connect(postfix.address).is_err().then_some(());
        wait_for(Duration::from_secs(10), closed).expect("nobody listens");
        postfix.start_again();
        let message = letter("again");
        let reply = client.deliver("ann@example.org", "far@foreign.test", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}\n{}", postfix.log());
        let log = postfix.log();
        let named = format!("sasl_method=XCLIENT, sasl_username={user}");
        assert!(log.contains(&named), "{log}");
        assert!(log.contains("client=unknown[127.0.0.7]"), "{log}");
    }
}

/// A server under stress says so in one breath with the refusal, which is no less one.
#[test]
fn a_refusal_stands_though_the_server_hangs_up_behind_it() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        extra: "smtpd_hard_error_limit = 1\nsmtpd_error_sleep_time = 0\n\
                virtual_mailbox_maps = inline:{bob@example.org=box/}\n",
        ..Options::default()
    });
    let portcullis = Portcullis::before(
        &postfix,
        &[("AUTH_FAIL_RATE", "3/h"), ("LIMIT_EXEMPT", "127.0.0.1")],
    );
    let guess = format!("AUTH PLAIN {}", STANDARD.encode("\0ann\0wrong"));
    let encrypted = || {
        let mut client = Smtp::connect_from(CLIENT, portcullis.mx);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client.start_tls();
        client.ask("EHLO client.test", "250");
        client
    };
    let mut client = encrypted();
    client.ask("MAIL FROM:<far@sender.test>", "250");
    client.ask("RCPT TO:<nobody@example.org>", "550 5.1.1");
    client.ask("QUIT", "221");
    for _ in 0..3 {
        encrypted().ask(&guess, "535 5.7.8");
    }
    let reached = "421 4.7.0 AUTH_FAIL_RATE reached by 127.0.0.7/32";
    encrypted().ask(&guess, reached);
}

/// Of several servers not all may learn who has signed in.
#[test]
fn a_user_is_not_handed_to_a_server_that_would_take_him_for_a_stranger() {
    let users = &[("ann", "secret")];
    let extra = format!("{STRICT}smtpd_timeout = 2s\n");
    let mut knows = Postfix::start(Options {
        users,
        extra: &extra,
        ..Options::default()
    });
    let does_not = Postfix::start(Options {
        users,
        learns: Learns::Nothing,
        extra: "mynetworks = 127.0.0.99\n",
        ..Options::default()
    });
    let both = format!("{}, {}", knows.address, does_not.address);
    let portcullis = Portcullis::before(&does_not, &[("BACKEND", &both)]);
    // They are used in turn, so that one session is at either.
    let mut clients = [(); 2].map(|()| signed_in(&portcullis, "client.test", "ann"));
    for _ in 0..2 {
        // One of the two servers hangs up meanwhile, and it is the turn of either.
        std::thread::sleep(Duration::from_secs(4));
        for client in &mut clients {
            client.ask("MAIL FROM:<ann@example.org>", "250");
            client.ask("RSET", "250");
        }
    }
    knows.kill();
    let closed = || TcpStream::connect(knows.address).is_err().then_some(());
    wait_for(Duration::from_secs(10), closed).expect("nobody listens");
    let heard = clients.each_mut().map(|client| {
        client.say("MAIL FROM:<ann@example.org>");
        client.reply()
    });
    let lost = heard
        .iter()
        .position(|reply| reply.starts_with("451 4.4.1"));
    let lost = lost.unwrap_or_else(|| panic!("{heard:?}"));
    assert!(heard[1 - lost].starts_with("250"), "{heard:?}");
    let client = &mut clients[lost];
    knows.start_again();
    let found = wait_for(Duration::from_secs(60), || {
        client.say("MAIL FROM:<ann@example.org>");
        client.reply().starts_with("250").then_some(())
    });
    assert!(found.is_some(), "{}", portcullis.log());
    client.ask("RCPT TO:<far@foreign.test>", "250");
}
