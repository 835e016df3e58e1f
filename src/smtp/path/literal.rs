//! Address literals: `[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[tag:content]`
//! (RFC 5321 4.1.3).

use super::AddressError;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

const LITERAL_MAX: usize = 255;
const IPV6_TAG: &str = "IPv6";

/// An address in square brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressLiteral {
    /// `[192.0.2.1]`
    V4(Ipv4Addr),
    /// `[IPv6:2001:db8::1]`
    V6(Ipv6Addr),
    /// A form that nobody has defined yet.
    General {
        /// Letters, digits and inner hyphens; not `IPv6` in any case.
        tag: String,
        /// 1 or more ASCII graphic characters other than `[`, `\` and `]`.
        content: String,
    },
}

impl AddressLiteral {
    /// Parses a literal with its square brackets.
    ///
    /// # Errors
    /// When it is no address literal, or longer than 255 octets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let bad = AddressError("bad address literal");
        let inside = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .filter(|_| text.len() <= LITERAL_MAX)
            .ok_or(bad)?;
        let Some((tag, content)) = inside.split_once(':') else {
            return inside.parse().map(Self::V4).map_err(|_| bad);
        };
        if tag.eq_ignore_ascii_case(IPV6_TAG) {
            return content.parse().map(Self::V6).map_err(|_| bad);
        }
        if !is_tag(tag) || content.is_empty() || !content.bytes().all(is_dcontent) {
            return Err(bad);
        }
        Ok(Self::General {
            tag: tag.to_owned(),
            content: content.to_owned(),
        })
    }
}

/// Ldh-str: ends with a letter or digit.
fn is_tag(tag: &str) -> bool {
    let ldh = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    !tag.is_empty() && tag.bytes().all(ldh) && !tag.ends_with('-')
}

fn is_dcontent(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'[' | b'\\' | b']')
}

impl fmt::Display for AddressLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "[{address}]"),
            Self::V6(address) => write!(f, "[{IPV6_TAG}:{address}]"),
            Self::General { tag, content } => write!(f, "[{tag}:{content}]"),
        }
    }
}
