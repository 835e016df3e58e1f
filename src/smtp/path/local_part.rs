//! The local part of a mailbox (RFC 5321 4.1.2, RFC 6531 3.3).
//!
//! Must never interpret what it holds: only the destination may.

use super::{AddressError, is_harmless_unicode};
use std::fmt::{self, Write};
use std::sync::Arc;

/// Octets. RFC 5321 4.5.3.1.1 makes every server take 64 and lets none fail for
/// more if it can be helped: the senders of lists and forwarders (VERP, SRS) are
/// longer every day. The bound of the whole path holds above this one.
const LOCAL_PART_MAX: usize = 200;

/// The content of a local part, unquoted. Printed as a dot-string if it is
/// one, otherwise as a quoted string. 1..=200 octets (UTF-8 counted in octets).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalPart {
    content: Arc<str>,
    /// Whether it is printed without quotes.
    is_dot_string: bool,
}

impl LocalPart {
    /// Takes content as it is meant, without quoting.
    ///
    /// # Errors
    /// When it is empty, too long, or holds a control or deceptive character.
    pub fn from_content(content: &str) -> Result<Self, AddressError> {
        if content.is_empty() {
            return Err(AddressError("empty local part"));
        }
        if content.len() > LOCAL_PART_MAX {
            return Err(AddressError("local part too long"));
        }
        if !content.chars().all(is_content) {
            return Err(AddressError("forbidden character in the local part"));
        }
        Ok(Self {
            content: content.into(),
            is_dot_string: is_dot_string(content),
        })
    }

    /// Parses a local part as it stands on the wire, quoted or not.
    ///
    /// # Errors
    /// When it is no local part.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match Self::split(text)? {
            (local, "") => Ok(local),
            _ => Err(AddressError("forbidden character in the local part")),
        }
    }

    /// Parses a local part off the front of `text` and returns what follows it.
    ///
    /// Unquoted dots may stand anywhere (`first..last`, `name.`): carriers gave
    /// out such addresses. The content is kept and printed quoted.
    pub(super) fn split(text: &str) -> Result<(Self, &str), AddressError> {
        if let Some(quoted) = text.strip_prefix('"') {
            return Self::split_quoted(quoted);
        }
        let end = text
            .find(|c| c != '.' && !is_atext(c))
            .unwrap_or(text.len());
        let (content, rest) = text.split_at_checked(end).unwrap_or_default();
        Ok((Self::from_content(content)?, rest))
    }

    fn split_quoted(quoted: &str) -> Result<(Self, &str), AddressError> {
        let mut content = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => return Ok((Self::from_content(&content)?, chars.as_str())),
                // quoted-pairSMTP = %d92 %d32-126
                '\\' => match chars.next() {
                    Some(escaped @ ' '..='~') => content.push(escaped),
                    _ => return Err(AddressError("bad escape in the quoted string")),
                },
                plain => content.push(plain),
            }
        }
        Err(AddressError("quoted string without an end"))
    }

    /// The content without quoting.
    pub fn as_str(&self) -> &str {
        &self.content
    }

    /// Octets of the printed form.
    pub(super) fn width(&self) -> usize {
        let quotes = if self.is_dot_string {
            0
        } else {
            let is_escaped = |octet: &u8| needs_escape(char::from(*octet));
            2 + self.content.bytes().filter(is_escaped).count()
        };
        self.content.len() + quotes
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.content.is_ascii()
    }
}

fn is_content(c: char) -> bool {
    matches!(c, ' '..='~') || is_harmless_unicode(c)
}

/// RFC 5322 3.2.3, with UTF-8 as RFC 6531 3.3 adds it.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_harmless_unicode(c)
}

fn is_dot_string(content: &str) -> bool {
    content
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5321 4.1.2 (quoted-pairSMTP)
fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\')
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dot_string {
            return f.write_str(&self.content);
        }
        f.write_char('"')?;
        for c in self.content.chars() {
            if needs_escape(c) {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}
