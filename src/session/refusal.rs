//! Every "no" that Portcullis itself says: one table from offence to reply.
//!
//! Pure. A refusal that the backend gave is not here; it passes as it came.

use std::time::Duration;

use crate::policy::{Finding, Limit};
use crate::smtp::command::{CommandError, Verb};
use crate::smtp::dot::BodyOffence;
use crate::smtp::line::LineOffence;
use crate::smtp::reply::{EnhancedCode, Reply};

/// Why Portcullis refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A line that is no line (bare CR, bare LF, NUL, too long).
    Line(LineOffence),
    /// A line that is no command.
    Command(CommandError),
    /// A command that may not come now.
    Sequence(&'static str),
    /// Bytes behind a verb that must end its pipelined group (RFC 2920 3.1).
    Pipelined(Verb),
    /// A verb that is off unless `COMMANDS_ALLOW` names it.
    Disabled(Verb),
    /// An extension that was not offered (BDAT, a MAIL or RCPT parameter).
    NotOffered(&'static str),
    /// TLS first (RFC 3207 4).
    TlsRequired,
    /// AUTH outside TLS (RFC 4954 4, code 538).
    AuthNeedsTls,
    /// AUTH first (RFC 4954 6).
    AuthRequired,
    /// A SASL mechanism that the backend does not list.
    Mechanism,
    /// More challenges than any mechanism needs.
    AuthRounds,
    /// A non-ASCII address without SMTPUTF8 (RFC 6531 3.5).
    NeedsSmtpUtf8,
    /// The message is larger than `MAX_SIZE` (RFC 1870 6).
    TooLarge,
    /// More recipients than `RCPT_MAX` (RFC 5321 4.5.3.1.10).
    TooManyRecipients,
    /// What policy found.
    Policy(Finding),
    /// What was found when a client wanted to sign in (RFC 4954 6, code 454).
    SignInLater(Finding),
    /// A body with forbidden bytes.
    Body(BodyOffence),
    /// More protocol errors than `ERROR_MAX`.
    TooManyErrors,
    /// The backend could not be reached or broke off.
    BackendGone,
    /// The backend's TLS is not what `BACKEND_TLS` demands.
    BackendTls,
    /// `BACKEND_CONN_MAX` connections to the backend are in use.
    BackendBusy,
    /// The backend does not offer to this client what it offered to the last probe.
    BackendChanged,
    /// The backend said something that the machine did not ask for.
    BackendNonsense,
    /// The backend connection on which the client had signed in is gone.
    SignInLost,
    /// The client took too long.
    TimedOut,
    /// The body came slower than `DATA_RATE_MIN`, or too slowly for the place that
    /// it kept while places ran out.
    TooSlow,
    /// Portcullis is stopping.
    ShuttingDown,
    /// `SESSIONS_MAX` is reached.
    Busy,
    /// The client spoke before the greeting (RFC 5321 4.3.1).
    EarlyTalker,
    /// The client kept us waiting while places, or connections to the backend, ran out.
    Shed,
    /// The spool is full or broken.
    NoRoom,
    /// The header section is too long to be edited as scanners may ask.
    HeaderTooLong,
    /// What scanners said of a message, as policy sees it.
    Content {
        /// The kind of finding, from a closed set.
        finding: &'static str,
        /// What the client hears.
        reply: Reply,
    },
}

impl Refusal {
    /// The reply that the client gets.
    pub fn reply(&self) -> Reply {
        if let Self::Content { reply, .. } = self {
            return reply.clone();
        }
        let (code, class, subject, detail, text) = self.row();
        let enhanced = EnhancedCode {
            class,
            subject,
            detail,
        };
        Reply::new(code, enhanced, &text)
    }

    /// Whether it counts against `ERROR_MAX`.
    pub fn is_error(&self) -> bool {
        matches!(
            self,
            Self::Line(_)
                | Self::Command(_)
                | Self::Sequence(_)
                | Self::Pipelined(_)
                | Self::Disabled(_)
                | Self::NotOffered(_)
                | Self::AuthNeedsTls
                | Self::Mechanism
                | Self::NeedsSmtpUtf8
                | Self::Body(_)
        )
    }

    /// Whether a session in which it was met counts against `OFFENCE_RATE`. What
    /// stands in a message is no offence: users write it, and who writes it must not
    /// have the relay banned that passes it on.
    pub fn is_offence(&self) -> bool {
        matches!(
            self,
            Self::EarlyTalker
                | Self::TooManyErrors
                | Self::Pipelined(_)
                | Self::Line(LineOffence::BareCr | LineOffence::BareLf | LineOffence::Nul)
                | Self::Command(CommandError::ForeignProtocol)
        )
    }

    /// The short name of the reason, from a closed set, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Line(LineOffence::BareCr) | Self::Body(BodyOffence::BareCr) => "bare-cr",
            Self::Line(LineOffence::BareLf) | Self::Body(BodyOffence::BareLf) => "bare-lf",
            Self::Line(LineOffence::Nul) | Self::Body(BodyOffence::Nul) => "nul",
            Self::Line(LineOffence::TooLong) => "line-too-long",
            Self::Line(LineOffence::TlsHello) => "tls-on-plain-port",
            Self::Body(BodyOffence::LineTooLong) => "body-line-too-long",
            Self::Command(CommandError::UnknownVerb) => "unknown-verb",
            Self::Command(CommandError::ForbiddenVerb) => "forbidden-verb",
            Self::Command(CommandError::ForeignProtocol) => "foreign-protocol",
            Self::Command(CommandError::Syntax { .. }) => "syntax",
            Self::Command(CommandError::Address { .. }) => "address",
            Self::Command(
                CommandError::UnknownParameter { .. } | CommandError::BadParameter { .. },
            ) => "parameter",
            Self::Sequence(_) => "sequence",
            Self::Pipelined(_) => "pipelining",
            Self::Disabled(_) => "verb-disabled",
            Self::NotOffered(_) => "not-offered",
            Self::TlsRequired => "tls-required",
            Self::AuthNeedsTls => "auth-needs-tls",
            Self::AuthRequired => "auth-required",
            Self::Mechanism => "auth-mechanism",
            Self::AuthRounds => "auth-rounds",
            Self::NeedsSmtpUtf8 => "needs-smtputf8",
            Self::TooLarge => "too-large",
            Self::TooManyRecipients => "recipients",
            Self::Policy(finding) | Self::SignInLater(finding) => finding_name(finding),
            Self::EarlyTalker => "early-talker",
            Self::Shed => "stress",
            Self::NoRoom => "spool-full",
            Self::HeaderTooLong => "header-too-long",
            Self::Content { finding, .. } => finding,
            Self::TooManyErrors => "errors",
            Self::BackendGone => "backend-gone",
            Self::BackendTls => "backend-tls",
            Self::BackendBusy => "backend-conn-max",
            Self::BackendChanged => "backend-changed",
            Self::BackendNonsense => "backend-nonsense",
            Self::SignInLost => "sign-in-lost",
            Self::TimedOut => "timeout",
            Self::TooSlow => "too-slow",
            Self::ShuttingDown => "shutting-down",
            Self::Busy => "sessions-max",
        }
    }

    /// code, enhanced code (RFC 3463), text.
    fn row(&self) -> (u16, u8, u16, u16, String) {
        let (code, class, subject, detail, text) = match self {
            Self::Line(LineOffence::TooLong) => (500, 5, 5, 2, "Line too long"),
            Self::Line(LineOffence::TlsHello) => {
                (500, 5, 5, 2, "This port speaks plain text first")
            }
            Self::Line(LineOffence::BareCr) => {
                (500, 5, 5, 2, "CR without LF in a command; closing")
            }
            Self::Line(LineOffence::BareLf) => {
                (500, 5, 5, 2, "LF without CR in a command; closing")
            }
            Self::Line(LineOffence::Nul) => (500, 5, 5, 2, "NUL in a command; closing"),
            Self::Command(CommandError::UnknownVerb) => (500, 5, 5, 2, "Command not recognized"),
            Self::Command(CommandError::ForbiddenVerb) => (502, 5, 5, 1, "Command not available"),
            Self::Command(CommandError::ForeignProtocol) => (500, 5, 5, 2, "This is SMTP; closing"),
            Self::Command(CommandError::Syntax { verb, problem }) => {
                return (501, 5, 5, 4, format!("Syntax error in {verb}: {problem}"));
            }
            Self::Command(CommandError::Address { verb, problem }) => {
                let detail = if *verb == Verb::Mail { 7 } else { 3 };
                return (
                    501,
                    5,
                    1,
                    detail,
                    format!("Bad address in {verb}: {problem}"),
                );
            }
            Self::Command(CommandError::UnknownParameter { verb }) => {
                return (555, 5, 5, 4, format!("Parameter of {verb} not recognized"));
            }
            Self::Command(CommandError::BadParameter { verb, parameter }) => {
                return (
                    501,
                    5,
                    5,
                    4,
                    format!("Bad or repeated parameter {parameter} of {verb}"),
                );
            }
            Self::Sequence(text) => (503, 5, 5, 1, *text),
            Self::Pipelined(verb) => {
                return (
                    503,
                    5,
                    5,
                    1,
                    format!("{verb} must be the last command of a group (RFC 2920); closing"),
                );
            }
            Self::Disabled(verb) => return (502, 5, 5, 1, format!("{verb} is disabled")),
            Self::NotOffered("BDAT") => (502, 5, 5, 1, "BDAT was not offered"),
            Self::NotOffered(what) => return (555, 5, 5, 4, format!("{what} was not offered")),
            Self::TlsRequired => (530, 5, 7, 0, "Must issue a STARTTLS command first"),
            Self::AuthNeedsTls => (538, 5, 7, 11, "Encryption required: issue STARTTLS first"),
            Self::AuthRequired => (530, 5, 7, 0, "Authentication required"),
            Self::Mechanism => (504, 5, 5, 4, "Authentication mechanism not supported"),
            Self::AuthRounds => (500, 5, 5, 6, "Authentication exchange is too long"),
            Self::NeedsSmtpUtf8 => (553, 5, 6, 7, "Address needs SMTPUTF8"),
            Self::TooLarge => (552, 5, 3, 4, "Message exceeds the size limit"),
            Self::TooManyRecipients => (
                452,
                4,
                5,
                3,
                "RCPT_MAX reached; send the rest in another message",
            ),
            Self::Policy(finding) => return of_finding(finding),
            Self::SignInLater(finding) => {
                let (_, class, subject, detail, text) = of_finding(finding);
                return (454, class, subject, detail, text);
            }
            Self::EarlyTalker => (554, 5, 7, 1, "You spoke before the greeting; closing"),
            Self::NoRoom => (
                452,
                4,
                3,
                1,
                "No room for this message now; try again later",
            ),
            Self::HeaderTooLong => (
                552,
                5,
                3,
                4,
                "The header section of the message is too long",
            ),
            Self::Content { .. } => (550, 5, 7, 1, "Message refused"),
            Self::Shed => (
                421,
                4,
                4,
                2,
                "Too busy to wait (SESSIONS_MAX or BACKEND_CONN_MAX is near); try again in 30 s",
            ),
            Self::Body(BodyOffence::BareCr) => (554, 5, 6, 0, "CR without LF in the message"),
            Self::Body(BodyOffence::BareLf) => (554, 5, 6, 0, "LF without CR in the message"),
            Self::Body(BodyOffence::Nul) => (554, 5, 6, 0, "NUL in the message"),
            Self::Body(BodyOffence::LineTooLong) => {
                (554, 5, 6, 0, "A line of the message is too long")
            }
            Self::TooManyErrors => (421, 4, 7, 0, "Too many errors (ERROR_MAX); closing"),
            Self::BackendGone => (
                451,
                4,
                4,
                1,
                "The mail server is not available; try again later",
            ),
            Self::BackendTls => (
                451,
                4,
                7,
                5,
                "The mail server cannot be reached securely; try again later",
            ),
            Self::BackendBusy => (
                451,
                4,
                3,
                2,
                "The mail server is busy (BACKEND_CONN_MAX); try again in a minute",
            ),
            Self::BackendChanged => (
                451,
                4,
                3,
                5,
                "The mail server does not offer this now; try again later, or without it",
            ),
            Self::BackendNonsense => (
                421,
                4,
                3,
                0,
                "Confusion at the mail server; closing, try again later",
            ),
            Self::SignInLost => (
                421,
                4,
                4,
                2,
                "The mail server broke off; connect and sign in again",
            ),
            Self::TimedOut => (421, 4, 4, 2, "Timeout; closing"),
            Self::TooSlow => (421, 4, 4, 2, "Message comes too slowly; closing"),
            Self::ShuttingDown => (421, 4, 3, 2, "Service shutting down; try again soon"),
            Self::Busy => (421, 4, 7, 0, "SESSIONS_MAX reached; try again in 30 s"),
        };
        (code, class, subject, detail, text.to_owned())
    }
}

