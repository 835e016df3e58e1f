//! Faults that no real server produces on demand: a backend that is late, breaks off
//! or lies, a client that drips or vanishes. The client gets one honest reply.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::time::{Duration, Instant};

use support::{Act, Portcullis, Scripted, Smtp, wait_for};

fn transaction(client: &mut Smtp) {
    client.open_data("ann@sender.test", "bob@example.org");
}

#[test]
fn a_backend_that_is_down_costs_451_and_is_used_once_it_is_back() {
    let address = support::free_address();
    let portcullis = Portcullis::guarding(address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451 4.4.1");
    client.ask("NOOP", "250");
    let backend = Scripted::start_at(address, &[]);
    // The same session, the same program: no restart, no wait for the next probe.
    let reply = client.deliver(
        "ann@sender.test",
        "bob@example.org",
        b"Subject: back\r\n\r\n",
    );
    assert!(reply.starts_with("250"), "{reply}");
    assert!(backend.transactions(1)[0].contains("Subject: back"));
}

#[test]
fn a_reset_at_any_verb_costs_451_and_leaves_the_session_usable() {
    let steps = [
        "MAIL FROM:<ann@sender.test>",
        "RCPT TO:<bob@example.org>",
        "DATA",
    ];
    for place in ["greeting", "EHLO client.test", "MAIL", "RCPT", "DATA", "."] {
        for act in [Act::Close, Act::Reset] {
            let backend = Scripted::start(&[(place, &[act])]);
            let portcullis = Portcullis::guarding(backend.address, &[]);
            let mut client = Smtp::greeted(portcullis.mx);
            let refused = steps.iter().find_map(|step| {
                client.say(step);
                Some(client.reply()).filter(|reply| !reply.starts_with(['2', '3']))
            });
            let refused = refused.unwrap_or_else(|| {
                client.send(b"text\r\n.\r\n");
                client.reply()
            });
            assert!(refused.starts_with("451 4.4.1"), "{place}: {refused}");
            client.ask("RSET", "250");
            client.ask("NOOP", "250");
        }
    }
}

#[test]
fn a_reset_at_rset_is_no_failure() {
    let backend = Scripted::start(&[("RSET", &[Act::Reset])]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RSET", "250");
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    assert_eq!(backend.transactions(2).len(), 2);
}

#[test]
fn a_backend_that_never_answers_costs_451_in_time() {
    for place in ["MAIL", "."] {
        let backend = Scripted::start(&[(place, &[Act::Silence])]);
        let portcullis = Portcullis::guarding(backend.address, &[("TIMEOUT_BACKEND_REPLY", "2s")]);
        let mut client = Smtp::greeted(portcullis.mx);
        let began = Instant::now();
        if place == "MAIL" {
            client.ask("MAIL FROM:<ann@sender.test>", "451 4.4.1");
        } else {
            transaction(&mut client);
            client.send(b"text\r\n.\r\n");
            client.expect("451 4.4.1");
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        client.ask("NOOP", "250");
    }
}

#[test]
fn a_backend_that_never_greets_costs_451_in_time() {
    let backend = Scripted::start(&[("greeting", &[Act::Silence])]);
    let portcullis = Portcullis::guarding(backend.address, &[("TIMEOUT_BACKEND_CONNECT", "300ms")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451 4.4.1");
}

#[test]
fn a_backend_that_dies_inside_a_body_costs_451_after_the_true_end() {
    for act in [Act::Close, Act::Reset] {
        let backend = Scripted::start(&[("body", &[act])]);
        let portcullis = Portcullis::guarding(backend.address, &[]);
        let mut client = Smtp::greeted(portcullis.mx);
        transaction(&mut client);
        for _ in 0..50 {
            client.send(b"a line of the body\r\n");
            std::thread::sleep(Duration::from_millis(2));
        }
        client.send(b".\r\n");
        client.expect("451 4.4.1");
        client.ask("NOOP", "250");
    }
}

#[test]
fn the_last_word_of_a_backend_inside_a_body_is_passed_on_after_the_true_end() {
    let acts = [Act::Say("552 5.2.2 mailbox full"), Act::Close];
    let backend = Scripted::start(&[("body", &acts)]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    transaction(&mut client);
    client.send(b"first\r\n");
    std::thread::sleep(Duration::from_millis(300));
    client.send(b"second\r\n.\r\n");
    client.expect("552 5.2.2 mailbox full");
    client.ask("NOOP", "250");
}

/// A client that has sent all of a message, the second half only when the backend had
/// answered to the first and the answer was here.
fn answered_inside(backend: &Scripted) -> (Portcullis, Smtp) {
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    transaction(&mut client);
    client.send(b"first\r\n");
    let has_come = || {
        let heard = backend.heard();
        let has_come = heard.iter().any(|heard| heard.contains("first\r\n"));
        has_come.then_some(())
    };
    wait_for(Duration::from_secs(20), has_come).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    client.send(b"second\r\n.\r\n");
    (portcullis, client)
}

#[test]
fn a_250_inside_a_body_acknowledges_nothing() {
    let backend = Scripted::start(&[("body", &[Act::Say("250 2.0.0 taken")])]);
    let (_portcullis, mut client) = answered_inside(&backend);
    client.expect("421");
    assert_eq!(client.rest(), "");
}

/// The rest of a reply that has begun must not be the answer to what comes later.
#[test]
fn half_a_250_inside_a_body_acknowledges_nothing_when_it_ends() {
    let begun: &[Act] = &[Act::Send(b"250-2.0.0 almost\r\n")];
    let ended: &[Act] = &[Act::Send(b"250 2.0.0 taken\r\n550 5.7.1 not taken\r\n")];
    let backend = Scripted::start(&[("body", begun), (".", ended)]);
    let (_portcullis, mut client) = answered_inside(&backend);
    client.expect("451 4.4.1");
    client.ask("QUIT", "221");
}

#[test]
fn a_connection_that_went_stale_between_two_messages_is_replaced_in_silence() {
    let taken = Act::Say("250 2.0.0 taken");
    // Some say goodbye to an idle client, some only hang up.
    let farewells: [&[Act]; 3] = [
        &[taken.clone(), Act::Say("421 4.4.2 idle"), Act::Close],
        &[taken.clone(), Act::Close],
        // Not at once: a reset may overtake what was said before it.
        &[taken, Act::Wait(Duration::from_millis(50)), Act::Reset],
    ];
    for farewell in farewells {
        let backend = Scripted::start(&[(".", farewell)]);
        let portcullis = Portcullis::guarding(backend.address, &[]);
        let mut client = Smtp::greeted(portcullis.mx);
        transaction(&mut client);
        client.send(b"one\r\n.\r\n");
        client.expect("250 2.0.0 taken");
        std::thread::sleep(Duration::from_millis(100));
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        assert_eq!(backend.transactions(2).len(), 2);
    }
}

#[test]
fn a_client_that_drips_is_closed_at_its_deadline() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("TIMEOUT_COMMAND", "1s")]);
    let mut client = Smtp::greeted(portcullis.mx);
    let began = Instant::now();
    for _ in 0..40 {
        if client.try_send(b"N").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    client.expect("421 4.4.2");
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(
        backend
            .heard()
            .iter()
            .filter(|text| text.contains("MAIL"))
            .count(),
        0
    );
}

#[test]
fn a_body_that_pauses_or_crawls_is_given_up_and_never_completed() {
    let cases: [&[(&str, &str)]; 2] = [
        &[("TIMEOUT_DATA", "300ms")],
        &[("DATA_RATE_MIN", "100000"), ("DATA_RATE_GRACE", "300ms")],
    ];
    for settings in cases {
        let backend = Scripted::start(&[]);
        let portcullis = Portcullis::guarding(backend.address, settings);
        let mut client = Smtp::greeted(portcullis.mx);
        transaction(&mut client);
        client.send(b"begun\r\n");
        let crawling = settings.len() == 2;
        for _ in 0..60 {
            if crawling && client.try_send(b"x\r\n").is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        client.expect("421 4.4.2");
        drop(client);
        let heard = &backend.transactions(1)[0];
        assert!(!heard.contains("\r\n.\r\n"), "{heard}");
    }
}

#[test]
fn tls_that_breaks_at_the_backend_is_told_apart_and_goes_on_in_plain_text() {
    let ehlo = Act::Say("250-scripted.test\r\n250-STARTTLS\r\n250 8BITMIME");
    let starttls = [
        Act::Say("220 go"),
        Act::Wait(Duration::from_millis(50)),
        Act::Send(b"this is no TLS"),
        Act::Close,
    ];
    let backend = Scripted::start(&[("EHLO", &[ehlo]), ("STARTTLS", &starttls)]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    portcullis.log_with("breaks at it");
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = client.deliver("ann@sender.test", "bob@example.org", b"Subject: x\r\n\r\n");
    assert!(reply.starts_with("250"));
    drop(portcullis);
    let portcullis = Portcullis::guarding(backend.address, &[("BACKEND_TLS", "encrypt")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451 4.");
}

#[test]
fn a_backend_that_closes_or_hangs_at_starttls_gets_its_mail_in_plain_text() {
    let ehlo = Act::Say("250-scripted.test\r\n250-STARTTLS\r\n250 8BITMIME");
    let faults: [&[Act]; 5] = [
        &[Act::Silence],
        &[Act::Say("454 4.7.0 TLS not available")],
        &[Act::Close],
        &[Act::Say("220 go"), Act::Close],
        &[
            Act::Say("220 go"),
            Act::Silence,
            Act::Wait(Duration::from_secs(3)),
        ],
    ];
    for fault in faults {
        let backend =
            Scripted::start(&[("EHLO", std::slice::from_ref(&ehlo)), ("STARTTLS", fault)]);
        let portcullis =
            Portcullis::guarding(backend.address, &[("TIMEOUT_BACKEND_CONNECT", "1s")]);
        portcullis.log_with("breaks at it");
        let mut client = Smtp::greeted(portcullis.mx);
        let reply = client.deliver("ann@sender.test", "bob@example.org", b"Subject: x\r\n\r\n");
        assert!(reply.starts_with("250"), "{reply}");
    }
}

#[test]
fn a_backend_that_is_too_busy_is_passed_over_and_costs_451_when_it_is_alone() {
    for place in ["greeting", "EHLO"] {
        let busy = Scripted::start(&[(place, &[Act::Say("421 4.3.2 too busy"), Act::Close])]);
        let portcullis = Portcullis::guarding(busy.address, &[]);
        let mut client = Smtp::greeted(portcullis.mx);
        client.ask("MAIL FROM:<ann@sender.test>", "451 4.4.1");
        client.ask("NOOP", "250");

        let idle = Scripted::start(&[]);
        let both = format!("{}, {}", busy.address, idle.address);
        let portcullis = Portcullis::guarding(busy.address, &[("BACKEND", both.as_str())]);
        for _ in 0..4 {
            let mut client = Smtp::greeted(portcullis.mx);
            client.ask("MAIL FROM:<ann@sender.test>", "250");
        }
    }
}

#[test]
fn opening_a_backend_has_one_deadline_however_many_steps_it_takes() {
    let slow = Act::Wait(Duration::from_millis(700));
    let ehlo = [
        slow.clone(),
        Act::Say("250-scripted.test\r\n250 XCLIENT ADDR"),
    ];
    let xclient = [slow, Act::Say("220 go on")];
    let backend = Scripted::start(&[("EHLO", &ehlo), ("XCLIENT", &xclient)]);
    let portcullis = Portcullis::guarding(backend.address, &[("TIMEOUT_BACKEND_REPLY", "1s")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451 4.4.1");
    client.ask("NOOP", "250");
}

#[test]
fn replies_injected_before_the_backends_tls_are_not_believed() {
    let ehlo = Act::Say("250-scripted.test\r\n250 STARTTLS");
    let starttls = [Act::Say("220 go\r\n250 2.0.0 injected")];
    let backend = Scripted::start(&[("EHLO", &[ehlo]), ("STARTTLS", &starttls)]);
    let portcullis = Portcullis::guarding(backend.address, &[("BACKEND_TLS", "encrypt")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451");
    assert!(portcullis.log_with("unasked-for").contains("backend"));
}

#[test]
fn a_client_gone_at_any_octet_never_completes_a_message() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let script: &[&[u8]] = &[
        b"EHLO c.test\r\n",
        b"MAIL FROM:<ann@sender.test>\r\n",
        b"RCPT TO:<bob@example.org>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\n.. dots\r\n.\r\n",
    ];
    let whole: usize = script.iter().map(|part| part.len()).sum();
    for cut in 1..whole {
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let mut left = cut;
        for part in script {
            let here = left.min(part.len());
            client.send(&part[..here]);
            left -= here;
            if left == 0 {
                break;
            }
            client.reply();
        }
    }
    // The machine is still up, and this message is the first to be whole.
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = client.deliver(
        "ann@sender.test",
        "bob@example.org",
        b"Subject: whole\r\n\r\n",
    );
    assert!(reply.starts_with("250"), "{reply}");
    wait_for(Duration::from_millis(200), || None::<()>);
    let complete: Vec<_> = backend
        .heard()
        .into_iter()
        .filter(|text| text.contains("\r\n.\r\n"))
        .collect();
    assert_eq!(complete.len(), 1, "{complete:?}");
    assert!(complete[0].contains("Subject: whole"));
}
