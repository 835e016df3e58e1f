//! The verbs, and what stands in their place but is none of ours.

use super::CommandError;
use std::fmt;

/// The verb of a command line, for sequence rules, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is documented at its Command")]
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

const VERBS: [Verb; 15] = [
    Verb::Mail,
    Verb::Rcpt,
    Verb::Data,
    Verb::Ehlo,
    Verb::Helo,
    Verb::Quit,
    Verb::Rset,
    Verb::StartTls,
    Verb::Auth,
    Verb::Bdat,
    Verb::Noop,
    Verb::Vrfy,
    Verb::Expn,
    Verb::Etrn,
    Verb::Help,
];

/// Verbs that speak for another host, turn the connection round, or belong to
/// another protocol. Real ones, so that a client using them can be told from
/// one that only mistypes.
const FORBIDDEN: [&str; 13] = [
    "XCLIENT",
    "XFORWARD",
    "XEXCH50",
    "X-EXPS",
    "X-LINK2STATE",
    "XADR",
    "XAUTH",
    "TURN",
    "ATRN",
    "LHLO",
    "SEND",
    "SOML",
    "SAML",
];

/// RFC 9110 9 and RFC 5789.
const HTTP_METHODS: [&str; 9] = [
    "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE",
];

impl Verb {
    /// Parses a verb alone, in any case.
    pub fn parse(name: &[u8]) -> Option<Self> {
        VERBS
            .into_iter()
            .find(|verb| name.eq_ignore_ascii_case(verb.as_str().as_bytes()))
    }

    /// The verb in upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Etrn => "ETRN",
            Self::Help => "HELP",
            Self::Quit => "QUIT",
        }
    }

    /// Splits a command line into its verb and all that follows.
    pub(super) fn split(line: &[u8]) -> Result<(Self, &[u8]), CommandError> {
        let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
        let end = line.iter().take_while(|octet| is_name(octet)).count();
        let (name, rest) = line.split_at_checked(end).unwrap_or_default();
        let among = |names: &[&str]| {
            names
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        if ends_like_http(line) || among(&HTTP_METHODS) && rest.starts_with(b" ") {
            Err(CommandError::ForeignProtocol)
        } else if among(&FORBIDDEN) {
            Err(CommandError::ForbiddenVerb)
        } else {
            let verb = Self::parse(name).ok_or(CommandError::UnknownVerb)?;
            Ok((verb, rest))
        }
    }
}

/// ` HTTP/1.1` at the end: a request line, whatever its method; HTTP/2 opens
/// with one too (RFC 9113 3.4).
fn ends_like_http(line: &[u8]) -> bool {
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
