//! Random events, held against a model of what the backend has consented to.

use proptest::prelude::*;

use super::*;
use crate::smtp::command::AuthLine;
use crate::smtp::dot::BodyOffence;

fn any_command() -> impl Strategy<Value = Event> {
    let line = prop_oneof![
        Just("EHLO c.test"),
        Just("EHLO d.test"),
        Just("HELO c.test"),
        Just("STARTTLS"),
        Just("AUTH PLAIN AHUAcA=="),
        Just("AUTH LOGIN"),
        Just("AUTH GSSAPI"),
        Just("MAIL FROM:<a@b.test>"),
        Just("MAIL FROM:<> BODY=8BITMIME"),
        Just("RCPT TO:<x@example.org>"),
        Just("RCPT TO:<y@example.org>"),
        Just("RCPT TO:<@r.test:z@example.org>"),
        Just("DATA"),
        Just("BDAT 10"),
        Just("BDAT 10 LAST"),
        Just("BDAT 999"),
        Just("BDAT 5000"),
        Just("RSET"),
        Just("NOOP"),
        Just("VRFY x"),
        Just("EXPN x"),
        Just("QUIT"),
        Just("FROB"),
        Just("MAIL FROM:a@b"),
        Just("GET / HTTP/1.1"),
    ];
    let behind = prop_oneof![29 => Just(Behind::Nothing), 1 => Just(Behind::Octets)];
    (line, behind)
        .prop_map(|(line, behind)| Event::Command(Command::parse(line.as_bytes()), behind))
}

fn content() -> Refusal {
    Refusal::Content {
        finding: "spam",
        reply: reply(550),
    }
}

/// What a client would do that wants its mail delivered: random commands alone
/// seldom get as far as a body.
fn sensible_command() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(command("EHLO c.test")),
        1 => Just(command("AUTH PLAIN AHUAcA==")),
        1 => Just(command("AUTH LOGIN")),
        3 => Just(command("MAIL FROM:<a@b.test>")),
        3 => Just(command("RCPT TO:<x@example.org>")),
        2 => Just(command("DATA")),
        2 => Just(command("BDAT 10")),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let codes = prop_oneof![
        6 => Just(250u16),
        2 => Just(354),
        1 => Just(334),
        2 => Just(235),
        1 => Just(421),
        2 => 200u16..600,
    ];
    let moved = prop_oneof![
        6 => codes.clone().prop_map(|code| Moved::Answered(reply(code))),
        1 => codes.clone().prop_map(|code| Moved::Interrupted(reply(code))),
        1 => Just(Moved::Offence(BodyOffence::BareLf)),
        1 => Just(Moved::TooLarge),
        1 => Just(Moved::Lost),
        1 => Just(Moved::TooSlow),
        1 => Just(Moved::Endless),
        1 => Just(Moved::Gone),
        1 => Just(Moved::GoneFrom(BodyOffence::BareLf)),
    ];
    let spooled = prop_oneof![
        6 => Just(Spooled::Kept),
        1 => Just(Spooled::Offence(BodyOffence::BareLf)),
        1 => Just(Spooled::TooLarge),
        1 => Just(Spooled::NoRoom),
        1 => Just(Spooled::Endless),
        1 => Just(Spooled::TooSlow),
        1 => Just(Spooled::Gone),
        1 => Just(Spooled::GoneFrom(BodyOffence::BareLf)),
    ];
    let relogin = prop_oneof![Just(Relogin::Possible), Just(Relogin::Impossible)];
    let opened = relogin.prop_map(|relogin| {
        let keywords = rules().backend;
        Event::Connected(Ok(Link { keywords, relogin }))
    });
    let auth_line = prop_oneof![Just("dQ=="), Just("*"), Just("no base64!")];
    let offence = prop_oneof![
        Just(LineOffence::TooLong),
        Just(LineOffence::BareLf),
        Just(LineOffence::TlsHello)
    ];
    prop_oneof![
        10 => any_command(),
        30 => sensible_command(),
        20 => codes.clone().prop_map(answered),
        1 => Just(Event::Answered(Err(Lost))),
        8 => opened,
        1 => Just(Event::Connected(Err(Unavailable::Gone))),
        1 => Just(Event::Connected(Err(Unavailable::Tls))),
        1 => Just(Event::Connected(Err(Unavailable::Busy))),
        1 => codes.prop_map(|code| Event::Connected(Err(Unavailable::Refused(reply(code))))),
        8 => Just(Event::Judged(Verdict::Pass)),
        1 => Just(Event::Judged(Verdict::Refuse(Finding::HiddenRoute))),
        8 => moved.prop_map(Event::Moved),
        8 => spooled.prop_map(Event::Spooled),
        4 => Just(Event::Weighed(Weighed::Pass)),
        2 => Just(Event::Weighed(Weighed::Refuse(content()))),
        2 => Just(Event::Upgraded),
        2 => Just(Event::Discarded),
        8 => auth_line.prop_map(|line| Event::AuthLine(AuthLine::parse(line.as_bytes()), Behind::Nothing)),
        1 => offence.prop_map(Event::Offence),
        1 => prop_oneof![Just(Event::Draining), Just(Event::SpokeFirst), Just(Event::MustLeave), Just(Event::TimedOut), Just(Event::Gone), Just(Event::Opened)],
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
        Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody => {
            matches!(event, Event::Moved(_))
        }
        Step::SpoolBody(_) | Step::SpoolChunk(_) => matches!(event, Event::Spooled(_)),
        Step::Weigh => matches!(event, Event::Weighed(_)),
        Step::Discard(_) => matches!(event, Event::Discarded),
        Step::End(_) => true,
    }
}

