//! The session machine under any events: its six invariants, held against a
//! small model of what the backend has consented to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::policy::{Finding, Mode, Verdict};
use portcullis::session::machine::*;
use portcullis::session::refusal::Refusal;
use portcullis::smtp::command::{AuthLine, Command, CommandError, Verb};
use portcullis::smtp::dot::{BareNewline, BodyOffence};
use portcullis::smtp::ehlo::Keywords;
use portcullis::smtp::line::LineOffence;
use portcullis::smtp::path::ForwardPath;
use portcullis::smtp::reply::Reply;
use portcullis_fuzz::{take_octet, take_text};

const LINES: [&str; 30] = [
    "EHLO c.test",
    "MAIL FROM:<a@b.test>",
    "RCPT TO:<x@example.org>",
    "DATA",
    "BDAT 10",
    "BDAT 10 LAST",
    "RSET",
    "AUTH PLAIN AHUAcA==",
    "AUTH LOGIN",
    "STARTTLS",
    "HELO d.test",
    "MAIL FROM:<> BODY=8BITMIME SIZE=10 AUTH=<>",
    "MAIL FROM:<ä@b.test> SMTPUTF8",
    "MAIL FROM:<a@b.test> RET=FULL ENVID=x",
    "MAIL FROM:<a@b.test> SIZE=9999",
    "RCPT TO:<y@example.org> NOTIFY=NEVER",
    "RCPT TO:<@r.test:z@example.org>",
    "RCPT TO:<Postmaster>",
    "BDAT 0",
    "BDAT 0 LAST",
    "BDAT 995",
    "BDAT 18446744073709551615 LAST",
    "NOOP",
    "VRFY x",
    "EXPN x",
    "HELP",
    "AUTH EXTERNAL",
    "QUIT",
    "GET / HTTP/1.1",
    "XCLIENT ADDR=192.0.2.1",
];

const CODES: [u16; 16] = [
    250, 250, 250, 354, 235, 334, 421, 450, 500, 501, 550, 554, 221, 251, 299, 399,
];

fn keywords(steer: u8) -> Keywords {
    let mut keywords = Keywords::new();
    for (bit, keyword) in ["8BITMIME", "CHUNKING", "SMTPUTF8", "DSN", "SIZE"]
        .iter()
        .enumerate()
    {
        if steer >> bit & 1 == 0 {
            keywords.insert(keyword, [""; 0]);
        }
    }
    if steer & 32 == 0 {
        keywords.insert("AUTH", ["PLAIN", "LOGIN"]);
    }
    keywords
}

fn rules(steer: u8, backend: u8) -> Rules {
    Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: [
            Demand::Nothing,
            Demand::Nothing,
            Demand::Tls,
            Demand::TlsAndAuth,
        ][usize::from(steer & 3)],
        backend: keywords(backend),
        allowed: vec![Verb::Vrfy],
        max_size: 1000,
        recipients_max: 3,
        recipients_cap: 3,
        errors_max: 30,
        junk_max: 100,
        mode: if steer & 4 == 0 {
            Mode::Enforce
        } else {
            Mode::Monitor
        },
        newline: if steer & 8 == 0 {
            BareNewline::Reject
        } else {
            BareNewline::Normalize
        },
        bodies: if steer & 16 == 0 {
            Bodies::Relayed
        } else {
            Bodies::Judged
        },
    }
}

fn reply(code: u16) -> Reply {
    Reply::new(code, None, "backend says")
}

