//! The machine alone: its six invariants, one by one and under random events.

use proptest::prelude::*;

use super::*;
use crate::policy::{Finding, Verdict};
use crate::smtp::command::{AuthLine, Verb};
use crate::smtp::dot::{BareNewline, BodyOffence};
use crate::smtp::ehlo::Keywords;

fn rules() -> Rules {
    let mut backend = Keywords::new();
    backend.insert("8BITMIME", [""; 0]);
    backend.insert("CHUNKING", [""; 0]);
    backend.insert("AUTH", ["PLAIN", "LOGIN"]);
    Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: Demand::Nothing,
        backend,
        allowed: vec![Verb::Vrfy],
        max_size: 1000,
        recipients_max: 3,
        errors_max: 5,
        newline: BareNewline::Reject,
    }
}

fn reply(code: u16) -> Reply {
    Reply::new(code, None, "backend says")
}

fn command(line: &str) -> Event {
    Event::Command(Command::parse(line.as_bytes()), Behind::Nothing)
}

fn answered(code: u16) -> Event {
    Event::Answered(Ok(reply(code)))
}

fn connected() -> Event {
    let keywords = rules().backend;
    Event::Connected(Ok(Link {
        keywords,
        relogin: Relogin::Impossible,
    }))
}

/// A machine after these events; the last step.
fn after(privacy: Privacy, events: &[Event]) -> (Machine, Step) {
    let mut machine = Machine::new(rules(), privacy);
    let mut step = machine.advance(Event::Opened);
    for event in events {
        step = machine.advance(event.clone());
    }
    (machine, step)
}

fn code(step: &Step) -> u16 {
    match step {
        Step::Answer(answer) | Step::End(Ending::Said(answer)) => match answer {
            Answer::Own(reply) | Answer::Backend(reply) => reply.code(),
            Answer::Refused(refusal) => refusal.reply().code(),
        },
        other => panic!("no answer: {other:?}"),
    }
}

fn ended(step: &Step) -> bool {
    matches!(step, Step::End(_))
}

/// EHLO, MAIL and RCPT, all taken.
fn transaction() -> Vec<Event> {
    vec![
        command("EHLO c.test"),
        command("MAIL FROM:<a@b.test>"),
        connected(),
        answered(250),
        command("RCPT TO:<x@example.org>"),
        Event::Judged(Verdict::Pass),
        answered(250),
    ]
}

fn signed_in() -> Vec<Event> {
    vec![
        command("EHLO c.test"),
        command("AUTH PLAIN AHUAcA=="),
        connected(),
        answered(235),
    ]
}

fn and(mut events: Vec<Event>, more: &[Event]) -> Vec<Event> {
    events.extend_from_slice(more);
    events
}

#[test]
fn a_body_goes_only_after_the_backends_354() {
    let data = and(transaction(), &[command("DATA")]);
    let (_, step) = after(Privacy::Clear, &data);
    assert_eq!(step, Step::Exchange(Command::Data));
    let (_, step) = after(Privacy::Clear, &and(data.clone(), &[answered(354)]));
    assert!(matches!(step, Step::RelayBody(_)));
    for wrong in [200, 250, 334, 355] {
        let (_, step) = after(Privacy::Clear, &and(data.clone(), &[answered(wrong)]));
        assert!(ended(&step) && code(&step) == 421, "{wrong}: {step:?}");
    }
}

#[test]
fn sender_and_recipients_count_only_after_the_backends_2xx() {
    let mail = [
        command("EHLO c.test"),
        command("MAIL FROM:<a@b.test>"),
        connected(),
    ];
    let (machine, _) = after(Privacy::Clear, &mail);
    assert!(machine.envelope().is_none());
    let (machine, _) = after(Privacy::Clear, &and(mail.to_vec(), &[answered(550)]));
    assert!(machine.envelope().is_none());
    let refused = and(
        transaction(),
        &[
            command("RCPT TO:<y@example.org>"),
            Event::Judged(Verdict::Pass),
            answered(450),
        ],
    );
    let (machine, step) = after(Privacy::Clear, &refused);
    assert_eq!(code(&step), 450);
    assert_eq!(machine.envelope().unwrap().recipients.len(), 1);
    let judged = and(
        transaction(),
        &[
            command("RCPT TO:<y@evil.test>"),
            Event::Judged(Verdict::Refuse(Finding::ForeignDomain)),
        ],
    );
    let (machine, step) = after(Privacy::Clear, &judged);
    assert_eq!(
        (code(&step), machine.envelope().unwrap().recipients.len()),
        (550, 1)
    );
}

