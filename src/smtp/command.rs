//! SMTP commands: one line in, one value out, and back (RFC 5321 4.1).
//!
//! Must never keep an octet it did not parse: what is printed here is all the
//! backend ever gets.

mod auth;
mod verb;

pub use auth::{Auth, AuthLine, Base64Text, Mechanism};
pub use verb::Verb;

use super::parameters::{MailParameters, RcptParameters, parse_size};
use super::path::{AddressError, ForwardPath, HeloName, ReversePath, split_path};
use std::fmt;

const ARGUMENT_MAX: usize = 512;

/// One SMTP command as a value.
///
/// `Display` prints the line without its CRLF. For AUTH that line holds a
/// secret: it is for the backend and never for a log; `Debug` hides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// RFC 5321 4.1.1.1
    Helo(HeloName),
    /// RFC 5321 4.1.1.1
    Ehlo(HeloName),
    /// RFC 3207 4
    StartTls,
    /// RFC 4954 4
    Auth(Auth),
    /// RFC 5321 4.1.1.2
    Mail(Mail),
    /// RFC 5321 4.1.1.3
    Rcpt(Rcpt),
    /// RFC 5321 4.1.1.4
    Data,
    /// RFC 3030 2
    Bdat(Bdat),
    /// RFC 5321 4.1.1.5
    Rset,
    /// RFC 5321 4.1.1.9; its argument means nothing and is dropped.
    Noop,
    /// RFC 5321 4.1.1.6
    Vrfy(Argument),
    /// RFC 5321 4.1.1.7
    Expn(Argument),
    /// RFC 1985 5
    Etrn(Argument),
    /// RFC 5321 4.1.1.8
    Help(Option<Argument>),
    /// RFC 5321 4.1.1.10
    Quit,
}

/// Opens a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Where bounces go.
    pub from: ReversePath,
    /// What follows it.
    pub parameters: MailParameters,
}

/// Adds a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// The recipient.
    pub to: ForwardPath,
    /// What follows it.
    pub parameters: RcptParameters,
}

/// RFC 3030 2: size of the chunk in octets, and whether it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bdat {
    /// Octets that follow the line.
    pub size: u64,
    /// Whether the message ends with them.
    pub last: bool,
}

/// Printable ASCII argument, no control characters, 1..=512 octets, no space
/// at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(String);

/// Why a command line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing this proxy knows.
    #[error("unknown verb")]
    UnknownVerb,
    /// XCLIENT, XFORWARD and the like: only the proxy itself speaks these.
    #[error("verb not for clients")]
    ForbiddenVerb,
    /// An HTTP request line: a cross-protocol attack.
    #[error("not SMTP")]
    ForeignProtocol,
    /// The verb is known, its argument malformed (RFC 5321 4.3.2: 501).
    #[error("{verb}: {problem}")]
    Syntax {
        /// Whose argument it is.
        verb: Verb,
        /// What is wrong, for people.
        problem: &'static str,
    },
    /// A path that is none.
    #[error("{verb}: bad address: {problem}")]
    Address {
        /// Whose path it is.
        verb: Verb,
        /// What is wrong, for people.
        problem: &'static str,
    },
    /// A MAIL or RCPT parameter that is not known (RFC 5321 4.1.1.11: 555).
    #[error("{verb}: unknown parameter")]
    UnknownParameter {
        /// Whose parameter it is.
        verb: Verb,
    },
    /// A known parameter with a bad value, or one that came twice.
    #[error("{verb}: bad or repeated parameter {parameter}")]
    BadParameter {
        /// Whose parameter it is.
        verb: Verb,
        /// Its keyword.
        parameter: &'static str,
    },
}

impl CommandError {
    /// Whose argument is bad, if that is what is wrong.
    pub fn verb(&self) -> Option<Verb> {
        match self {
            Self::UnknownVerb | Self::ForbiddenVerb | Self::ForeignProtocol => None,
            Self::Syntax { verb, .. }
            | Self::Address { verb, .. }
            | Self::UnknownParameter { verb }
            | Self::BadParameter { verb, .. } => Some(*verb),
        }
    }
}

impl Command {
    /// Parses one line without its CRLF.
    ///
    /// Tolerated, and never printed: spaces between the colon of MAIL FROM or
    /// RCPT TO and the path, and spaces at the end of the line. Lower case is
    /// tolerated in all keywords.
    ///
    /// # Errors
    /// Everything else that RFC 5321 does not allow; any octet is safe to give.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let (verb, rest) = Verb::split(line)?;
        let argument = argument_of(verb, rest)?;
        let required = || {
            argument.ok_or(CommandError::Syntax {
                verb,
                problem: "an argument is due",
            })
        };
        let none = |command| match argument {
            None => Ok(command),
            Some(_) => Err(CommandError::Syntax {
                verb,
                problem: "no argument is allowed",
            }),
        };
        match verb {
            Verb::Helo => Ok(Self::Helo(helo_name(verb, required()?)?)),
            Verb::Ehlo => Ok(Self::Ehlo(helo_name(verb, required()?)?)),
            Verb::StartTls => none(Self::StartTls),
            Verb::Auth => Ok(Self::Auth(Auth::parse(required()?)?)),
            Verb::Mail => Ok(Self::Mail(Mail::parse(required()?)?)),
            Verb::Rcpt => Ok(Self::Rcpt(Rcpt::parse(required()?)?)),
            Verb::Data => none(Self::Data),
            Verb::Bdat => Ok(Self::Bdat(Bdat::parse(required()?)?)),
            Verb::Rset => none(Self::Rset),
            Verb::Noop => Ok(Self::Noop),
            Verb::Vrfy => Ok(Self::Vrfy(Argument::parse(verb, required()?)?)),
            Verb::Expn => Ok(Self::Expn(Argument::parse(verb, required()?)?)),
            Verb::Etrn => Ok(Self::Etrn(Argument::parse(verb, required()?)?)),
            Verb::Help => {
                let topic = argument.map(|text| Argument::parse(verb, text));
                Ok(Self::Help(topic.transpose()?))
            }
            Verb::Quit => none(Self::Quit),
        }
    }

    /// Which command it is.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Helo(_) => Verb::Helo,
            Self::Ehlo(_) => Verb::Ehlo,
            Self::StartTls => Verb::StartTls,
            Self::Auth(_) => Verb::Auth,
            Self::Mail(_) => Verb::Mail,
            Self::Rcpt(_) => Verb::Rcpt,
            Self::Data => Verb::Data,
            Self::Bdat(_) => Verb::Bdat,
            Self::Rset => Verb::Rset,
            Self::Noop => Verb::Noop,
            Self::Vrfy(_) => Verb::Vrfy,
            Self::Expn(_) => Verb::Expn,
            Self::Etrn(_) => Verb::Etrn,
            Self::Help(_) => Verb::Help,
            Self::Quit => Verb::Quit,
        }
    }
}