/// What a backend, scanners and limits that mind nothing would answer; the
/// client is to speak where there is none.
fn consent(step: &Step) -> Option<Event> {
    Some(match step {
        Step::Answer(_) | Step::Listen | Step::Challenge(_) | Step::End(_) => return None,
        Step::Upgrade(_) => Event::Upgraded,
        Step::Judge(_) => Event::Judged(Verdict::Pass),
        Step::Connect => Event::Connected(Ok(Link {
            keywords: keywords(0),
            relogin: Relogin::Impossible,
        })),
        Step::Exchange(Command::Data) => Event::Answered(Ok(reply(354))),
        Step::Exchange(Command::Auth(auth)) if auth.initial.is_none() => {
            Event::Answered(Ok(reply(334)))
        }
        Step::ExchangeAuth(AuthLine::Cancel) => Event::Answered(Ok(reply(501))),
        Step::Exchange(Command::Auth(_)) | Step::ExchangeAuth(_) => Event::Answered(Ok(reply(235))),
        Step::Exchange(_) => Event::Answered(Ok(reply(250))),
        Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody => {
            Event::Moved(Moved::Answered(reply(250)))
        }
        Step::SpoolBody(_) | Step::SpoolChunk(_) => Event::Spooled(Spooled::Kept),
        Step::Weigh => Event::Weighed(Weighed::Pass),
        Step::Discard(_) => Event::Discarded,
    })
}

/// Any event that may answer the step, as the loop gives it.
fn fitting(step: &Step, data: &mut &[u8]) -> Event {
    let choice = take_octet(data);
    let code = CODES[usize::from(choice % 16)];
    match step {
        Step::Answer(_) | Step::Listen => return client_event(choice, data),
        Step::Challenge(_) => {
            let behind = if choice & 0x70 == 0x70 {
                Behind::Octets
            } else {
                Behind::Nothing
            };
            let line: &[u8] = match choice % 4 {
                0 => b"dQ==",
                1 => b"*",
                2 => b"no base64!",
                _ => take_text(data),
            };
            return Event::AuthLine(AuthLine::parse(line), behind);
        }
        Step::Connect => Event::Connected(match choice % 8 {
            0 => Err(Unavailable::Gone),
            1 => Err(Unavailable::Tls),
            2 => Err(Unavailable::Refused(reply(code))),
            3 => Ok(Link {
                keywords: Keywords::new(),
                relogin: Relogin::Impossible,
            }),
            other => Ok(Link {
                keywords: keywords(take_octet(data)),
                relogin: if other < 6 {
                    Relogin::Possible
                } else {
                    Relogin::Impossible
                },
            }),
        }),
        Step::Judge(_) => Event::Judged(match choice % 2 {
            0 => Verdict::Pass,
            _ => Verdict::Refuse(Finding::HiddenRoute),
        }),
        Step::Exchange(_) | Step::ExchangeAuth(_) => Event::Answered(match choice {
            255 => Err(Lost),
            _ => Ok(reply(code)),
        }),
        Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody => {
            Event::Moved(match choice / 16 {
                0 => Moved::Offence(BodyOffence::BareLf),
                1 => Moved::TooLarge,
                2 => Moved::Endless,
                3 => Moved::Interrupted(reply(code)),
                4 => Moved::Lost,
                5 => Moved::TooSlow,
                6 => Moved::Gone,
                _ => Moved::Answered(reply(code)),
            })
        }
        Step::SpoolBody(_) | Step::SpoolChunk(_) => Event::Spooled(match choice % 8 {
            0 => Spooled::Offence(BodyOffence::Nul),
            1 => Spooled::TooLarge,
            2 => Spooled::NoRoom,
            3 => Spooled::Endless,
            4 => Spooled::TooSlow,
            5 => Spooled::Gone,
            _ => Spooled::Kept,
        }),
        Step::Weigh => Event::Weighed(match choice % 2 {
            0 => Weighed::Pass,
            _ => Weighed::Refuse(Refusal::Content {
                finding: "spam",
                reply: reply(550),
            }),
        }),
        Step::Upgrade(_) => Event::Upgraded,
        Step::Discard(_) | Step::End(_) => Event::Discarded,
    }
}

