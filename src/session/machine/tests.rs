//! The machine alone: its six invariants one by one, and the tools that the
//! other tests of it are written with.

mod breaks;
mod chunks;
mod events;
mod limits;
mod reports;
mod sign_in;

use super::*;
use crate::policy::{Finding, Verdict};
use crate::smtp::command::Verb;
use crate::smtp::dot::BareNewline;
use crate::smtp::ehlo::Keywords;
use crate::smtp::path::ForwardPath;

fn rules() -> Rules {
    let mut backend = Keywords::new();
    backend.insert("8BITMIME", [""; 0]);
    backend.insert("CHUNKING", [""; 0]);
    backend.insert("AUTH", ["PLAIN", "LOGIN", "XOAUTH2"]);
    Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: Demand::Nothing,
        backend: backend.into(),
        allowed: vec![Verb::Vrfy],
        max_size: 1000,
        recipients_max: 3,
        bodies: Bodies::Relayed,
        recipients_cap: 3,
        junk_max: 100,
        mode: Mode::Enforce,
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
        step = advance(&mut machine, event.clone());
    }
    (machine, step)
}

/// One event, and a yes to what only limits are asked about it.
fn advance(machine: &mut Machine, event: Event) -> Step {
    match machine.advance(event) {
        Step::Judge(Question::Message | Question::SignIn | Question::FailedSignIn) => {
            machine.advance(Event::Judged(Verdict::Pass))
        }
        step => step,
    }
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
    assert_eq!(
        code(&advance(&mut machine, command("MAIL FROM:<a@b.test>"))),
        503
    );
    // The old connection to the backend is not used again.
    advance(&mut machine, command("EHLO c.test"));
    assert_eq!(
        advance(&mut machine, command("MAIL FROM:<a@b.test>")),
        Step::Connect
    );
}

/// RFC 2920 3.1, RFC 3207 4, RFC 4954 4, RFC 3030 4.2.
#[test]
fn verbs_that_end_a_group_end_the_session_when_octets_follow() {
    for (line, ends_group) in [
        ("EHLO x", true),
        ("HELO x", true),
        ("STARTTLS", true),
        ("AUTH PLAIN", true),
        ("DATA", true),
        ("NOOP", true),
        ("VRFY x", true),
        ("EXPN x", true),
        ("MAIL FROM:<a@b.test>", false),
        ("RCPT TO:<y@example.org>", false),
        ("RSET", false),
        ("BDAT 3", false),
        ("ETRN x", false),
        ("HELP", false),
        // Ends everything anyway, whatever follows.
        ("QUIT", false),
    ] {
        for events in [vec![], transaction()[..1].to_vec(), transaction()] {
            let parsed = Command::parse(line.as_bytes());
            let verb = parsed.as_ref().unwrap().verb();
            let events = and(events, &[Event::Command(parsed, Behind::Octets)]);
            let (_, step) = after(Privacy::Clear, &events);
            let offence = end(Refusal::Pipelined(verb));
            assert_eq!(step == offence, ends_group, "{line}: {step:?}");
            assert_eq!(ended(&step), ends_group || line == "QUIT", "{line}");
        }
    }
}

#[test]
fn over_is_final() {
    let (mut machine, step) = after(Privacy::Clear, &[command("QUIT")]);
    assert!(ended(&step));
    for event in transaction() {
        assert_eq!(advance(&mut machine, event), Step::End(Ending::Gone));
    }
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
            advance(&mut machine, connected()),
            Step::Exchange(Command::Mail(_))
        ));
        assert_eq!(
            code(&advance(&mut machine, Event::Answered(Err(Lost)))),
            451
        );
    }
}

/// A backend waits five minutes for DATA (RFC 5321 4.5.3.2.7); a body may take longer.
#[test]
fn a_body_that_passed_outlives_the_connection_that_took_its_envelope() {
    let kept = [
        command("RCPT TO:<y@example.org>"),
        Event::Judged(Verdict::Pass),
        answered(250),
        command("DATA"),
        Event::Spooled(Spooled::Kept),
        Event::Weighed(Weighed::Pass),
    ];
    for stale in [Event::Answered(Err(Lost)), answered(421)] {
        let rules = Rules {
            bodies: Bodies::Judged,
            ..rules()
        };
        let mut machine = Machine::new(rules, Privacy::Clear);
        machine.advance(Event::Opened);
        let mut step = Step::Listen;
        for event in and(and(transaction(), &kept), &[stale, connected()]) {
            step = advance(&mut machine, event);
        }
        let mut said = Vec::new();
        while let Step::Exchange(command) = &step {
            said.push(command.to_string());
            let code = if *command == Command::Data { 354 } else { 250 };
            step = advance(&mut machine, answered(code));
        }
        let envelope = "MAIL FROM:<a@b.test> RCPT TO:<x@example.org> RCPT TO:<y@example.org>";
        assert_eq!(said.join(" "), format!("{envelope} DATA"));
        assert_eq!(step, Step::DeliverBody);
    }
}

#[test]
fn drains_at_rest_only() {
    let (machine, _) = after(Privacy::Clear, &transaction());
    assert!(!machine.at_rest());
    let (mut machine, _) = after(Privacy::Clear, &[command("EHLO c.test")]);
    assert!(machine.at_rest());
    let step = advance(&mut machine, Event::Draining);
    assert!(ended(&step) && code(&step) == 421);
}