#[test]
fn starttls_forgets_everything() {
    let events = [
        command("EHLO c.test"),
        command("MAIL FROM:<a@b.test>"),
        connected(),
        answered(250),
        command("RSET"),
        answered(250),
        command("STARTTLS"),
        Event::Upgraded,
    ];
    let (mut machine, step) = after(Privacy::Clear, &events);
    assert_eq!(step, Step::Listen);
    assert!(machine.hello().is_none() && machine.identity().is_none());
    assert_eq!(machine.privacy(), Privacy::Encrypted);
    assert_eq!(code(&machine.advance(command("MAIL FROM:<a@b.test>"))), 503);
    // The old connection to the backend is not used again.
    machine.advance(command("EHLO c.test"));
    assert_eq!(
        machine.advance(command("MAIL FROM:<a@b.test>")),
        Step::Connect
    );
}

#[test]
fn verbs_that_end_a_group_end_the_session_when_octets_follow() {
    for line in [
        "EHLO x",
        "HELO x",
        "STARTTLS",
        "DATA",
        "NOOP",
        "VRFY x",
        "EXPN x",
        "AUTH PLAIN",
    ] {
        let parsed = Command::parse(line.as_bytes());
        let (_, step) = after(
            Privacy::Clear,
            &and(transaction(), &[Event::Command(parsed, Behind::Octets)]),
        );
        assert!(ended(&step) && code(&step) == 503, "{line}: {step:?}");
    }
    for line in [
        "MAIL FROM:<a@b.test>",
        "RCPT TO:<y@example.org>",
        "RSET",
        "BDAT 3",
    ] {
        let parsed = Command::parse(line.as_bytes());
        let (_, step) = after(
            Privacy::Clear,
            &and(transaction(), &[Event::Command(parsed, Behind::Octets)]),
        );
        assert!(!ended(&step), "{line}: {step:?}");
    }
}