fn client_event(choice: u8, data: &mut &[u8]) -> Event {
    let behind = if choice & 0xc0 == 0xc0 {
        Behind::Octets
    } else {
        Behind::Nothing
    };
    match choice % 64 {
        at @ 0..30 => Event::Command(Command::parse(LINES[usize::from(at)].as_bytes()), behind),
        60 => Event::Offence(LineOffence::TooLong),
        61 => Event::Offence(LineOffence::BareLf),
        62 => Event::Draining,
        63 => Event::Command(Err(CommandError::ForbiddenVerb), behind),
        _ => Event::Command(Command::parse(take_text(data)), behind),
    }
}

/// An event that comes whenever it likes, or that the loop should not give.
fn stray(data: &mut &[u8]) -> Event {
    match take_octet(data) % 8 {
        0 => Event::TimedOut,
        1 => Event::MustLeave,
        2 => Event::Gone,
        3 => Event::Draining,
        4 => Event::Opened,
        5 => Event::SpokeFirst,
        6 => Event::Answered(Ok(reply(250))),
        _ => Event::Moved(Moved::Answered(reply(250))),
    }
}

/// What the backend has consented to in the open transaction.
#[derive(Default)]
struct Consented {
    sender: Option<String>,
    recipients: Vec<ForwardPath>,
    octets: u64,
    /// The body that is kept has passed.
    passed: bool,
}

fn heard(event: &Event) -> Option<&Reply> {
    match event {
        Event::Answered(Ok(reply))
        | Event::Moved(Moved::Answered(reply) | Moved::Interrupted(reply))
        | Event::Connected(Err(Unavailable::Refused(reply))) => Some(reply),
        _ => None,
    }
}

/// Whether a good reply of the backend was asked for in the client's name.
fn asked_for(before: &Step, event: &Event, code: u16) -> bool {
    match (before, event) {
        (Step::Exchange(Command::Auth(_)), Event::Answered(_)) => code == 235,
        (Step::ExchangeAuth(line), Event::Answered(_)) => code == 235 && *line != AuthLine::Cancel,
        (Step::Exchange(command), Event::Answered(_)) => {
            matches!(
                command,
                Command::Mail(_) | Command::Rcpt(_) | Command::Vrfy(_)
            )
        }
        (step, Event::Moved(Moved::Answered(_))) => {
            matches!(
                step,
                Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody
            )
        }
        _ => false,
    }
}

fn mailboxes(paths: &[ForwardPath]) -> Vec<String> {
    let mailbox = |path: &ForwardPath| path.mailbox().map(ToString::to_string);
    paths.iter().filter_map(mailbox).collect()
}

/// Invariants 1 and 4: what the machine says and lets through.
fn check_step(before: &Step, event: &Event, step: &Step, consented: &Consented) {
    match step {
        Step::Answer(Answer::Backend(said)) if said.code() < 400 => {
            assert_eq!(heard(event), Some(said));
            assert!((200..300).contains(&said.code()));
            assert!(
                asked_for(before, event, said.code()),
                "{said:?} to {before:?}"
            );
        }
        Step::End(Ending::Said(Answer::Backend(said))) => assert!(said.code() >= 400),
        // Ours never acknowledge a message; a chunk that is kept they do.
        Step::Answer(Answer::Own(_)) => {
            assert!(!matches!(event, Event::Moved(_) | Event::Weighed(_)));
            if matches!(event, Event::Spooled(_)) {
                assert!(matches!(before, Step::SpoolChunk(bdat) if !bdat.last));
            }
        }
        Step::Answer(Answer::Refused(refusal)) => assert!(refusal.reply().code() >= 400),
        Step::Challenge(said) => {
            assert_eq!((heard(event), said.code()), (Some(said), 334));
            assert!(matches!(
                before,
                Step::Exchange(Command::Auth(_)) | Step::ExchangeAuth(_)
            ));
        }
        Step::RelayBody(said) => {
            assert_eq!((heard(event), said.code()), (Some(said), 354));
            assert_eq!(before, &Step::Exchange(Command::Data));
            assert!(!consented.recipients.is_empty() && consented.octets == 0);
        }
        Step::SpoolBody(_) => {
            assert!(!consented.recipients.is_empty() && consented.octets == 0);
        }
        Step::RelayChunk(bdat) | Step::SpoolChunk(bdat) => {
            assert!(!consented.recipients.is_empty());
            assert!(consented.octets.saturating_add(bdat.size) <= 1000);
        }
        Step::DeliverBody => {
            assert!(consented.passed && !consented.recipients.is_empty());
            assert_eq!(heard(event).map(Reply::code), Some(354));
        }
        _ => {}
    }
}