/// What a backend that takes everything would answer; the client is to speak
/// where there is none.
fn consent_to(step: &Step) -> Option<Event> {
    match step {
        Step::Answer(_) | Step::Listen | Step::Challenge(_) | Step::End(_) => None,
        Step::Upgrade(_) => Some(Event::Upgraded),
        Step::Judge(..) => Some(Event::Judged(Verdict::Pass)),
        Step::Connect => Some(connected()),
        Step::Exchange(Command::Data) => Some(answered(354)),
        Step::Exchange(Command::Auth(auth)) if auth.initial.is_none() => Some(answered(334)),
        Step::ExchangeAuth(AuthLine::Cancel) => Some(answered(501)),
        Step::Exchange(Command::Auth(_)) | Step::ExchangeAuth(_) => Some(answered(235)),
        Step::Exchange(_) => Some(answered(250)),
        Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody => {
            Some(Event::Moved(Moved::Answered(reply(250))))
        }
        Step::SpoolBody(_) | Step::SpoolChunk(_) => Some(Event::Spooled(Spooled::Kept)),
        Step::Weigh => Some(Event::Weighed(Weighed::Pass)),
        Step::Discard(_) => Some(Event::Discarded),
    }
}

/// Random events alone end a session before it comes to a body: mostly the
/// backend consents, and the client may err more often.
fn run(
    events: &[(Event, bool)],
    (privacy, bodies): (Privacy, Bodies),
    strays: bool,
    mut on: impl FnMut(&mut Machine, &Step, &Event) -> Result<Step, TestCaseError>,
) -> Result<(), TestCaseError> {
    let rules = Rules {
        errors_max: 30,
        bodies,
        ..rules()
    };
    let mut machine = Machine::new(rules, privacy);
    let mut step = machine.advance(Event::Opened);
    for (event, consents) in events {
        let event = match consent_to(&step) {
            Some(consent) if *consents => consent,
            _ => event.clone(),
        };
        if strays || fits(&step, &event) {
            step = on(&mut machine, &step, &event)?;
        }
    }
    Ok(())
}

fn any_events() -> impl Strategy<Value = Vec<(Event, bool)>> {
    proptest::collection::vec((any_event(), prop::bool::weighted(0.8)), 0..200)
}

/// Whether the step before asked the backend for this very good reply.
fn asked_for(before: &Step, event: &Event, code: u16) -> bool {
    match (before, event) {
        (Step::Exchange(Command::Auth(_)), Event::Answered(_)) => code == 235,
        (Step::ExchangeAuth(line), Event::Answered(_)) => code == 235 && *line != AuthLine::Cancel,
        (Step::Exchange(command), Event::Answered(_)) => matches!(
            command,
            Command::Mail(_) | Command::Rcpt(_) | Command::Vrfy(_)
        ),
        (
            Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody,
            Event::Moved(Moved::Answered(_)),
        ) => true,
        _ => false,
    }
}

/// The reply of the backend that an event carries.
fn heard(event: &Event) -> Option<&Reply> {
    match event {
        Event::Answered(Ok(reply))
        | Event::Moved(Moved::Answered(reply) | Moved::Interrupted(reply))
        | Event::Connected(Err(Unavailable::Refused(reply))) => Some(reply),
        _ => None,
    }
}