/// What follows the verb, without the space before it and those at the end.
fn argument_of(verb: Verb, rest: &[u8]) -> Result<Option<&str>, CommandError> {
    let syntax = |problem| CommandError::Syntax { verb, problem };
    let text = std::str::from_utf8(rest).map_err(|_| syntax("not UTF-8"))?;
    let controls = if text.is_ascii() {
        text.bytes().any(|octet| octet.is_ascii_control())
    } else {
        text.contains(char::is_control)
    };
    if controls {
        return Err(syntax("control character"));
    }
    match text.trim_end_matches(' ') {
        "" => Ok(None),
        argument => argument
            .strip_prefix(' ')
            .map(Some)
            .ok_or_else(|| syntax("a space is due after the verb")),
    }
}

fn helo_name(verb: Verb, text: &str) -> Result<HeloName, CommandError> {
    HeloName::parse(text).map_err(|AddressError(problem)| CommandError::Syntax { verb, problem })
}

/// Parts `FROM:<path> parameters` into path and parameters.
fn path_argument<'a>(
    verb: Verb,
    keyword: &str,
    text: &'a str,
) -> Result<(&'a str, &'a str), CommandError> {
    let rest = match text.split_at_checked(keyword.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(keyword) => rest,
        _ => {
            let problem = "FROM: or TO: is due";
            return Err(CommandError::Syntax { verb, problem });
        }
    };
    split_path(rest.trim_start_matches(' ')).ok_or(CommandError::Address {
        verb,
        problem: "angle brackets are due",
    })
}

impl Mail {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let verb = Verb::Mail;
        let (path, parameters) = path_argument(verb, "FROM:", text)?;
        Ok(Self {
            from: ReversePath::parse(path)
                .map_err(|AddressError(problem)| CommandError::Address { verb, problem })?,
            parameters: MailParameters::parse(parameters)?,
        })
    }
}

impl Rcpt {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let verb = Verb::Rcpt;
        let (path, parameters) = path_argument(verb, "TO:", text)?;
        Ok(Self {
            to: ForwardPath::parse(path)
                .map_err(|AddressError(problem)| CommandError::Address { verb, problem })?,
            parameters: RcptParameters::parse(parameters)?,
        })
    }
}

impl Bdat {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let (size, last) = match text.split_once(' ') {
            Some((size, last)) if last.eq_ignore_ascii_case("LAST") => (size, true),
            _ => (text, false),
        };
        let size = parse_size(size).ok_or(CommandError::Syntax {
            verb: Verb::Bdat,
            problem: "a chunk size, and nothing but LAST after it, is due",
        })?;
        Ok(Self { size, last })
    }
}

impl Argument {
    fn parse(verb: Verb, text: &str) -> Result<Self, CommandError> {
        let syntax = |problem| Err(CommandError::Syntax { verb, problem });
        if text.is_empty() || text.len() > ARGUMENT_MAX {
            return syntax("an argument of 1 to 512 octets is due");
        }
        if text != text.trim() || !text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            return syntax("forbidden character in the argument");
        }
        Ok(Self(text.to_owned()))
    }

    /// The argument as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.verb();
        match self {
            Self::StartTls | Self::Data | Self::Rset | Self::Noop | Self::Quit => verb.fmt(f),
            Self::Helo(name) | Self::Ehlo(name) => write!(f, "{verb} {name}"),
            Self::Auth(auth) => write!(f, "{verb} {auth}"),
            Self::Mail(mail) => {
                f.write_str("MAIL FROM:")?;
                mail.from.fmt(f)?;
                mail.parameters.fmt(f)
            }
            Self::Rcpt(rcpt) => {
                f.write_str("RCPT TO:")?;
                rcpt.to.fmt(f)?;
                rcpt.parameters.fmt(f)
            }
            Self::Bdat(Bdat { size, last }) => {
                write!(f, "{verb} {size}{}", if *last { " LAST" } else { "" })
            }
            Self::Vrfy(argument)
            | Self::Expn(argument)
            | Self::Etrn(argument)
            | Self::Help(Some(argument)) => write!(f, "{verb} {}", argument.0),
            Self::Help(None) => verb.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