fn finding_name(finding: &Finding) -> &'static str {
    match finding {
        Finding::ForeignDomain => "relay-denied",
        Finding::HiddenRoute => "hidden-route",
        Finding::Rate { limit, .. } => match limit {
            Limit::Connections => "conn-rate",
            Limit::Messages => "msg-rate",
            Limit::Recipients => "rcpt-rate",
            Limit::AuthFailures => "auth-fail-rate",
            Limit::Floods => "flood-rate",
            Limit::Offences => "offence-rate",
        },
        Finding::Crowd { .. } => "conn-max",
        Finding::Banned { .. } => "banned",
    }
}

/// How long a client that comes too often at once is told to wait: nobody knows
/// when a connection ends.
const CROWD_WAIT: Duration = Duration::from_secs(30);

fn of_finding(finding: &Finding) -> (u16, u8, u16, u16, String) {
    match finding {
        Finding::ForeignDomain | Finding::HiddenRoute => {
            (550, 5, 7, 1, "Relaying denied".to_owned())
        }
        Finding::Rate {
            limit,
            network,
            wait,
        } => {
            let (code, detail) = match limit {
                Limit::Messages => (450, 1),
                Limit::Recipients => (452, 1),
                Limit::Connections | Limit::AuthFailures | Limit::Floods | Limit::Offences => {
                    (421, 0)
                }
            };
            let whom = network.map_or_else(|| "all".to_owned(), |network| network.to_string());
            let text = format!("{} reached by {whom}; {}", limit.name(), again_in(*wait));
            (code, 4, 7, detail, text)
        }
        Finding::Crowd { network, most } => {
            let text = format!(
                "CONN_MAX reached: {network} has {most} connections open; {}",
                again_in(CROWD_WAIT)
            );
            (421, 4, 7, 0, text)
        }
        Finding::Banned { network, left } => {
            let text = format!("{network} is banned; {}", again_in(*left));
            (421, 4, 7, 0, text)
        }
    }
}

fn again_in(wait: Duration) -> String {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    format!("try again in {seconds} s")
}
