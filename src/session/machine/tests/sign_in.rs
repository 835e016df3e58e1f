//! AUTH: who may, when, and what becomes of the session that did.

use super::*;
use crate::policy::Limit;
use crate::smtp::command::AuthLine;

fn auth_line(text: &str) -> Event {
    Event::AuthLine(AuthLine::parse(text.as_bytes()), Behind::Nothing)
}

/// An exchange whose first challenge has been passed on.
fn challenged() -> Machine {
    let begun = [
        command("EHLO c.test"),
        command("AUTH LOGIN"),
        connected(),
        answered(334),
    ];
    let (machine, step) = after(Privacy::Encrypted, &begun);
    assert!(matches!(step, Step::Challenge(_)), "{step:?}");
    machine
}

#[test]
fn a_session_signs_in_once_and_not_in_clear() {
    let (_, step) = after(
        Privacy::Clear,
        &[command("EHLO c.test"), command("AUTH PLAIN AHUAcA==")],
    );
    assert_eq!(code(&step), 538);
    let (machine, step) = after(Privacy::Encrypted, &signed_in());
    assert_eq!(code(&step), 235);
    assert_eq!(machine.identity().unwrap().login.as_deref(), Some("u"));
    let (_, step) = after(
        Privacy::Encrypted,
        &and(signed_in(), &[command("AUTH PLAIN AHUAcA==")]),
    );
    assert_eq!(code(&step), 503);
    let (_, step) = after(
        Privacy::Encrypted,
        &[command("EHLO c.test"), command("AUTH GSSAPI")],
    );
    assert_eq!(code(&step), 504);
    let (_, step) = after(
        Privacy::Encrypted,
        &and(transaction(), &[command("AUTH PLAIN AHUAcA==")]),
    );
    assert_eq!(code(&step), 503);
    // A 250 in the place of 235 signs nobody in.
    let mut wrong = signed_in();
    wrong.pop();
    let (_, step) = after(Privacy::Encrypted, &and(wrong, &[answered(250)]));
    assert!(ended(&step) && code(&step) == 421);
}

#[test]
fn auth_lines_pass_one_by_one() {
    let mut machine = challenged();
    assert_eq!(
        advance(&mut machine, auth_line("dQ==")),
        Step::ExchangeAuth(AuthLine::parse(b"dQ==").unwrap())
    );
    assert!(matches!(
        advance(&mut machine, answered(334)),
        Step::Challenge(_)
    ));
    advance(&mut machine, auth_line("cA=="));
    assert!(machine.identity().is_none(), "not before the 235");
    assert_eq!(code(&advance(&mut machine, answered(235))), 235);
    assert_eq!(machine.identity().unwrap().login.as_deref(), Some("u"));
}

#[test]
fn a_cancelled_exchange_gets_the_backends_501() {
    let mut machine = challenged();
    assert_eq!(
        advance(&mut machine, auth_line("*")),
        Step::ExchangeAuth(AuthLine::Cancel)
    );
    let step = advance(&mut machine, answered(501));
    assert_eq!(step, Step::Answer(Answer::Backend(reply(501))));
    assert!(machine.identity().is_none());
}

#[test]
fn what_is_no_base64_cancels_towards_the_backend_and_then_gets_501() {
    let mut machine = challenged();
    assert_eq!(
        advance(&mut machine, auth_line("no base64!")),
        Step::ExchangeAuth(AuthLine::Cancel)
    );
    let step = advance(&mut machine, answered(535));
    assert!(matches!(step, Step::Answer(Answer::Refused(_))), "{step:?}");
    assert_eq!(code(&step), 501);
    assert!(machine.identity().is_none());
}

/// RFC 7628 3.2.3: who has learnt it by the challenge need not wait for the refusal.
#[test]
fn a_challenge_that_tells_of_failure_is_counted_before_it_is_passed_on() {
    let begun = [
        command("EHLO c.test"),
        command("AUTH XOAUTH2 dXNlcg=="),
        connected(),
    ];
    let told = || {
        let (mut machine, _) = after(Privacy::Encrypted, &begun);
        let step = machine.advance(answered(334));
        assert_eq!(step, Step::Judge(Question::FailedSignIn));
        machine
    };
    let mut machine = told();
    let step = machine.advance(Event::Judged(Verdict::Pass));
    assert_eq!(step, Step::Challenge(reply(334)));
    // Once is enough, and the refusal is an error as ever.
    assert!(matches!(
        advance(&mut machine, auth_line("")),
        Step::ExchangeAuth(_)
    ));
    let step = machine.advance(answered(535));
    assert_eq!(step, Step::Answer(Answer::Backend(reply(535))));
    assert_eq!(machine.errors(), 1);

    let mut machine = told();
    let too_many = Finding::Rate {
        limit: Limit::AuthFailures,
        network: None,
        wait: std::time::Duration::from_secs(9),
    };
    let step = machine.advance(Event::Judged(Verdict::Refuse(too_many)));
    assert!(ended(&step) && code(&step) == 421, "{step:?}");
    assert!(!machine.has_link(), "it would take a QUIT for an answer");
}

#[test]
fn a_backend_that_signs_in_who_cancelled_is_not_believed() {
    for line in ["*", "no base64!"] {
        for wrong in [235, 250, 334] {
            let mut machine = challenged();
            advance(&mut machine, auth_line(line));
            let step = advance(&mut machine, answered(wrong));
            assert!(
                ended(&step) && code(&step) == 421,
                "{line} {wrong}: {step:?}"
            );
        }
    }
}

