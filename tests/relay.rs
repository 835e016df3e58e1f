//! The relay guard before a Postfix that relays for everybody on this machine: with
//! the program's address trusted, only the guard stands between it and the world.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::Ipv4Addr;

use support::{Options, Portcullis, Postfix, Smtp, between, dot_stuffed, letter};

/// The recipients that Postfix was asked to take.
fn heard(postfix: &Postfix) -> Vec<String> {
    let log = postfix.log();
    let asked = log.lines().filter(|line| line.contains("heard;"));
    asked
        .map(|line| between(line, " to=<", "> proto=").unwrap().to_owned())
        .collect()
}

#[test]
fn foreign_recipients_are_refused_in_every_disguise() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    for recipient in [
        "victim@foreign.test",
        "victim@FOREIGN.TEST",
        // Not a subdomain, not the domain, only text that resembles it.
        "victim@sub.example.org",
        "victim@notexample.org",
        "victim@example.org.foreign.test",
        "victim@example.org.",
        "victim@foreign.test.",
        // Source route (RFC 5321 F.2): the destination is the last domain.
        "@example.org:victim@foreign.test",
        "@example.org,@example.org:victim@foreign.test",
        // Percent hack and bang path (RFC 5321 4.1.2, RFC 1123 5.2.16).
        "victim%foreign.test@example.org",
        "foreign.test!victim@example.org",
        "\"victim%foreign.test\"@example.org",
        // An address inside the local part.
        "\"victim@foreign.test\"@example.org",
        "victim@foreign.test@example.org",
        "victim@example.org@foreign.test",
        "\"victim@foreign.test\\\"@example.org",
        // Address literals are domains nobody listed.
        "victim@[192.0.2.1]",
        "victim@[127.0.0.1]",
        "victim@[IPv6:::1]",
        "victim@[IPv6:::ffff:127.0.0.1]",
        // Postmaster is welcome without a domain, nobody else is.
        "victim",
        "postmaster@foreign.test",
    ] {
        let mut client = Smtp::greeted(portcullis.mx);
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        client.ask(&format!("RCPT TO:<{recipient}>"), "5");
        client.ask("DATA", "5");
        client.ask("QUIT", "221");
    }
    assert_eq!(heard(&postfix), Vec::<String>::new());
}

#[test]
fn a_source_route_to_a_domain_of_ours_is_never_passed_on() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.say("RCPT TO:<@foreign.test:bob@example.org>");
    let reply = client.reply();
    client.ask("QUIT", "221");
    let heard = heard(&postfix);
    let is_stripped = reply.starts_with("250") && heard == ["bob@example.org"];
    let is_refused = reply.starts_with('5') && heard.is_empty();
    assert!(
        is_stripped || is_refused,
        "`{reply}`, and the backend heard {heard:?}"
    );
}

#[test]
fn a_refused_recipient_does_not_spoil_the_others() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("RCPT TO:<victim@foreign.test>", "550 5.7.1");
    client.ask("DATA", "354");
    client.send(&dot_stuffed(letter("mixed").as_bytes()));
    client.expect("250");
    assert_eq!(postfix.messages(1).len(), 1);
    assert_eq!(heard(&postfix), ["bob@example.org"]);
}

#[test]
fn own_recipients_pass_however_they_are_spelled() {
    let postfix = Postfix::start(Options::default());
    let settings = [("DOMAINS", "example.org,*.example.net,*.example.org")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<>", "250");
    for recipient in [
        "bob@example.org",
        "bob@EXAMPLE.Org",
        "bob+tag@example.org",
        "\"bob smith\"@example.org",
        "bob@mail.example.org",
        "bob@a.b.Example.NET",
    ] {
        client.ask(&format!("RCPT TO:<{recipient}>"), "250");
    }
    assert_eq!(heard(&postfix).len(), 6);
}

#[test]
fn postmaster_needs_no_domain() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    for spelling in ["postmaster", "PostMaster"] {
        let reply = client.deliver("ann@sender.test", spelling, letter("pm").as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert_eq!(postfix.messages(2).len(), 2);
}

#[test]
fn relay_nets_may_relay_and_their_neighbours_may_not() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("RELAY_NETS", "127.0.0.8/30")]);
    for (last, code) in [(7, "550 5.7.1"), (8, "250"), (11, "250"), (12, "550 5.7.1")] {
        let source = Ipv4Addr::new(127, 0, 0, last);
        let mut client = Smtp::connect_from(source, portcullis.mx);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        client.ask(&format!("RCPT TO:<from-{last}@foreign.test>"), code);
    }
    assert_eq!(
        heard(&postfix),
        ["from-8@foreign.test", "from-11@foreign.test"]
    );
}

#[test]
fn a_user_may_relay_once_the_backend_knows_him() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.start_tls();
    // NUL ann NUL wrong, then NUL ann NUL secret.
    client.ask("AUTH PLAIN AGFubgB3cm9uZw==", "535");
    client.ask("MAIL FROM:<ann@example.org>", "250");
    client.ask("RCPT TO:<far@foreign.test>", "550 5.7.1");
    client.ask("RSET", "250");
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", "235");
    let reply = client.deliver(
        "ann@example.org",
        "far@foreign.test",
        letter("far").as_bytes(),
    );
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(heard(&postfix), ["far@foreign.test"]);
    assert!(postfix.log().contains("sasl_username=ann"));
}

#[test]
fn relay_backend_leaves_the_decision_to_the_backend() {
    let postfix = Postfix::start(Options::default());
    let address = postfix.address.to_string();
    let portcullis = Portcullis::start(&[("BACKEND", &address), ("RELAY", "backend")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<far@foreign.test>", "250");
    assert_eq!(heard(&postfix), ["far@foreign.test"]);
}

#[test]
fn the_refusal_does_not_depend_on_what_the_backend_would_have_said() {
    let taking = Postfix::start(Options::default());
    let refusing = Postfix::start(Options {
        extra: "mynetworks = 192.0.2.0/24",
        ..Options::default()
    });
    let replies = [&taking, &refusing].map(|postfix| {
        let portcullis = Portcullis::before(postfix, &[]);
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        let refusal = client.ask("RCPT TO:<victim@foreign.test>", "550 5.7.1");
        // Behind it stands the session's id, which differs.
        refusal.split(" [").next().unwrap().to_owned()
    });
    assert_eq!(replies[0], replies[1]);
}
