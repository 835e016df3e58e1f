//! SMTP commands: one line in, one value out, and back (RFC 5321 4.1).

use super::parameters::{MailParameters, RcptParameters};
use super::path::{ForwardPath, HeloName, ReversePath};

/// One SMTP command as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Helo(HeloName),
    Ehlo(HeloName),
    StartTls,
    Auth(Auth),
    Mail(Mail),
    Rcpt(Rcpt),
    Data,
    Bdat(Bdat),
    Rset,
    Noop,
    Vrfy(Argument),
    Expn(Argument),
    Etrn(Argument),
    Help(Option<Argument>),
    Quit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub from: ReversePath,
    pub parameters: MailParameters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    pub to: ForwardPath,
    pub parameters: RcptParameters,
}

/// RFC 3030 2: size of the chunk in octets, and whether it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bdat {
    pub size: u64,
    pub last: bool,
}

/// RFC 4954 4. `initial` is the base64 text as sent; `Debug` never shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub mechanism: Mechanism,
    pub initial: Option<Base64Text>,
}

/// SASL mechanism name, 1-20 of A-Z 0-9 - _ (RFC 4422 3.1), kept in upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mechanism(String);

/// A line of base64 (or "=" for the empty one); `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64Text(String);

/// Printable ASCII argument, no control characters, 1..=512 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(String);

/// What a client sends in answer to a 334 challenge (RFC 4954 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthLine {
    Response(Base64Text),
    Cancel,
}

/// The verb of a command line, for sequence rules, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Helo,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Etrn,
    Help,
    Quit,
}

/// Why a command line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("unknown verb")]
    UnknownVerb,
    /// XCLIENT, XFORWARD and the like: only the proxy itself speaks these.
    #[error("verb not for clients")]
    ForbiddenVerb,
    /// An HTTP request line or header: a cross-protocol attack.
    #[error("not SMTP")]
    ForeignProtocol,
    #[error("{verb:?}: {problem}")]
    Syntax { verb: Verb, problem: &'static str },
    #[error("{verb:?}: bad address: {problem}")]
    Address { verb: Verb, problem: &'static str },
    /// A MAIL or RCPT parameter that is not known (RFC 5321 4.1.1.11: 555).
    #[error("{verb:?}: unknown parameter")]
    UnknownParameter { verb: Verb },
    #[error("{verb:?}: bad or repeated parameter {parameter}")]
    BadParameter { verb: Verb, parameter: &'static str },
}

impl std::fmt::Debug for Base64Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Base64Text(..)")
    }
}