#[test]
fn challenges_have_an_end() {
    let mut machine = challenged();
    let mut rounds = 0;
    let last = loop {
        match advance(&mut machine, auth_line("dQ==")) {
            Step::ExchangeAuth(AuthLine::Response(_)) => rounds += 1,
            other => break other,
        }
        assert!(rounds < 100, "challenges without end");
        assert!(matches!(
            advance(&mut machine, answered(334)),
            Step::Challenge(_)
        ));
    };
    assert!(rounds >= 4, "SCRAM and GSSAPI need some");
    assert_eq!(last, Step::ExchangeAuth(AuthLine::Cancel));
    assert_eq!(code(&advance(&mut machine, answered(501))), 500);
}

#[test]
fn octets_behind_an_answer_to_a_challenge_end_the_session() {
    let mut machine = challenged();
    let line = Event::AuthLine(AuthLine::parse(b"dQ=="), Behind::Octets);
    let step = advance(&mut machine, line);
    assert!(ended(&step) && code(&step) == 503, "{step:?}");
}

#[test]
fn a_refused_client_may_try_again_until_its_errors_are_used_up() {
    let hello = command("EHLO c.test");
    let attempt = command("AUTH PLAIN AHUAcA==");
    let (mut machine, _) = after(Privacy::Encrypted, &[hello, attempt.clone(), connected()]);
    for _ in 0..rules().errors_max {
        let step = advance(&mut machine, answered(535));
        assert_eq!(step, Step::Answer(Answer::Backend(reply(535))));
        assert!(machine.identity().is_none());
        assert!(matches!(
            advance(&mut machine, attempt.clone()),
            Step::Exchange(Command::Auth(_))
        ));
    }
    let mut patient = machine;
    let step = advance(&mut patient, answered(535));
    assert!(ended(&step) && code(&step) == 421, "{step:?}");

    let (mut machine, _) = after(
        Privacy::Encrypted,
        &and(
            signed_in()[..3].to_vec(),
            &[answered(535), attempt, answered(235)],
        ),
    );
    assert!(machine.identity().is_some());
    // A later hello keeps who signed in (RFC 4954 4 ends it with the session only).
    advance(&mut machine, command("EHLO d.test"));
    advance(&mut machine, answered(250));
    assert!(machine.identity().is_some());
}

#[test]
fn every_break_costs_a_signed_in_client_the_session() {
    let to_rcpt = [
        command("MAIL FROM:<a@b.test>"),
        answered(250),
        command("RCPT TO:<x@example.org>"),
        Event::Judged(Verdict::Pass),
    ];
    let to_data = [&to_rcpt[..], &[answered(250), command("DATA")]].concat();
    for events in [
        vec![command("MAIL FROM:<a@b.test>")],
        to_rcpt.to_vec(),
        to_data,
        vec![command("VRFY x")],
        vec![command("EHLO d.test")],
    ] {
        let (mut machine, step) = after(Privacy::Encrypted, &and(signed_in(), &events));
        assert!(matches!(step, Step::Exchange(_)), "{step:?}");
        let step = advance(&mut machine, Event::Answered(Err(Lost)));
        assert!(ended(&step) && code(&step) == 421, "{events:?}: {step:?}");
    }
}

#[test]
fn submission_demands_tls_and_then_auth() {
    let mut machine = Machine::new(
        Rules {
            demand: Demand::TlsAndAuth,
            ..rules()
        },
        Privacy::Clear,
    );
    advance(&mut machine, Event::Opened);
    advance(&mut machine, command("EHLO c.test"));
    assert_eq!(
        code(&advance(&mut machine, command("MAIL FROM:<a@b.test>"))),
        530
    );
    advance(&mut machine, command("STARTTLS"));
    advance(&mut machine, Event::Upgraded);
    advance(&mut machine, command("EHLO c.test"));
    assert_eq!(
        code(&advance(&mut machine, command("MAIL FROM:<a@b.test>"))),
        530
    );
    for event in signed_in() {
        advance(&mut machine, event);
    }
    assert!(matches!(
        advance(&mut machine, command("MAIL FROM:<a@b.test>")),
        Step::Exchange(_)
    ));
}

#[test]
fn a_lost_backend_costs_a_signed_in_client_the_session_unless_it_can_be_named() {
    let mail = [
        command("MAIL FROM:<a@b.test>"),
        answered(250),
        command("RSET"),
        Event::Answered(Err(Lost)),
    ];
    let again = command("MAIL FROM:<a@b.test>");
    let (_, step) = after(
        Privacy::Encrypted,
        &and(
            signed_in(),
            &and(mail.to_vec(), std::slice::from_ref(&again)),
        ),
    );
    assert!(ended(&step) && code(&step) == 421, "{step:?}");

    let mut named = signed_in();
    named[2] = Event::Connected(Ok(Link {
        keywords: rules().backend,
        relogin: Relogin::Possible,
    }));
    let (_, step) = after(
        Privacy::Encrypted,
        &and(named, &and(mail.to_vec(), &[again])),
    );
    assert_eq!(step, Step::Connect);
}

#[test]
fn a_line_that_may_not_be_tried_is_cancelled_towards_the_backend() {
    let banned = Finding::Banned {
        network: "192.0.2.1/32".parse().unwrap(),
        left: std::time::Duration::from_secs(60),
    };
    let mut machine = challenged();
    let step = machine.advance(auth_line("dQ=="));
    assert_eq!(step, Step::Judge(Question::SignIn));
    let step = machine.advance(Event::Judged(Verdict::Refuse(banned)));
    assert_eq!(step, Step::ExchangeAuth(AuthLine::Cancel));
    let step = machine.advance(answered(501));
    assert_eq!(code(&step), 454);
    assert!(machine.identity().is_none());
}
