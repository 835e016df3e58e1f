//! Parameters of MAIL and RCPT as values (RFC 5321 4.1.2, extensions as cited).
//!
//! Must never carry a parameter that is not known here: its meaning would pass
//! unjudged.

mod dsn;

pub use dsn::{Notify, Orcpt, Ret};

use super::command::{CommandError, Verb};
use super::path::Mailbox;
use super::xtext::{self, Xtext};
use std::fmt;

/// RFC 3461 4.4, encoded octets.
const ENVID_MAX: usize = 100;
/// RFC 4954 5, encoded octets.
const AUTH_MAX: usize = 500;
/// RFC 1870 4.
const SIZE_DIGITS_MAX: usize = 20;

/// What may follow the reverse-path of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Octets (RFC 1870), up to 20 digits; larger than u64 is a bad parameter.
    pub size: Option<u64>,
    /// How the body is encoded.
    pub body: Option<Body>,
    /// RFC 6531: addresses or header fields hold UTF-8.
    pub smtputf8: bool,
    /// How much a delivery report gives back.
    pub ret: Option<Ret>,
    /// RFC 3461 4.4: the sender's name for this message; 100 octets encoded.
    pub envid: Option<Xtext>,
    /// RFC 4954 5: who submitted the message first.
    pub auth: Option<Submitter>,
    /// RFC 8689.
    pub requiretls: bool,
}

/// RFC 6152, RFC 3030 3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// ASCII only.
    SevenBit,
    /// Lines of any octets.
    EightBitMime,
    /// Any octets, no lines; for BDAT only.
    BinaryMime,
}

/// The AUTH= parameter of MAIL (RFC 4954 5): xtext of a mailbox, or `<>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitter {
    /// `<>`
    Unknown,
    /// An ASCII mailbox.
    Mailbox(Mailbox),
}

/// What may follow the forward-path of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// When to send a delivery report.
    pub notify: Option<Notify>,
    /// The recipient the sender meant first.
    pub orcpt: Option<Orcpt>,
}

impl MailParameters {
    /// Parses what follows the path: nothing, or ` KEY[=VALUE]` repeated.
    ///
    /// # Errors
    /// `UnknownParameter`, `BadParameter` (value or repetition) or `Syntax`.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let mut parameters = Self::default();
        for item in items(Verb::Mail, text) {
            let item = item?;
            match item.key.as_str() {
                "SIZE" => item.fill(&mut parameters.size, "SIZE", parse_size),
                "BODY" => item.fill(&mut parameters.body, "BODY", Body::parse),
                "SMTPUTF8" => item.raise(&mut parameters.smtputf8, "SMTPUTF8"),
                "RET" => item.fill(&mut parameters.ret, "RET", Ret::parse),
                "ENVID" => item.fill(&mut parameters.envid, "ENVID", parse_envid),
                "AUTH" => item.fill(&mut parameters.auth, "AUTH", Submitter::parse),
                "REQUIRETLS" => item.raise(&mut parameters.requiretls, "REQUIRETLS"),
                _ => Err(CommandError::UnknownParameter { verb: item.verb }),
            }?;
        }
        Ok(parameters)
    }
}

impl RcptParameters {
    /// Parses what follows the path: nothing, or ` KEY[=VALUE]` repeated.
    ///
    /// # Errors
    /// `UnknownParameter`, `BadParameter` (value or repetition) or `Syntax`.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let mut parameters = Self::default();
        for item in items(Verb::Rcpt, text) {
            let item = item?;
            match item.key.as_str() {
                "NOTIFY" => item.fill(&mut parameters.notify, "NOTIFY", Notify::parse),
                "ORCPT" => item.fill(&mut parameters.orcpt, "ORCPT", Orcpt::parse),
                _ => Err(CommandError::UnknownParameter { verb: item.verb }),
            }?;
        }
        Ok(parameters)
    }
}

impl RcptParameters {
    /// Whether they can go into a transaction without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.orcpt.as_ref().is_none_or(Orcpt::is_ascii)
    }
}

