//! Domain names as they stand in addresses (RFC 5321 4.1.2, RFC 6531 3.3).

use super::{AddressError, is_harmless_unicode};
use std::fmt;
use std::sync::Arc;

const LABEL_MAX: usize = 63;
const DOMAIN_MAX: usize = 255;

/// Labels of letters, digits, hyphen, underscore or non-ASCII (RFC 6531),
/// 1..=63 octets each, 1..=255 in all, no trailing dot. A label neither begins
/// nor ends with a hyphen. Spelling is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a domain; one label is enough.
    ///
    /// # Errors
    /// When a label is empty (a trailing dot leaves one), too long or holds
    /// another character.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > DOMAIN_MAX {
            return Err(AddressError("a domain of 1 to 255 octets is due"));
        }
        for label in text.as_bytes().split(|octet| *octet == b'.') {
            if label.is_empty() || label.len() > LABEL_MAX {
                return Err(AddressError("domain label not of 1 to 63 octets"));
            }
            let harmless = label.iter().all(|octet| is_label_octet(*octet));
            if label.starts_with(b"-") || label.ends_with(b"-") || !harmless {
                return Err(AddressError("forbidden character in the domain"));
            }
        }
        if !text.is_ascii() && !text.chars().all(|c| c.is_ascii() || is_beyond_ascii(c)) {
            return Err(AddressError("forbidden character in the domain"));
        }
        Ok(Self(text.into()))
    }

    /// The domain as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }

    /// The form to compare: A-labels (RFC 5890 2.3.2.1) in lower case. `None`
    /// when it has none; such a domain equals no other.
    pub fn to_ascii_lowercase(&self) -> Option<String> {
        if self.is_ascii() {
            return Some(self.0.to_ascii_lowercase());
        }
        let ascii = idna::domain_to_ascii_cow(self.0.as_bytes(), idna::AsciiDenyList::URL).ok()?;
        // The mapping can drop characters and grow labels: look at it again.
        let ascii = Self::parse(&ascii).ok()?;
        ascii.is_ascii().then(|| ascii.0.to_string())
    }
}

/// Octets beyond ASCII are parts of characters that are looked at as a whole.
fn is_label_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_') || !octet.is_ascii()
}

/// U+3002, U+FF0E and U+FF61 are dots for IDNA (RFC 3490 3.1) and letters for
/// everybody else: where the labels end must not be a matter of opinion.
fn is_beyond_ascii(c: char) -> bool {
    let other_dot = matches!(c, '\u{3002}' | '\u{ff0e}' | '\u{ff61}');
    is_harmless_unicode(c) && !other_dot
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