/// Names and order of hosts on the way are no part of who it is for.
fn mailboxes(paths: &[ForwardPath]) -> Vec<String> {
    let mailbox = |path: &ForwardPath| path.mailbox().map(ToString::to_string);
    paths.iter().filter_map(mailbox).collect()
}

/// What the backend has consented to in the open transaction.
#[derive(Default)]
struct Consent {
    recipients: Vec<ForwardPath>,
    octets: u64,
    /// The body that is kept has passed.
    passed: bool,
    /// Recipients that the connection in the place of a lost one has taken.
    again: Option<Vec<ForwardPath>>,
}

/// Feeds one event and holds what comes of it against the model.
fn advance(
    machine: &mut Machine,
    consent: &mut Consent,
    before: &Step,
    event: &Event,
) -> Result<Step, TestCaseError> {
    let step = machine.advance(event.clone());
    // Invariant 6.
    if let Step::End(_) = before {
        prop_assert_eq!(&step, &Step::End(Ending::Gone));
        return Ok(step);
    }
    // Invariant 4: a good word of the backend is the one it has just said, and
    // it was asked for; ours never acknowledge a message.
    match &step {
        Step::Answer(Answer::Backend(said)) if said.code() < 400 => {
            prop_assert_eq!(heard(event), Some(said));
            prop_assert!((200..300).contains(&said.code()), "{}", said.code());
            prop_assert!(asked_for(before, event, said.code()), "{:?}", before);
        }
        Step::End(Ending::Said(Answer::Backend(said))) => prop_assert!(said.code() >= 400),
        Step::Answer(Answer::Own(reply)) => {
            prop_assert!(
                !matches!(event, Event::Moved(_) | Event::Weighed(_)),
                "own {} after a body",
                reply.code()
            );
        }
        Step::Answer(Answer::Refused(refusal)) => prop_assert!(refusal.reply().code() >= 400),
        Step::Challenge(reply) => {
            prop_assert_eq!(heard(event), Some(reply));
            prop_assert_eq!(reply.code(), 334);
            prop_assert!(matches!(
                before,
                Step::Exchange(Command::Auth(_)) | Step::ExchangeAuth(_)
            ));
        }
        // Invariant 1.
        Step::RelayBody(reply) => {
            prop_assert_eq!(heard(event), Some(reply));
            prop_assert_eq!(reply.code(), 354);
            prop_assert_eq!(before, &Step::Exchange(Command::Data));
            prop_assert!(!consent.recipients.is_empty());
            prop_assert_eq!(consent.octets, 0);
        }
        Step::Exchange(Command::Data) if matches!(before, Step::Weigh) => {
            prop_assert!(matches!(event, Event::Weighed(Weighed::Pass)));
        }
        // Another connection: only with the whole envelope.
        Step::Exchange(Command::Data) if consent.passed => {
            let mut told = consent.again.clone().unwrap_or_default();
            if let Step::Exchange(Command::Rcpt(rcpt)) = before {
                told.push(rcpt.to.clone());
            }
            prop_assert_eq!(heard(event).map(Reply::is_positive_completion), Some(true));
            prop_assert_eq!(mailboxes(&told), mailboxes(&consent.recipients));
        }
        Step::DeliverBody => {
            prop_assert!(consent.passed, "delivered without a verdict");
            prop_assert_eq!(heard(event).map(Reply::code), Some(354));
            prop_assert!(!consent.recipients.is_empty());
        }
        Step::SpoolChunk(bdat) => {
            prop_assert!(!consent.recipients.is_empty());
            prop_assert!(consent.octets + bdat.size <= rules().max_size);
        }
        Step::RelayChunk(bdat) => {
            prop_assert!(!consent.recipients.is_empty());
            prop_assert!(consent.octets + bdat.size <= rules().max_size);
        }
        _ => {}
    }
    // Invariant 2.
    let done = heard(event).is_some_and(Reply::is_positive_completion);
    match (before, event) {
        (Step::Exchange(Command::Rcpt(rcpt)), Event::Answered(_)) if done => {
            let taken = consent.again.as_mut().unwrap_or(&mut consent.recipients);
            taken.push(rcpt.to.clone());
        }
        (Step::Connect, Event::Connected(Ok(_))) if consent.passed => {
            consent.again = Some(Vec::new());
        }
        (Step::RelayChunk(bdat), Event::Moved(Moved::Answered(_))) if done => {
            consent.octets += bdat.size;
        }
        (Step::SpoolChunk(bdat), Event::Spooled(Spooled::Kept)) if !bdat.last => {
            consent.octets += bdat.size;
        }
        (Step::Weigh, Event::Weighed(verdict)) => {
            consent.passed = *verdict == Weighed::Pass;
            prop_assert!(
                consent.passed
                    || !matches!(step, Step::Exchange(Command::Data) | Step::DeliverBody)
            );
        }
        _ => {}
    }
    match machine.envelope() {
        Some(envelope) => {
            prop_assert_eq!(
                mailboxes(&envelope.recipients),
                mailboxes(&consent.recipients)
            );
            prop_assert_eq!(machine.octets(), consent.octets);
            prop_assert!(!machine.at_rest());
        }
        None => *consent = Consent::default(),
    }
    // Invariant 3.
    if let (Step::Upgrade(_), Event::Upgraded) = (before, event) {
        prop_assert!(machine.hello().is_none() && machine.identity().is_none());
        prop_assert!(machine.envelope().is_none());
        prop_assert_eq!(machine.privacy(), Privacy::Encrypted);
    }
    // Invariant 5.
    if let Event::Command(Ok(command), Behind::Octets) = event
        && matches!(
            command.verb(),
            Verb::Data
                | Verb::Ehlo
                | Verb::Helo
                | Verb::StartTls
                | Verb::Auth
                | Verb::Noop
                | Verb::Vrfy
                | Verb::Expn
        )
    {
        prop_assert!(ended(&step));
    }
    // Nobody is signed in outside TLS, or without a 235.
    if machine.identity().is_some() {
        prop_assert_eq!(machine.privacy(), Privacy::Encrypted);
    }
    Ok(step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_events_break_the_invariants(
        events in any_events(),
        encrypted in any::<bool>(),
        judged in any::<bool>(),
        strays in prop::bool::weighted(0.2),
    ) {
        let bodies = if judged { Bodies::Judged } else { Bodies::Relayed };
        let privacy = if encrypted { Privacy::Encrypted } else { Privacy::Clear };
        let mut consent = Consent::default();
        run(&events, (privacy, bodies), strays, |machine, before, event| {
            advance(machine, &mut consent, before, event)
        })?;
    }
}

/// The test above is only worth something if its events get everywhere.
#[test]
fn random_events_reach_every_step() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;

    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    for nth in 0..2000 {
        let events = any_events().new_tree(&mut runner).unwrap().current();
        let privacy = match nth % 2 {
            0 => Privacy::Clear,
            _ => Privacy::Encrypted,
        };
        let bodies = match nth / 1000 {
            0 => Bodies::Relayed,
            _ => Bodies::Judged,
        };
        run(
            &events,
            (privacy, bodies),
            false,
            |machine, before, event| {
                let step = machine.advance(event.clone());
                let name = match &step {
                    Step::Answer(Answer::Backend(said)) if said.is_positive_completion() => {
                        match before {
                            Step::RelayBody(_) => "message taken",
                            Step::RelayChunk(_) => "chunk taken",
                            Step::DeliverBody => "kept message taken",
                            _ => "command taken",
                        }
                    }
                    Step::Answer(_) => "answer",
                    Step::Listen => "listen",
                    Step::Challenge(_) => "challenge",
                    Step::Upgrade(_) => "upgrade",
                    Step::Judge(..) => "judge",
                    Step::Connect => "connect",
                    Step::Exchange(Command::Rset) => "clear",
                    Step::Exchange(_) => "exchange",
                    Step::ExchangeAuth(AuthLine::Cancel) => "cancel",
                    Step::ExchangeAuth(_) => "exchange auth",
                    Step::RelayBody(_) => "relay body",
                    Step::RelayChunk(_) => "relay chunk",
                    Step::SpoolBody(_) => "spool body",
                    Step::SpoolChunk(_) => "spool chunk",
                    Step::Weigh => "weigh",
                    Step::DeliverBody => "deliver",
                    Step::Discard(_) => "discard",
                    Step::End(_) => "end",
                };
                *reached.entry(name).or_default() += 1;
                Ok(step)
            },
        )
        .unwrap();
    }
    assert_eq!(reached.len(), 22, "{reached:?}");
    assert!(reached.values().all(|count| *count >= 5), "{reached:?}");
}