#[test]
fn over_is_final() {
    let (mut machine, step) = after(Privacy::Clear, &[command("QUIT")]);
    assert!(ended(&step));
    for event in transaction() {
        assert_eq!(machine.advance(event), Step::End(Ending::Gone));
    }
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
fn auth_lines_pass_one_by_one_and_nonsense_is_cancelled() {
    let begun = [
        command("EHLO c.test"),
        command("AUTH LOGIN"),
        connected(),
        answered(334),
    ];
    let (mut machine, step) = after(Privacy::Encrypted, &begun);
    assert!(matches!(step, Step::Challenge(_)));
    let line = |text: &str| Event::AuthLine(AuthLine::parse(text.as_bytes()), Behind::Nothing);
    assert!(matches!(
        machine.advance(line("dQ==")),
        Step::ExchangeAuth(AuthLine::Response(_))
    ));
    assert!(matches!(machine.advance(answered(334)), Step::Challenge(_)));
    assert_eq!(
        machine.advance(line("*")),
        Step::ExchangeAuth(AuthLine::Cancel)
    );
    assert_eq!(code(&machine.advance(answered(501))), 501);

    let (mut machine, _) = after(Privacy::Encrypted, &begun);
    assert_eq!(
        machine.advance(line("no base64!")),
        Step::ExchangeAuth(AuthLine::Cancel)
    );
    assert_eq!(code(&machine.advance(answered(501))), 501);

    let (mut machine, _) = after(Privacy::Encrypted, &begun);
    let mut rounds = 0;
    while let Step::ExchangeAuth(AuthLine::Response(_)) = machine.advance(line("dQ==")) {
        assert!(matches!(machine.advance(answered(334)), Step::Challenge(_)));
        rounds += 1;
        assert!(rounds < 100, "challenges without end");
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
    machine.advance(Event::Opened);
    machine.advance(command("EHLO c.test"));
    assert_eq!(code(&machine.advance(command("MAIL FROM:<a@b.test>"))), 530);
    machine.advance(command("STARTTLS"));
    machine.advance(Event::Upgraded);
    machine.advance(command("EHLO c.test"));
    assert_eq!(code(&machine.advance(command("MAIL FROM:<a@b.test>"))), 530);
    for event in signed_in() {
        machine.advance(event);
    }
    assert!(matches!(
        machine.advance(command("MAIL FROM:<a@b.test>")),
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
fn a_stale_connection_is_replaced_once_and_in_silence() {
    let idle = [
        command("EHLO c.test"),
        command("VRFY x"),
        connected(),
        answered(252),
    ];
    for stale in [Event::Answered(Err(Lost)), answered(421)] {
        let events = and(idle.to_vec(), &[command("MAIL FROM:<a@b.test>"), stale]);
        let (mut machine, step) = after(Privacy::Clear, &events);
        assert_eq!(step, Step::Connect);
        assert!(matches!(
            machine.advance(connected()),
            Step::Exchange(Command::Mail(_))
        ));
        assert_eq!(code(&machine.advance(Event::Answered(Err(Lost)))), 451);
    }
}

#[test]
fn drains_at_rest_only() {
    let (machine, _) = after(Privacy::Clear, &transaction());
    assert!(!machine.at_rest());
    let (mut machine, _) = after(Privacy::Clear, &[command("EHLO c.test")]);
    assert!(machine.at_rest());
    let step = machine.advance(Event::Draining);
    assert!(ended(&step) && code(&step) == 421);
}

fn any_event() -> impl Strategy<Value = Event> {
    let line = prop_oneof![
        Just("EHLO c.test"),
        Just("HELO c.test"),
        Just("STARTTLS"),
        Just("AUTH PLAIN AHUAcA=="),
        Just("AUTH LOGIN"),
        Just("MAIL FROM:<a@b.test>"),
        Just("MAIL FROM:<> BODY=8BITMIME"),
        Just("RCPT TO:<x@example.org>"),
        Just("RCPT TO:<y@example.org>"),
        Just("DATA"),
        Just("BDAT 10"),
        Just("BDAT 10 LAST"),
        Just("BDAT 999"),
        Just("RSET"),
        Just("NOOP"),
        Just("VRFY x"),
        Just("FROB"),
    ];
    let behind = prop_oneof![9 => Just(Behind::Nothing), 1 => Just(Behind::Octets)];
    let codes = prop_oneof![
        4 => Just(250u16), 2 => Just(354), 1 => Just(334), 1 => Just(235), 1 => Just(421), 1 => 200u16..600
    ];
    let moved = prop_oneof![
        4 => codes.clone().prop_map(|code| Moved::Answered(reply(code))),
        1 => codes.clone().prop_map(|code| Moved::Interrupted(reply(code))),
        1 => Just(Moved::Offence(BodyOffence::BareLf)),
        1 => Just(Moved::TooLarge),
        1 => Just(Moved::Lost),
        1 => Just(Moved::TooSlow),
        1 => Just(Moved::Endless),
    ];
    prop_oneof![
        20 => (line, behind).prop_map(|(line, behind)| Event::Command(Command::parse(line.as_bytes()), behind)),
        20 => codes.prop_map(answered),
        2 => Just(Event::Answered(Err(Lost))),
        8 => Just(connected()),
        1 => Just(Event::Connected(Err(Unavailable::Gone))),
        1 => Just(Event::Connected(Err(Unavailable::Refused(reply(550))))),
        8 => Just(Event::Judged(Verdict::Pass)),
        1 => Just(Event::Judged(Verdict::Refuse(Finding::HiddenRoute))),
        8 => moved.prop_map(Event::Moved),
        2 => Just(Event::Upgraded),
        2 => Just(Event::Discarded),
        2 => Just(Event::AuthLine(AuthLine::parse(b"dQ=="), Behind::Nothing)),
        1 => Just(Event::Offence(LineOffence::TooLong)),
        1 => Just(Event::Draining),
    ]
}

/// Whether an event is one that may answer this step. What the loop can do wrong
/// is not the client's to provoke, so such events are left out most of the time.
fn fits(step: &Step, event: &Event) -> bool {
    match step {
        Step::Answer(_) | Step::Listen => matches!(
            event,
            Event::Command(..) | Event::Offence(_) | Event::Draining
        ),
        Step::Challenge(_) => matches!(event, Event::AuthLine(..)),
        Step::Upgrade(_) => matches!(event, Event::Upgraded),
        Step::Judge(..) => matches!(event, Event::Judged(_)),
        Step::Connect => matches!(event, Event::Connected(_)),
        Step::Exchange(_) | Step::ExchangeAuth(_) => matches!(event, Event::Answered(_)),
        Step::RelayBody(_) | Step::RelayChunk(_) => matches!(event, Event::Moved(_)),
        Step::Discard(_) => matches!(event, Event::Discarded),
        Step::End(_) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_events_break_the_invariants(
        events in proptest::collection::vec(any_event(), 0..200),
        encrypted in any::<bool>(),
        strays in any::<bool>(),
    ) {
        let privacy = if encrypted { Privacy::Encrypted } else { Privacy::Clear };
        let mut machine = Machine::new(rules(), privacy);
        let mut step = machine.advance(Event::Opened);
        // A model: what the backend has consented to in this transaction.
        let mut taken: Vec<ForwardPath> = Vec::new();
        for event in events {
            if !strays && !fits(&step, &event) {
                continue;
            }
            let before = std::mem::replace(&mut step, machine.advance(event.clone()));
            if let Step::End(_) = before {
                prop_assert_eq!(&step, &Step::End(Ending::Gone));
                continue;
            }
            // Invariant 4: a word of the backend that is passed on is the one it has
            // just said, and a good one was asked for.
            if let Step::Answer(Answer::Backend(said)) = &step {
                let heard = match &event {
                    Event::Answered(Ok(reply)) | Event::Moved(Moved::Answered(reply) | Moved::Interrupted(reply))
                    | Event::Connected(Err(Unavailable::Refused(reply))) => Some(reply.clone()),
                    _ => None,
                };
                if said.code() < 400 {
                    prop_assert_eq!(heard.as_ref(), Some(said));
                    prop_assert!((200..300).contains(&said.code()));
                    let interrupted = matches!(event, Event::Moved(Moved::Interrupted(_)));
                    prop_assert!(!interrupted);
                }
            }
            if let Step::Answer(Answer::Own(reply)) = &step {
                // Ours are never an acknowledgement of a message.
                let moved = matches!(event, Event::Moved(_));
                prop_assert!(!moved, "own {} after a body", reply.code());
            }
            // Invariant 1.
            if let Step::RelayBody(reply) = &step {
                prop_assert_eq!(reply.code(), 354);
                prop_assert_eq!(&before, &Step::Exchange(Command::Data));
                prop_assert!(!taken.is_empty());
            }
            if let Step::RelayChunk(_) = &step {
                prop_assert!(!taken.is_empty());
            }
            // Invariant 2.
            if let (Step::Exchange(Command::Rcpt(rcpt)), Event::Answered(Ok(reply))) = (&before, &event)
                && (200..300).contains(&reply.code())
            {
                taken.push(rcpt.to.clone());
            }
            match machine.envelope() {
                Some(envelope) => prop_assert_eq!(&envelope.recipients, &taken),
                None => taken.clear(),
            }
            // Invariant 3.
            if let (Step::Upgrade(_), Event::Upgraded) = (&before, &event) {
                prop_assert!(machine.hello().is_none() && machine.identity().is_none());
            }
            // Invariant 5.
            if let Event::Command(Ok(command), Behind::Octets) = &event
                && matches!(command.verb(), Verb::Data | Verb::Ehlo | Verb::StartTls | Verb::Auth | Verb::Noop)
            {
                prop_assert!(ended(&step));
            }
        }
    }
}
