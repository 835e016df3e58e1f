//! The throttle at work, through the real program: rates, connections at once,
//! bans, early talkers, junk, stress, file descriptors, monitor mode.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use support::{Act, Learns, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{between, first_octets, first_octets_after, letter, wait_for};

/// Only the harness is exempt here, which knocks from there until it is let in.
const EXEMPT: (&str, &str) = ("LIMIT_EXEMPT", "127.0.0.1");

const ABUSER: Ipv4Addr = Ipv4Addr::new(127, 5, 5, 5);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);

fn greeting(source: Ipv4Addr, server: SocketAddr) -> String {
    Smtp::connect_from(source, server).reply()
}

#[test]
fn connections_beyond_the_rate_hear_421_and_the_backend_nothing() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_RATE", "1/h burst 3"), ("FLOOD_RATE", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..3 {
        assert!(greeting(ABUSER, portcullis.mx).starts_with("220"));
    }
    for _ in 0..20 {
        let reply = greeting(ABUSER, portcullis.mx);
        assert!(
            reply.starts_with("421 4.7.0 CONN_RATE reached by 127.5.5.5/32; try again in "),
            "{reply}"
        );
        let seconds = support::between(&reply, "again in ", " s").unwrap();
        let seconds: u32 = seconds.parse().unwrap();
        assert!((3500..=3601).contains(&seconds), "{reply}");
    }
    assert!(greeting(HONEST, portcullis.mx).starts_with("220"));
    // Where TLS comes first, no handshake is wasted on it.
    assert_eq!(first_octets(ABUSER, portcullis.tls), Ok(vec![]));
    assert_eq!(backend.transactions(0).len(), 0);
    let log = portcullis.log_with("conn-rate");
    assert!(log.contains("\"client\":\"127.5.5.5:"), "{log}");
}

#[test]
fn a_neighbourhood_shares_a_larger_allowance() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_RATE", "1/h burst 1"), ("PREFIX_FACTOR", "4")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let neighbours = (1..=10).map(|host| Ipv4Addr::new(127, 5, 5, host));
    let replies: Vec<_> = neighbours
        .map(|source| greeting(source, portcullis.mx))
        .collect();
    assert!(
        replies[..4].iter().all(|reply| reply.starts_with("220")),
        "{replies:?}"
    );
    let of_network = "421 4.7.0 CONN_RATE reached by 127.5.5.0/24";
    assert!(
        replies[4..]
            .iter()
            .all(|reply| reply.starts_with(of_network)),
        "{replies:?}"
    );
}

#[test]
fn connections_at_once_are_counted_and_counted_out() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_MAX", "2"), ("CONN_RATE", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut held: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
            client.expect("220");
            client
        })
        .collect();
    let reply = greeting(ABUSER, portcullis.mx);
    assert!(
        reply.starts_with("421 4.7.0 CONN_MAX reached: 127.5.5.5/32 has 2"),
        "{reply}"
    );
    assert!(greeting(HONEST, portcullis.mx).starts_with("220"));
    held.pop().unwrap().ask("QUIT", "221");
    let again = wait_for(Duration::from_secs(10), || {
        greeting(ABUSER, portcullis.mx)
            .starts_with("220")
            .then_some(())
    });
    assert!(
        again.is_some(),
        "the place is never free again\n{}",
        portcullis.log()
    );
}

