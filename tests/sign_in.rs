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
use support::{Options, Portcullis, Postfix, Smtp, letter, wait_for};

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
