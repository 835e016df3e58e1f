//! What a trace header field tells, and what it must not.

use proptest::prelude::*;

use super::*;
use crate::session::machine::{Behind, Demand, Event, Link, Machine, Relogin, Rules};
use crate::smtp::command::Command;
use crate::smtp::dot::BareNewline;
use crate::smtp::ehlo::Keywords;
use crate::smtp::path::HeloName;
use crate::smtp::reply::Reply;

fn envelope(mail: &str, recipients: &[&str]) -> Envelope {
    let Ok(Command::Mail(mail)) = Command::parse(mail.as_bytes()) else {
        panic!("{mail}");
    };
    let path = |text: &&str| ForwardPath::parse(text).unwrap();
    Envelope {
        mail,
        recipients: recipients.iter().map(path).collect(),
        parameters: Vec::new(),
    }
}

fn hello(name: &str, protocol: Protocol) -> Hello {
    Hello {
        name: HeloName::parse(name).unwrap(),
        protocol,
    }
}

/// Identities come from the machine alone.
fn signed_in() -> Identity {
    let mut backend = Keywords::new();
    backend.insert("AUTH", ["PLAIN"]);
    let rules = Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: Demand::Nothing,
        backend: backend.clone().into(),
        allowed: Vec::new(),
        max_size: 1000,
        recipients_max: 3,
        bodies: crate::session::machine::Bodies::Relayed,
        recipients_cap: 3,
        junk_max: 100,
        mode: crate::policy::Mode::Enforce,
        errors_max: 5,
        newline: BareNewline::Reject,
    };
    let command = |line: &[u8]| Event::Command(Command::parse(line), Behind::Nothing);
    let mut machine = Machine::new(rules, Privacy::Encrypted);
    for event in [
        Event::Opened,
        command(b"EHLO c.test"),
        command(b"AUTH PLAIN AHUAcA=="),
        Event::Judged(crate::policy::Verdict::Pass),
        Event::Connected(Ok(Link {
            keywords: backend.into(),
            relogin: Relogin::Impossible,
        })),
        Event::Answered(Ok(Reply::new(235, None, "welcome"))),
    ] {
        machine.advance(event);
    }
    machine.identity().unwrap().clone()
}

fn client() -> Hello {
    hello("client.test", Protocol::Esmtp)
}

fn letter() -> Envelope {
    envelope("MAIL FROM:<a@b.test>", &["<x@example.org>"])
}

/// What is told of a message that came in clear.
fn in_clear<'a>(hello: &'a Hello, envelope: &'a Envelope) -> Trace<'a> {
    Trace {
        client: "192.0.2.7:4000".parse().unwrap(),
        hello,
        privacy: Privacy::Clear,
        tls: None,
        identity: None,
        hostname: "mx.test",
        id: "ID.1",
        envelope,
        date: OffsetDateTime::UNIX_EPOCH,
    }
}

#[test]
fn tells_who_where_how_and_when() {
    assert_eq!(
        in_clear(&client(), &letter()).field(),
        "Received: from client.test ([192.0.2.7])\r\n\
         \tby mx.test (Portcullis) with ESMTP id ID.1\r\n\
         \tfor <x@example.org>;\r\n\
         \tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    );
}

#[test]
fn tells_version_and_cipher_inside_tls() {
    let tls = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: None,
        resumed: false,
    };
    let field = Trace {
        privacy: Privacy::Encrypted,
        tls: Some(&tls),
        ..in_clear(&client(), &letter())
    }
    .field();
    assert!(field.contains("(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)"));
    assert!(field.contains(" with ESMTPS id "), "{field}");
}

#[test]
fn prints_addresses_as_literals_and_mapped_ones_as_ipv4() {
    let (client_hello, letter) = (client(), letter());
    let from = |client: &str| {
        let client = client.parse().unwrap();
        Trace {
            client,
            ..in_clear(&client_hello, &letter)
        }
        .field()
    };
    assert!(from("[2001:db8::1]:25").contains("([IPv6:2001:db8::1])"));
    assert!(from("[::ffff:192.0.2.9]:25").contains("([192.0.2.9])"));
}

/// RFC 5321 7.2.
#[test]
fn recipients_do_not_learn_of_each_other() {
    let several = envelope("MAIL FROM:<>", &["<x@example.org>", "<y@example.org>"]);
    let field = in_clear(&client(), &several).field();
    assert!(!field.contains("for ") && !field.contains("example.org"));
}

#[test]
fn says_postmaster_as_it_was_said() {
    let postmaster = envelope("MAIL FROM:<>", &["<Postmaster>"]);
    assert!(
        in_clear(&client(), &postmaster)
            .field()
            .contains("for <postmaster>;")
    );
}

/// RFC 5321 F.2; the backend did not hear of it either.
#[test]
fn leaves_a_source_route_out() {
    let routed = envelope("MAIL FROM:<>", &["<@one.test,@two.test:x@example.org>"]);
    let field = in_clear(&client(), &routed).field();
    assert!(field.contains("\tfor <x@example.org>;"), "{field}");
}

/// RFC 3848, RFC 6531 4.3.
#[test]
fn names_the_protocol_by_hello_tls_auth_and_utf8() {
    let identity = signed_in();
    let plain = envelope("MAIL FROM:<a@b.test>", &[]);
    let utf8 = envelope("MAIL FROM:<a@b.test> SMTPUTF8", &[]);
    let (helo, ehlo) = (hello("c", Protocol::Smtp), hello("c", Protocol::Esmtp));
    use Privacy::{Clear, Encrypted};
    for (hello, envelope, privacy, signed_in, expected) in [
        (&helo, &plain, Clear, false, "SMTP"),
        (&helo, &plain, Encrypted, false, "SMTP"),
        (&ehlo, &plain, Clear, false, "ESMTP"),
        (&ehlo, &plain, Encrypted, false, "ESMTPS"),
        (&ehlo, &plain, Encrypted, true, "ESMTPSA"),
        (&ehlo, &utf8, Clear, false, "UTF8SMTP"),
        (&ehlo, &utf8, Encrypted, false, "UTF8SMTPS"),
        (&ehlo, &utf8, Encrypted, true, "UTF8SMTPSA"),
    ] {
        let field = Trace {
            privacy,
            identity: signed_in.then_some(&identity),
            ..in_clear(hello, envelope)
        }
        .field();
        assert!(field.contains(&format!(" with {expected} id ")), "{field}");
    }
}

proptest! {
    /// Else a hostile name would add header fields of its own.
    #[test]
    fn no_hello_and_no_recipient_adds_a_line_or_a_comment(
        name in "[ -~\r\n\t]{1,40}",
        local in "([a-z]|\"[ -~]{1,12}\"|[ -~\r\n]{1,8})",
    ) {
        let Ok(name) = HeloName::parse(&name) else { return Ok(()) };
        let hello = Hello { name, protocol: Protocol::Esmtp };
        let mut one = envelope("MAIL FROM:<>", &[]);
        one.recipients.extend(ForwardPath::parse(&format!("<{local}@example.org>")));
        let lines = 3 + one.recipients.len();
        let field = in_clear(&hello, &one).field();
        prop_assert_eq!(field.matches("\r\n").count(), lines);
        prop_assert_eq!(field.matches(['\r', '\n']).count(), 2 * lines);
        let first = field.lines().next().unwrap_or_default();
        prop_assert_eq!(first.matches(['(', ')']).count(), 2);
    }
}