/// Invariant 2: what the backend has taken.
fn listen(before: &Step, event: &Event, step: &Step, consented: &mut Consented) {
    let done = heard(event).is_some_and(Reply::is_positive_completion);
    match (before, event) {
        (Step::Exchange(Command::Mail(mail)), Event::Answered(_)) if done => {
            consented.sender = Some(mail.from.to_string());
        }
        (Step::Exchange(Command::Rcpt(rcpt)), Event::Answered(_)) if done => {
            consented.recipients.push(rcpt.to.clone());
        }
        (Step::RelayChunk(bdat), Event::Moved(Moved::Answered(_))) if done => {
            consented.octets += bdat.size;
        }
        (Step::SpoolChunk(bdat), Event::Spooled(Spooled::Kept)) if !bdat.last => {
            consented.octets += bdat.size;
        }
        (Step::Weigh, Event::Weighed(verdict)) => {
            consented.passed = *verdict == Weighed::Pass;
            let delivers = matches!(step, Step::Exchange(Command::Data) | Step::DeliverBody);
            assert!(consented.passed || !delivers);
        }
        _ => {}
    }
}

/// Verbs behind which a client must wait (RFC 2920 3.1).
fn must_wait(verb: Verb) -> bool {
    use Verb::{Auth, Data, Ehlo, Expn, Helo, Noop, StartTls, Vrfy};
    matches!(
        verb,
        Data | Ehlo | Helo | StartTls | Auth | Noop | Vrfy | Expn
    )
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (steer, backend) = (take_octet(&mut data), take_octet(&mut data));
    let privacy = if steer & 32 == 0 {
        Privacy::Encrypted
    } else {
        Privacy::Clear
    };
    let mut machine = Machine::new(rules(steer, backend), privacy);
    let mut consented = Consented::default();
    let mut before = machine.advance(Event::Opened);
    while !data.is_empty() {
        let event = match (take_octet(&mut data), consent(&before)) {
            (0..200, Some(consent)) => consent,
            (254.., _) => stray(&mut data),
            _ => fitting(&before, &mut data),
        };
        let idle = matches!(before, Step::Answer(_) | Step::Listen);
        let step = machine.advance(event.clone());
        if let Step::End(_) = before {
            assert_eq!(step, Step::End(Ending::Gone), "invariant 6");
            break;
        }
        check_step(&before, &event, &step, &consented);
        listen(&before, &event, &step, &mut consented);
        match machine.envelope() {
            Some(envelope) => {
                assert_eq!(Some(envelope.from().to_string()), consented.sender);
                assert_eq!(
                    mailboxes(&envelope.recipients),
                    mailboxes(&consented.recipients)
                );
                assert_eq!(machine.octets(), consented.octets);
                assert!(!machine.at_rest());
            }
            None => consented = Consented::default(),
        }
        if let (Step::Upgrade(_), Event::Upgraded) = (&before, &event) {
            let kept = machine.hello().is_some() || machine.identity().is_some();
            assert!(!kept && machine.envelope().is_none(), "invariant 3");
            assert_eq!(machine.privacy(), Privacy::Encrypted);
        }
        if let Event::Command(Ok(command), Behind::Octets) = &event
            && idle
            && must_wait(command.verb())
        {
            assert!(matches!(step, Step::End(_)), "invariant 5");
        }
        if machine.identity().is_some() {
            assert_eq!(machine.privacy(), Privacy::Encrypted);
        }
        before = step;
    }
});
