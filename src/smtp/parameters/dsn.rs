//! Parameters that steer delivery reports (RFC 3461).

use crate::smtp::parameters::is_keyword;
use crate::smtp::path::is_harmless_unicode;
use crate::smtp::xtext::{Xtext, is_xchar};
use std::fmt;

/// RFC 3461 4.2, encoded octets with the address type.
const ORCPT_MAX: usize = 500;

/// RFC 3461 4.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// RFC 3461 4.1: NEVER stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// No report.
    Never,
    /// At least one of them is true; with none, nothing is printed.
    On {
        /// Delivered.
        success: bool,
        /// Given up.
        failure: bool,
        /// Late.
        delay: bool,
    },
}

/// RFC 3461 4.2: address type (an atom) and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orcpt {
    kind: String,
    address: Written,
}

/// How the address is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Xtext(Xtext),
    /// utf-8-addr-unitext (RFC 6533 3), some of it beyond ASCII.
    Unitext(String),
}

/// RFC 6533 3: the address type of addresses beyond ASCII.
const UTF_8: &str = "utf-8";

impl Ret {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Headers]
            .into_iter()
            .find(|ret| text.eq_ignore_ascii_case(ret.as_str()))
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

impl Notify {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Self::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for event in text.split(',') {
            let flag = match event.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut success,
                "FAILURE" => &mut failure,
                "DELAY" => &mut delay,
                _ => return None,
            };
            if std::mem::replace(flag, true) {
                return None;
            }
        }
        Some(Self::On {
            success,
            failure,
            delay,
        })
    }

    pub(super) fn events(self) -> Vec<&'static str> {
        let Self::On {
            success,
            failure,
            delay,
        } = self
        else {
            return vec!["NEVER"];
        };
        [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
            .into_iter()
            .filter_map(|(wanted, event)| wanted.then_some(event))
            .collect()
    }
}

impl Orcpt {
    /// Puts an address type and an address together; `None` when the type is
    /// no keyword, the address not printable (RFC 3461 4.2), or the whole longer than
    /// 500 octets encoded.
    pub fn new(kind: &str, address: Xtext) -> Option<Self> {
        let orcpt = Self {
            kind: kind.to_owned(),
            address: Written::Xtext(address),
        };
        let may_stand = is_keyword(kind) && orcpt.is_printable();
        (may_stand && orcpt.to_string().len() <= ORCPT_MAX).then_some(orcpt)
    }

    fn is_printable(&self) -> bool {
        match &self.address {
            Written::Xtext(address) => address.is_printable(),
            Written::Unitext(_) => true,
        }
    }

    /// An address of type `utf-8` that is not all ASCII, as it is printed; `None` when
    /// it is, when a character may not stand there, or the whole is longer than 500
    /// octets. Only a transaction with SMTPUTF8 may carry it.
    pub fn unitext(address: &str) -> Option<Self> {
        Self::unitext_of(UTF_8, address)
    }

    fn unitext_of(kind: &str, address: &str) -> Option<Self> {
        let may_stand = |c: char| match u8::try_from(c) {
            Ok(octet) if octet.is_ascii() => is_xchar(octet),
            _ => is_harmless_unicode(c),
        };
        let orcpt = Self {
            kind: kind.to_owned(),
            address: Written::Unitext(address.to_owned()),
        };
        let fits = orcpt.to_string().len() <= ORCPT_MAX;
        (fits && !address.is_ascii() && address.chars().all(may_stand)).then_some(orcpt)
    }

    /// Parses `rfc822;user@example.org`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, address) = text.split_once(';')?;
        if kind.eq_ignore_ascii_case(UTF_8) && !address.is_ascii() {
            return Self::unitext_of(kind, address);
        }
        Self::new(kind, Xtext::parse(address)?).filter(|_| text.len() <= ORCPT_MAX)
    }

    /// Whether it is printed in ASCII.
    pub fn is_ascii(&self) -> bool {
        matches!(self.address, Written::Xtext(_))
    }

    /// The address type, such as `rfc822`, as sent.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The address; its meaning depends on the type. It may hold control characters:
    /// never print it raw.
    pub fn address(&self) -> &str {
        match &self.address {
            Written::Xtext(address) => address.as_str(),
            Written::Unitext(address) => address,
        }
    }
}

impl fmt::Display for Orcpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Written::Xtext(address) => write!(f, "{};{address}", self.kind),
            Written::Unitext(address) => write!(f, "{};{address}", self.kind),
        }
    }
}