#[test]
fn a_flood_is_answered_with_resets_before_any_octet() {
    let backend = Scripted::start(&[]);
    let settings = [
        EXEMPT,
        ("CONN_RATE", "1/h burst 1"),
        ("FLOOD_RATE", "1/h burst 5"),
        ("BAN_TIME", "10min"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    assert!(greeting(ABUSER, portcullis.mx).starts_with("220"));
    for _ in 0..6 {
        assert!(greeting(ABUSER, portcullis.mx).starts_with("421"));
    }
    for server in [portcullis.mx, portcullis.tls, portcullis.submission] {
        assert_eq!(
            first_octets(ABUSER, server),
            Err(ErrorKind::ConnectionReset)
        );
    }
    assert!(greeting(HONEST, portcullis.mx).starts_with("220"));
    let log = portcullis.log_with("\"reason\":\"flood\"");
    assert!(log.contains("\"length\":\"10m\""), "{log}");
}

#[test]
fn failed_sign_ins_ban_the_source_and_never_the_account() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let settings = [
        EXEMPT,
        ("AUTH_FAIL_RATE", "1/h burst 3"),
        ("ERROR_MAX", "100"),
        ("TARPIT", "0s"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let encrypted = |source| encrypted(source, portcullis.submission);
    let right = "AUTH PLAIN AGFubgBzZWNyZXQ=";
    let wrong = "AUTH PLAIN AGFubgB3cm9uZw==";
    // Logins are not failures, however many.
    for _ in 0..5 {
        encrypted(ABUSER).ask(right, "235");
    }
    let (mut signed_in, mut other_session) = (encrypted(ABUSER), encrypted(ABUSER));
    signed_in.ask(right, "235");
    let mut guesser = encrypted(ABUSER);
    for _ in 0..3 {
        guesser.ask(wrong, "535");
    }
    let reply = guesser.ask(wrong, "421 4.7.0 AUTH_FAIL_RATE reached by 127.5.5.5/32");
    assert!(reply.contains("try again in"), "{reply}");
    assert_eq!(guesser.rest(), "");
    assert_eq!(
        first_octets(ABUSER, portcullis.mx),
        Err(ErrorKind::ConnectionReset)
    );
    // Sessions from before the ban get no further than their next step.
    other_session.ask(right, "421 4.7.0 127.5.5.5/32 is banned");
    signed_in.ask(
        "MAIL FROM:<ann@example.org>",
        "421 4.7.0 127.5.5.5/32 is banned",
    );
    encrypted(HONEST).ask(right, "235");
}

/// Postfix hides AUTH from some, and offers it to Portcullis.
#[test]
fn whoever_may_not_sign_in_at_all_has_guessed_no_password() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        extra: "smtpd_discard_ehlo_keyword_address_maps = inline:{127.5.5.5=auth}",
        ..Options::default()
    });
    let settings = [EXEMPT, ("AUTH_FAIL_RATE", "1/h burst 1"), ("TARPIT", "0s")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.start_tls();
    for _ in 0..5 {
        client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", "503 5.5.1");
    }
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    assert!(first_octets(ABUSER, portcullis.mx).is_ok());
}

/// Past STARTTLS, where AUTH is offered.
fn encrypted(source: Ipv4Addr, server: SocketAddr) -> Smtp {
    let mut client = Smtp::connect_from(source, server);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.start_tls();
    client
}

/// As Dovecot does, the server takes its time for a refusal.
#[test]
fn guesses_at_once_are_no_more_than_guesses_one_after_another() {
    let offer: &[Act] = &[Act::Say(
        "250-scripted.test\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN",
    )];
    let refusal: &[Act] = &[Act::Wait(Duration::from_secs(1)), Act::Say("535 5.7.8 no")];
    let rules = [
        ("EHLO", offer),
        ("AUTH LOGIN", &[Act::Say("334 VXNlcm5hbWU6")]),
        ("AUTH", refusal),
        ("Z3Vlc3M=", refusal),
    ];
    for (first, guess) in [
        ("", "AUTH PLAIN AGFubgB3cm9uZw=="),
        ("AUTH LOGIN", "Z3Vlc3M="),
    ] {
        let backend = Scripted::start(&rules);
        let settings = [EXEMPT, ("AUTH_FAIL_RATE", "1/h burst 3")];
        let portcullis = Portcullis::guarding(backend.address, &settings);
        portcullis.wait_for_keywords();
        let mut guessers: Vec<_> = (0..16)
            .map(|_| encrypted(ABUSER, portcullis.submission))
            .collect();
        if !first.is_empty() {
            for guesser in &mut guessers {
                guesser.ask(first, "334");
            }
        }
        for guesser in &mut guessers {
            guesser.say(guess);
        }
        let heard: Vec<_> = guessers.iter_mut().map(Smtp::reply).collect();
        let guesses = backend.heard().concat().matches(guess).count();
        // With the fourth it is banned.
        assert_eq!(guesses, 4, "{heard:#?}");
        assert_eq!(
            first_octets(ABUSER, portcullis.mx),
            Err(ErrorKind::ConnectionReset)
        );
    }
}

#[test]
fn many_users_behind_one_address_sign_in_at_once() {
    const USERS: usize = 20;
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let settings = [EXEMPT, ("AUTH_FAIL_RATE", "1/h burst 2")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut users: Vec<_> = (0..USERS)
        .map(|_| encrypted(HONEST, portcullis.submission))
        .collect();
    let began = Instant::now();
    for user in &mut users {
        user.say("AUTH PLAIN AGFubgBzZWNyZXQ=");
    }
    for user in &mut users {
        user.expect("235");
    }
    println!("{USERS} users in {:?}", began.elapsed());
}

#[test]
fn behind_a_balancer_the_client_is_banned_and_not_the_balancer() {
    let backend = Scripted::start(&[]);
    let settings = [
        EXEMPT,
        ("PROXY_TRUSTED", "127.4.4.4"),
        ("CONN_RATE", "1/h burst 2"),
        ("FLOOD_RATE", "1/h burst 1"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let through = |family: &str, client: &str, server: &str| {
        let header = format!("PROXY {family} {client} {server} 4000 25\r\n");
        let balancer = Ipv4Addr::new(127, 4, 4, 4);
        let said = first_octets_after(balancer, portcullis.mx, header.as_bytes());
        said.map(|octets| String::from_utf8(octets).unwrap())
    };
    let begins = |said: &Result<String, ErrorKind>, with: &str| {
        said.as_ref().is_ok_and(|said| said.starts_with(with))
    };
    let abuser = || through("TCP4", "198.51.100.7", "192.0.2.25");
    let replies: Vec<_> = (0..6).map(|_| abuser()).collect();
    assert!(
        replies[..2].iter().all(|said| begins(said, "220")),
        "{replies:?}"
    );
    let limited = "421 4.7.0 CONN_RATE reached by 198.51.100.7/32";
    assert!(
        replies[2..4].iter().all(|said| begins(said, limited)),
        "{replies:?}"
    );
    let reset = |said: &Result<String, ErrorKind>| *said == Err(ErrorKind::ConnectionReset);
    assert!(replies[4..].iter().all(reset), "{replies:?}");
    assert!(begins(
        &through("TCP4", "198.51.100.8", "192.0.2.25"),
        "220"
    ));
    // An IPv6 client with a whole /64 is one client.
    let sprayed: Vec<_> = (1..=3)
        .map(|host| through("TCP6", &format!("2001:db8::{host}"), "2001:db8:f::1"))
        .collect();
    assert!(
        sprayed[..2].iter().all(|said| begins(said, "220")),
        "{sprayed:?}"
    );
    let limited = "421 4.7.0 CONN_RATE reached by 2001:db8::/64";
    assert!(begins(&sprayed[2], limited), "{sprayed:?}");
    // A health check of the balancer itself is nobody's connection.
    for _ in 0..5 {
        let balancer = Ipv4Addr::new(127, 4, 4, 4);
        let said = first_octets_after(balancer, portcullis.mx, b"PROXY UNKNOWN\r\n").unwrap();
        assert!(said.starts_with(b"220"));
    }
}

#[test]
fn messages_beyond_the_rate_cost_450_and_the_session_goes_on() {
    let postfix = Postfix::start(Options::default());
    let settings = [EXEMPT, ("MSG_RATE", "6/min burst 2")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::connect_from(HONEST, portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    for _ in 0..2 {
        let reply = client.deliver(
            "a@sender.test",
            "b@example.org",
            letter("in time").as_bytes(),
        );
        assert!(reply.starts_with("250"), "{reply}");
    }
    client.say("MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@example.org>\r\nDATA");
    for _ in 0..3 {
        let reply = client.expect("450 4.7.1 MSG_RATE reached by 127.6.6.6/32; try again in ");
        let seconds: u32 = between(&reply, "try again in ", " s")
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=10).contains(&seconds), "{reply}");
    }
    let sent = wait_for(Duration::from_secs(40), || {
        client.say("MAIL FROM:<a@sender.test>");
        client.reply().starts_with("250").then_some(())
    });
    assert!(sent.is_some(), "never let in again");
    client.ask("RCPT TO:<b@example.org>", "250");
    client.ask("DATA", "354");
    client.send(&support::dot_stuffed(letter("later").as_bytes()));
    client.expect("250");
    assert_eq!(postfix.messages(3).len(), 3);
}

#[test]
fn recipients_beyond_the_rate_cost_452_and_the_others_get_their_mail() {
    let postfix = Postfix::start(Options::default());
    let settings = [EXEMPT, ("RCPT_RATE", "1/h burst 2")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::connect_from(HONEST, portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<b@example.org>", "250");
    client.ask("RCPT TO:<c@example.org>", "250");
    client.ask(
        "RCPT TO:<d@example.org>",
        "452 4.7.1 RCPT_RATE reached by 127.6.6.6/32",
    );
    client.ask("DATA", "354");
    client.send(&support::dot_stuffed(letter("two of three").as_bytes()));
    client.expect("250");
    assert_eq!(postfix.messages(2).len(), 2);
}

#[test]
fn who_speaks_before_the_greeting_is_refused_and_the_polite_are_served() {
    let postfix = Postfix::start(Options::default());
    let settings = [
        EXEMPT,
        ("GREET_DELAY", "2s"),
        ("OFFENCE_RATE", "1/h burst 2"),
        // A probe would be one more connection to the backend.
        ("BACKEND_PROBE_INTERVAL", "1h"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let before = postfix.connections();
    for _ in 0..3 {
        let mut early = Smtp::connect_from(ABUSER, portcullis.mx);
        early.say("EHLO spam.test");
        early.expect("554 5.7.1");
        assert_eq!(early.rest(), "");
    }
    assert_eq!(
        first_octets(ABUSER, portcullis.mx),
        Err(ErrorKind::ConnectionReset)
    );
    let began = Instant::now();
    let mut polite = Smtp::connect_from(HONEST, portcullis.mx);
    polite.expect("220");
    assert!(began.elapsed() >= Duration::from_secs(2));
    polite.ask("EHLO client.test", "250");
    let reply = polite.deliver(
        "a@sender.test",
        "b@example.org",
        letter("polite").as_bytes(),
    );
    assert!(reply.starts_with("250"), "{reply}");
    // Of the polite one only.
    assert_eq!(postfix.connections(), before + 1);
}

/// Whether a source is banned over two sessions like this, and the next is not heard.
fn is_banned_over(session: impl Fn(&mut Smtp)) -> bool {
    let postfix = Postfix::start(Options::default());
    let settings = [EXEMPT, ("OFFENCE_RATE", "1/h burst 1"), ("TARPIT", "0s")];
    let portcullis = Portcullis::before(&postfix, &settings);
    portcullis.wait_for_keywords();
    for count in 1..=2 {
        let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
        client.expect("220");
        session(&mut client);
        drop(client);
        let is_over = |line: &serde_json::Value| {
            let client = line["client"].as_str().unwrap_or_default();
            line["message"] == "session" && client.starts_with("127.5.5.5:")
        };
        let over = wait_for(Duration::from_secs(10), || {
            let lines = portcullis.log_lines();
            (lines.iter().filter(|line| is_over(line)).count() == count).then_some(())
        });
        assert!(over.is_some(), "{}", portcullis.log());
    }
    first_octets(ABUSER, portcullis.mx) == Err(ErrorKind::ConnectionReset)
}

const SMUGGLED: &[u8] = b"Subject: one\r\n\r\none\n.\r\nMAIL FROM:<two@sender.test>\r\n";

#[test]
fn what_stands_in_messages_has_no_relay_banned() {
    let refused = |client: &mut Smtp| {
        client.ask("EHLO client.test", "250");
        client.open_data("a@sender.test", "b@example.org");
        client.send(SMUGGLED);
        client.send(b".\r\n");
        client.expect("554 5.6.0");
    };
    assert!(!is_banned_over(|client| {
        refused(client);
        client.ask("QUIT", "221");
    }));
    assert!(!is_banned_over(refused));
    // What is heard again behind one makes no error less.
    assert!(is_banned_over(|client| {
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<a@sender.test>", "250");
        client.ask("RCPT TO:<b@example.org>", "250");
        client.send(b"BDAT 3\r\na\nb");
        client.expect("554 5.6.0");
        (0..10).for_each(|_| drop(client.ask("RCPT TO:<b@example.org>", "5")));
        (0..9).for_each(|_| drop(client.ask("FROB", "500")));
        client.ask("FROB", "421 4.7.0");
    }));
    // However many, whether they end the session or not.
    assert!(!is_banned_over(
        |client| (0..9).for_each(|_| refused(client))
    ));
    assert!(!is_banned_over(|client| {
        (0..10).for_each(|_| refused(client));
        client.ask("EHLO client.test", "250");
        client.open_data("a@sender.test", "b@example.org");
        client.send(SMUGGLED);
        client.send(b".\r\n");
        client.expect("421 4.7.0");
    }));
    assert!(!is_banned_over(|client| {
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<a@sender.test>", "250");
        client.ask("RCPT TO:<b@example.org>", "250");
        client.send(b"BDAT 5 LAST\r\na\0b\r\n");
        client.expect("554 5.6.0");
        client.ask("QUIT", "221");
    }));
}

#[test]
fn who_does_nothing_but_err_is_banned_before_errors_end_the_session() {
    let err = |times| {
        move |client: &mut Smtp| {
            for _ in 0..times {
                client.ask("FROB", "500");
            }
        }
    };
    // Of the ten of ERROR_MAX.
    assert!(is_banned_over(err(10)));
    assert!(is_banned_over(|client| {
        err(5)(client);
        client.ask("QUIT", "221");
    }));
    assert!(!is_banned_over(err(4)));
    // Who sends mail besides may be as odd as ERROR_MAX allows.
    assert!(!is_banned_over(|client| {
        err(5)(client);
        client.ask("EHLO client.test", "250");
        let message = letter("odd");
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        err(5)(client);
    }));
}

#[test]
fn offences_that_end_a_session_lead_to_a_ban() {
    let offences: [(&[u8], &str); 5] = [
        (b"STARTTLS\r\nNOOP\r\n", "503 5.5.1"),
        (b"NO\rOP\r\n", "500 5.5.2 CR"),
        (b"NOOP\n", "500 5.5.2 LF"),
        (b"NO\0OP\r\n", "500 5.5.2 NUL"),
        (b"GET / HTTP/1.1\r\n", ""),
    ];
    for (octets, heard) in offences {
        let offend = |client: &mut Smtp| {
            client.send(octets);
            let said = client.reply_or_end();
            assert!(said.starts_with(heard), "{said}");
        };
        assert!(is_banned_over(offend), "{heard}");
    }
}

#[test]
fn replies_to_a_client_in_error_slow_down_up_to_the_tarpit() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("TARPIT", "400ms"), ("ERROR_MAX", "6")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
    client.expect("220");
    let waits: Vec<_> = (0..6)
        .map(|_| {
            let began = Instant::now();
            client.ask("FROB", "500");
            began.elapsed()
        })
        .collect();
    assert!(waits[2] >= Duration::from_millis(250), "{waits:?}");
    assert!(
        waits[3..]
            .iter()
            .all(|wait| *wait >= Duration::from_millis(400)),
        "{waits:?}"
    );
    client.ask("FROB", "421 4.7.0 Too many errors");
    // Somebody else is not held up by it.
    let mut other = Smtp::connect_from(HONEST, portcullis.mx);
    other.expect("220");
    other.ask("NOOP", "250");
}

#[test]
fn a_list_of_many_dead_addresses_slows_down_in_the_end() {
    // One that does not slow down by itself.
    let postfix = Postfix::start(Options {
        extra: "virtual_mailbox_maps = inline:{bob@example.org=box/}\n\
                smtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000",
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[EXEMPT, ("TARPIT", "1s")]);
    // Refused by us and by the server.
    for (source, dead, said) in [
        (Ipv4Addr::new(127, 5, 5, 5), "x@elsewhere.test", "550 5.7.1"),
        (Ipv4Addr::new(127, 5, 5, 6), "x@example.org", "550 5.1.1"),
    ] {
        let mut client = Smtp::connect_from(source, portcullis.mx);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<a@sender.test>", "250");
        let mut refused = |times: u32| {
            let began = Instant::now();
            for _ in 0..times {
                client.ask(&format!("RCPT TO:<{dead}>"), said);
            }
            began.elapsed()
        };
        let free = refused(50);
        let held_up = refused(20);
        assert!(
            held_up >= Duration::from_secs(2),
            "{held_up:?} after {free:?}"
        );
        // One that is taken makes good for those before it.
        client.ask("RCPT TO:<bob@example.org>", "250");
        let began = Instant::now();
        for _ in 0..20 {
            client.ask(&format!("RCPT TO:<{dead}>"), said);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{held_up:?}");
    }
}

#[test]
fn under_stress_no_reply_is_held_up() {
    let backend = Scripted::start(&[]);
    // The visits that waited for the start may still be on their way out.
    let settings = [("SESSIONS_MAX", "20"), ("TARPIT", "20s")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut others: Vec<_> = (0..17)
        .map(|_| Smtp::connect_from(HONEST, portcullis.mx))
        .collect();
    let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
    client.expect("220");
    for other in &mut others {
        other.expect("220");
    }
    let began = Instant::now();
    for _ in 0..10 {
        client.ask("FROB", "500");
    }
    // Held up they would take 50 s.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_flood_of_junk_uses_up_the_errors() {
    let backend = Scripted::start(&[]);
    let settings = [
        EXEMPT,
        ("TARPIT", "0s"),
        ("JUNK_MAX", "10"),
        ("ERROR_MAX", "5"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
    client.expect("220");
    for line in ["NOOP", "RSET", "HELO a.test", "EHLO a.test", "NOOP"]
        .iter()
        .cycle()
        .take(15)
    {
        client.ask(line, "250");
    }
    client.ask("RSET", "421 4.7.0 Too many errors");
    assert_eq!(client.rest(), "");
}

#[test]
fn under_stress_who_did_nothing_useful_leaves_first() {
    let postfix = Postfix::start(Options::default());
    let settings = [
        EXEMPT,
        ("CONN_MAX", "off"),
        ("CONN_RATE", "off"),
        ("SESSIONS_MAX", "10"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let enter = |source| {
        wait_for(Duration::from_secs(10), || {
            let mut client = Smtp::connect_from(source, portcullis.mx);
            client.reply().starts_with("220").then_some(client)
        })
        .expect("never admitted")
    };
    let mut useful = enter(HONEST);
    useful.ask("EHLO client.test", "250");
    let reply = useful.deliver("a@sender.test", "b@example.org", letter("one").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    useful.ask("MAIL FROM:<a@sender.test>", "250");
    let mut idle: Vec<_> = (0..9).map(|_| enter(ABUSER)).collect();
    // Full: the idle ones have a second or little more, the useful one ten. When two
    // have gone it is full no more.
    let hear = |client: &mut Smtp| {
        client.wait_up_to(Duration::from_secs(4));
        client.try_reply_or_end().unwrap_or_default()
    };
    let heard: Vec<_> = idle.iter_mut().map(hear).collect();
    let sent_away = heard
        .iter()
        .filter(|said| said.starts_with("421 4.4.2"))
        .count();
    assert!(sent_away >= 2, "{heard:?}\n{}", portcullis.log());
    useful.ask("RCPT TO:<b@example.org>", "250");
    let mut late = enter(HONEST);
    late.ask("NOOP", "250");
    portcullis.log_with("\"reason\":\"stress\"");
}

#[test]
fn without_file_descriptors_clients_wait_and_sessions_go_on() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    // Visits that are under way give back what they hold.
    portcullis.log_with("backend probed");
    let mut inside = Smtp::greeted(portcullis.mx);
    inside.open_data("a@sender.test", "b@example.org");
    let alone = wait_for(Duration::from_secs(10), || {
        let sessions = portcullis.metric("portcullis_sessions{listener=\"mx\"}");
        (sessions == 1.0).then_some(())
    });
    assert!(alone.is_some(), "another session does not end");
    let process = portcullis.id().to_string();
    let taken: BTreeSet<usize> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let first_free = (0..).find(|number| !taken.contains(number)).unwrap();
    let limit = |soft: usize| {
        let soft = format!("--nofile={soft}:");
        let arguments = ["--pid", &process, &soft];
        support::run("prlimit", &arguments, b"", Duration::from_secs(10)).assert_success();
    };
    limit(first_free);
    let mut outside = Smtp::connect(portcullis.mx);
    portcullis.log_with("cannot accept");
    inside.send(&support::dot_stuffed(letter("unharmed").as_bytes()));
    inside.expect("250");
    limit(4096);
    outside.expect("220");
    outside.ask("NOOP", "250");
    postfix.message();
}

#[test]
fn sessions_max_that_cannot_be_served_is_warned_of() {
    let backend = Scripted::start(&[]);
    // More descriptors than Linux gives to anybody (fs.nr_open).
    let settings = [("SESSIONS_MAX", "4000000000")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let log = portcullis.log_with("SESSIONS_MAX cannot be served");
    assert!(log.contains("\"level\":\"WARN\""), "{log}");
    Smtp::greeted(portcullis.mx).ask("NOOP", "250");
}

#[test]
fn the_soft_limit_of_file_descriptors_is_raised() {
    let backend = Scripted::start(&[]);
    let address = backend.address.to_string();
    let soft = |scanner| {
        let settings = [
            ("BACKEND", address.as_str()),
            ("DOMAINS", "example.org"),
            ("SESSIONS_MAX", "3000"),
            scanner,
        ];
        let portcullis = Portcullis::start_under(&["prlimit", "--nofile=1024:"], &settings);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", portcullis.id())).unwrap();
        let mut lines = limits.lines();
        let line = lines.find(|line| line.starts_with("Max open files"));
        let soft = line.unwrap().split_whitespace().nth(3);
        soft.unwrap().parse::<u64>().unwrap()
    };
    let without = soft(("CLAMAV", "off"));
    assert!(without >= 6000, "{without}");
    let with = soft(("CLAMAV", "127.0.0.1:1"));
    assert!(with >= 9000, "{with}");
}

#[test]
fn monitor_mode_judges_everything_and_refuses_nothing() {
    let postfix = Postfix::start(Options {
        learns: Learns::ByXclient,
        ..Options::default()
    });
    let settings = [
        EXEMPT,
        ("MODE", "monitor"),
        ("CONN_RATE", "1/h burst 1"),
        ("CONN_MAX", "1"),
        ("FLOOD_RATE", "off"),
        ("MSG_RATE", "1/h burst 1"),
        ("RCPT_RATE", "1/h burst 1"),
        ("RCPT_MAX", "2"),
        ("ERROR_MAX", "2"),
        ("GREET_DELAY", "300ms"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut first = Smtp::connect_from(ABUSER, portcullis.mx);
    first.expect("220");
    for _ in 0..5 {
        let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
        client.say("EHLO early.test");
        client.expect("220");
        client.expect("250");
        for _ in 0..4 {
            client.ask("FROB", "500");
        }
        client.ask("MAIL FROM:<a@sender.test>", "250");
        for recipient in ["b", "c", "d"] {
            client.ask(&format!("RCPT TO:<{recipient}@example.org>"), "250");
        }
        // The backend decides: this one says no by itself.
        client.ask("RCPT TO:<x@elsewhere.test>", "250");
        client.ask("DATA", "354");
        client.send(&support::dot_stuffed(letter("watched").as_bytes()));
        client.expect("250");
    }
    let lines = portcullis.log_lines();
    for reason in [
        "conn-rate",
        "conn-max",
        "msg-rate",
        "rcpt-rate",
        "recipients",
        "errors",
        "early-talker",
        "relay-denied",
    ] {
        let judged = lines
            .iter()
            .any(|line| line["would"] == "refuse" && line["reason"] == reason);
        // CONN_RATE speaks first at the door.
        assert!(
            judged || reason == "conn-max",
            "no would=refuse for {reason}\n{}",
            portcullis.log()
        );
    }
    assert!(
        lines
            .iter()
            .all(|line| line["message"] != "refused" || line["reason"] != "conn-rate")
    );
}

#[test]
fn a_flood_of_refusals_is_no_flood_of_log_lines() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_RATE", "1/h burst 1"), ("FLOOD_RATE", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..400 {
        let _ = first_octets(ABUSER, portcullis.mx);
    }
    let refused = || portcullis.log().matches("conn-rate").count();
    assert!(refused() >= 100, "{}", refused());
    assert!(refused() < 350, "{}", refused());
    std::thread::sleep(Duration::from_millis(300));
    let _ = first_octets(ABUSER, portcullis.mx);
    portcullis.log_with("refused at the door, not logged one by one");
}

#[test]
fn limits_hold_on_a_client_that_comes_by_tls() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_RATE", "1/h burst 2"), ("FLOOD_RATE", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..2 {
        let mut client = Smtp::connect_from(ABUSER, portcullis.tls);
        client.hand_shake();
        client.expect("220");
    }
    assert_eq!(first_octets(ABUSER, portcullis.tls), Ok(vec![]));
}

#[test]
fn monitor_mode_bans_nobody_and_says_whom_it_would() {
    let backend = Scripted::start(&[]);
    let settings = [
        EXEMPT,
        ("MODE", "monitor"),
        ("CONN_RATE", "1/h burst 1"),
        ("FLOOD_RATE", "1/h burst 1"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..8 {
        assert!(greeting(ABUSER, portcullis.mx).starts_with("220"));
    }
    portcullis.log_with("\"reason\":\"banned\"");
    let lines = portcullis.log_lines();
    let banned =
        |line: &&serde_json::Value| line["reason"] == "banned" && line["would"] == "refuse";
    assert!(
        lines.iter().filter(banned).count() >= 1,
        "{}",
        portcullis.log()
    );
}

/// The reply names the network of the client, the log must not.
#[test]
fn log_addresses_hold_for_what_limits_say() {
    let backend = Scripted::start(&[]);
    for how in ["masked", "hashed", "none"] {
        let settings = [
            EXEMPT,
            ("CONN_RATE", "1/h burst 1"),
            ("FLOOD_RATE", "1/h burst 1"),
            ("LOG_ADDRESSES", how),
        ];
        let portcullis = Portcullis::guarding(backend.address, &settings);
        for _ in 0..5 {
            let _ = first_octets(ABUSER, portcullis.mx);
        }
        let log = portcullis.log_with("\"reason\":\"banned\"");
        assert!(!log.contains("127.5.5.5"), "{how}: {log}");
    }
}

/// Ten places, all held by clients that have done nothing but this.
fn let_in_despite(hold: impl Fn(&mut Smtp)) -> bool {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("SESSIONS_MAX", "10")]);
    let mut held = Vec::new();
    let full = wait_for(Duration::from_secs(10), || {
        let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
        if !client.reply().starts_with("220") {
            return Some(());
        }
        client.ask("EHLO a.test", "250");
        hold(&mut client);
        held.push(client);
        None
    });
    assert!(full.is_some());
    wait_for(Duration::from_secs(8), || {
        greeting(HONEST, portcullis.mx)
            .starts_with("220")
            .then_some(())
    })
    .is_some()
}

#[test]
fn under_stress_a_handshake_that_never_begins_keeps_no_place() {
    assert!(let_in_despite(|client| {
        client.ask("STARTTLS", "220");
    }));
}

/// Anybody can say it.
#[test]
fn under_stress_a_message_that_is_only_begun_keeps_no_place() {
    assert!(let_in_despite(|client| {
        client.ask("MAIL FROM:<a@sender.test>", "250");
    }));
}

#[test]
fn under_stress_a_chunk_that_is_thrown_away_keeps_no_place() {
    assert!(let_in_despite(|client| client.say("BDAT 20000000")));
}

#[test]
fn under_stress_the_pause_before_the_greeting_is_not_held_against_the_client() {
    let backend = Scripted::start(&[]);
    let settings = [("SESSIONS_MAX", "10"), ("GREET_DELAY", "4s")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    // One of the first ten may be the harness's own connection.
    let mut clients: Vec<_> = (0..9)
        .map(|_| Smtp::connect_from(HONEST, portcullis.mx))
        .collect();
    for client in &mut clients {
        client.expect("220");
    }
}

#[test]
fn refusals_that_are_pipelined_are_no_flood_of_log_lines() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<a@sender.test>", "250");
    let pipelined = "RCPT TO:<x@elsewhere.test>\r\n".repeat(2000);
    client.send(pipelined.as_bytes());
    for _ in 0..2000 {
        client.expect("550 5.7.1");
    }
    client.ask("QUIT", "221");
    let log = portcullis.log_with("\"refusals\":2000");
    assert!(log.matches("relay-denied").count() <= 200);
}

/// A backend that takes the proxy for the client cannot guard its relay.
#[test]
fn monitor_mode_opens_no_relay_before_a_backend_that_does_not_know_the_client() {
    let postfix = Postfix::start(Options::default());
    let settings = [("MODE", "monitor"), ("CLIENT_INFO", "received")];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::connect_from(ABUSER, portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<x@elsewhere.test>", "550 5.7.1 Relaying denied");
    client.ask("RCPT TO:<b@example.org>", "250");
}
