//! What may happen to a session: for every step the events that may answer it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use portcullis::policy::{self, Finding, Limit, Mode, Stage, Verdict};
use portcullis::session::machine::*;
use portcullis::session::refusal::Refusal;
use portcullis::settings::Value;
use portcullis::smtp::command::{AuthLine, Command, CommandError, Verb};
use portcullis::smtp::dot::{BareNewline, BodyOffence};
use portcullis::smtp::ehlo::Keywords;
use portcullis::smtp::line::LineOffence;
use portcullis::smtp::reply::Reply;

use crate::{take_octet, take_text};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

const LINES: [&str; 40] = [
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
    "RCPT TO:<x@foreign.test>",
    "RCPT TO:<x%foreign.test@example.org>",
    "RCPT TO:<foreign.test!x@example.org>",
    "RCPT TO:<\"x@foreign.test\"@example.org>",
    "RCPT TO:<\u{fc}@example.org> ORCPT=rfc822;u@example.org",
    "MAIL FROM:<a@b.test> BODY=7BIT AUTH=a@b.test",
    "MAIL FROM:<a@b.test> BODY=BINARYMIME",
    "MAIL FROM:<a@b.test> REQUIRETLS",
    "EHLO d.test",
    "RCPT TO:<x@sub.example.org>",
];

const CODES: [u16; 16] = [
    250, 250, 250, 354, 235, 334, 421, 450, 500, 501, 550, 554, 221, 251, 299, 399,
];

/// The relay guard of `DOMAINS=example.org`.
static GUARD: LazyLock<policy::Settings> = LazyLock::new(|| policy::Settings {
    domains: Value::parse("example.org").unwrap(),
    ..policy::Settings::default()
});

fn keywords(steer: u8) -> Arc<Keywords> {
    let mut keywords = Keywords::new();
    let plain = ["8BITMIME", "CHUNKING", "SMTPUTF8", "DSN", "SIZE"];
    for (bit, keyword) in plain.iter().enumerate() {
        if steer >> bit & 1 == 0 {
            keywords.insert(keyword, [""; 0]);
        }
    }
    if steer & 32 == 0 {
        keywords.insert("AUTH", ["PLAIN", "LOGIN"]);
    }
    if steer & 64 == 0 {
        keywords.insert("REQUIRETLS", [""; 0]);
    }
    keywords.into()
}

/// A bit for each setting that changes what the machine does.
pub fn rules(steer: u8, backend: u8) -> Rules {
    let demands = [
        Demand::Nothing,
        Demand::Nothing,
        Demand::Tls,
        Demand::TlsAndAuth,
    ];
    Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: demands[usize::from(steer & 3)],
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

/// What policy says, and limits that mind nothing.
pub fn verdict(question: &Question) -> Verdict {
    match question {
        Question::Recipient(standing, recipient) => policy::judge(
            &GUARD,
            &Stage::Recipient {
                client: Some(CLIENT),
                standing: *standing,
                recipient,
            },
        ),
        Question::Message | Question::SignIn | Question::FailedSignIn => Verdict::Pass,
    }
}

/// What a backend, scanners and limits that mind nothing would answer; the
/// client is to speak where there is none.
pub fn consent(step: &Step) -> Option<Event> {
    Some(match step {
        Step::Answer(_) | Step::Listen | Step::Challenge(_) | Step::End(_) => return None,
        Step::Upgrade(_) => Event::Upgraded,
        Step::Judge(question) => Event::Judged(verdict(question)),
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
pub fn fitting(step: &Step, data: &mut &[u8]) -> Event {
    let choice = take_octet(data);
    let code = CODES[usize::from(choice % 16)];
    match step {
        Step::Answer(_) | Step::Listen => client(choice, data),
        Step::Challenge(_) => challenged(choice, data),
        Step::Connect => Event::Connected(match choice % 8 {
            0 => Err(Unavailable::Gone),
            1 if code % 2 == 0 => Err(Unavailable::Busy),
            1 => Err(Unavailable::Tls),
            2 => Err(Unavailable::Refused(reply(code))),
            3 => Ok(Link {
                keywords: Arc::default(),
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
        Step::Judge(question) => Event::Judged(judged(choice, question)),
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
                15 => Moved::GoneFrom(BodyOffence::BareLf),
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
            6 => Spooled::GoneFrom(BodyOffence::Nul),
            _ => Spooled::Kept,
        }),
        Step::Weigh => Event::Weighed(match choice % 4 {
            0 => Weighed::Pass,
            1 => Weighed::Refuse(Refusal::HeaderTooLong),
            at => Weighed::Refuse(Refusal::Content {
                finding: "spam",
                reply: reply(if at == 2 { 550 } else { 451 }),
            }),
        }),
        Step::Upgrade(_) => Event::Upgraded,
        Step::Discard(_) | Step::End(_) => Event::Discarded,
    }
}

fn judged(choice: u8, question: &Question) -> Verdict {
    match choice % 4 {
        0 => verdict(question),
        1 => Verdict::Refuse(Finding::HiddenRoute),
        2 => Verdict::Refuse(Finding::Rate {
            limit: Limit::Messages,
            network: None,
            wait: Duration::from_secs(1),
        }),
        _ => Verdict::Refuse(Finding::Banned {
            network: CLIENT.into(),
            left: Duration::from_secs(1),
        }),
    }
}

fn challenged(choice: u8, data: &mut &[u8]) -> Event {
    let line: &[u8] = match choice % 4 {
        0 => b"dQ==",
        1 => b"*",
        2 => b"no base64!",
        _ => take_text(data),
    };
    let behind = Behind::of(choice & 0x70 == 0x70);
    Event::AuthLine(AuthLine::parse(line), behind)
}

/// What the client says when it has the word.
pub fn client(choice: u8, data: &mut &[u8]) -> Event {
    let behind = Behind::of(choice & 0xc0 == 0xc0);
    let choice = usize::from(choice % 64);
    match (LINES.get(choice), choice) {
        (Some(line), _) => Event::Command(Command::parse(line.as_bytes()), behind),
        (_, 60) => Event::Offence(LineOffence::TooLong),
        (_, 61) => Event::Offence(LineOffence::BareLf),
        (_, 62) => Event::Draining,
        (_, 63) => Event::Command(Err(CommandError::ForbiddenVerb), behind),
        _ => Event::Command(Command::parse(take_text(data)), behind),
    }
}

/// An event that comes whenever it likes, or that the loop should not give.
pub fn stray(data: &mut &[u8]) -> Event {
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