/// One `KEY` or `KEY=VALUE`.
struct Item<'a> {
    verb: Verb,
    /// In upper case.
    key: String,
    value: Option<&'a str>,
}

impl Item<'_> {
    /// Puts the value into its slot, once.
    fn fill<T>(
        &self,
        slot: &mut Option<T>,
        parameter: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<(), CommandError> {
        match (&slot, self.value.and_then(parse)) {
            (None, Some(value)) => {
                *slot = Some(value);
                Ok(())
            }
            _ => Err(self.bad(parameter)),
        }
    }

    /// Sets the flag of a parameter that takes no value, once.
    fn raise(&self, flag: &mut bool, parameter: &'static str) -> Result<(), CommandError> {
        if *flag || self.value.is_some() {
            return Err(self.bad(parameter));
        }
        *flag = true;
        Ok(())
    }

    fn bad(&self, parameter: &'static str) -> CommandError {
        CommandError::BadParameter {
            verb: self.verb,
            parameter,
        }
    }
}

/// Splits a parameter list; a first empty piece stands for the space in front.
fn items(verb: Verb, text: &str) -> impl Iterator<Item = Result<Item<'_>, CommandError>> {
    let syntax = move |problem| CommandError::Syntax { verb, problem };
    text.split(' ').enumerate().filter_map(move |(nth, piece)| {
        if nth == 0 {
            let glued = !piece.is_empty();
            return glued.then(|| Err(syntax("a space is due after the path")));
        }
        let (key, value) = match piece.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (piece, None),
        };
        Some(if is_keyword(key) {
            let key = key.to_ascii_uppercase();
            Ok(Item { verb, key, value })
        } else {
            Err(syntax("malformed parameter"))
        })
    })
}

/// esmtp-keyword (RFC 5321 4.1.2).
pub(super) fn is_keyword(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-')
}

/// Digits only: `str::parse` alone would take a plus sign.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = (1..=SIZE_DIGITS_MAX).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn parse_envid(text: &str) -> Option<Xtext> {
    Xtext::parse(text).filter(|envid| envid.is_printable() && text.len() <= ENVID_MAX)
}

impl Body {
    fn parse(text: &str) -> Option<Self> {
        [Self::SevenBit, Self::EightBitMime, Self::BinaryMime]
            .into_iter()
            .find(|body| text.eq_ignore_ascii_case(body.as_str()))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        }
    }
}

impl Submitter {
    fn parse(text: &str) -> Option<Self> {
        if text == "<>" {
            return Some(Self::Unknown);
        }
        let mailbox = Mailbox::parse(Xtext::parse(text)?.as_str()).ok()?;
        let submitter = Self::Mailbox(mailbox);
        // Canonical quoting may have made it longer than what came in.
        let fits = text.len() <= AUTH_MAX && submitter.to_string().len() <= AUTH_MAX;
        fits.then_some(submitter)
    }
}

impl fmt::Display for MailParameters {
    /// Each parameter with a space in front, in a fixed order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if let Some(body) = self.body {
            write!(f, " BODY={}", body.as_str())?;
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if let Some(ret) = self.ret {
            write!(f, " RET={}", ret.as_str())?;
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={envid}")?;
        }
        if let Some(auth) = &self.auth {
            write!(f, " AUTH={auth}")?;
        }
        if self.requiretls {
            f.write_str(" REQUIRETLS")?;
        }
        Ok(())
    }
}

impl fmt::Display for RcptParameters {
    /// Each parameter with a space in front, in a fixed order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.notify.map(Notify::events).unwrap_or_default();
        if !events.is_empty() {
            write!(f, " NOTIFY={}", events.join(","))?;
        }
        if let Some(orcpt) = &self.orcpt {
            write!(f, " ORCPT={orcpt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("<>"),
            Self::Mailbox(mailbox) => f.write_str(&xtext::encode(&mailbox.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
