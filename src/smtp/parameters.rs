//! Parameters of MAIL and RCPT as values.

use super::path::Mailbox;
use super::xtext::Xtext;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Octets (RFC 1870), up to 20 digits; larger than u64 is a bad parameter.
    pub size: Option<u64>,
    pub body: Option<Body>,
    pub smtputf8: bool,
    pub ret: Option<Ret>,
    pub envid: Option<Xtext>,
    pub auth: Option<Submitter>,
    pub requiretls: bool,
}

/// RFC 6152, RFC 3030 3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    SevenBit,
    EightBitMime,
    BinaryMime,
}

/// RFC 3461 4.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

/// The AUTH= parameter of MAIL (RFC 4954 5): xtext of a mailbox, or `<>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitter {
    Unknown,
    Mailbox(Mailbox),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    pub notify: Option<Notify>,
    pub orcpt: Option<Orcpt>,
}

/// RFC 3461 4.1: NEVER stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    Never,
    On {
        success: bool,
        failure: bool,
        delay: bool,
    },
}

/// RFC 3461 4.2: address type (an atom) and xtext address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orcpt {
    kind: String,
    address: Xtext,
}
