//! Where our trace field goes in a message that passes as it comes: on top, but
//! behind an mbox separator, which servers look for nowhere else and in no chunk,
//! and with an empty line behind it where no header section is known to follow.
//!
//! Must never let the sender's first line continue a field that bears our name.

use super::BUFFER;
use crate::smtp::header::{is_field, is_separator};

/// Octets in which the first two lines of honest mail are known for what they are.
const ENOUGH: usize = 4 * 1024;
const _: () = assert!(ENOUGH < BUFFER);

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// With a dot before each line that begins with one (RFC 5321 4.5.2).
    Data,
    /// In chunks (RFC 3030 2).
    Chunk,
}

/// How a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// Octets of the separator line as it travels.
    pub(super) separator: usize,
    /// Whether an empty line must part fields of ours from what follows.
    pub(super) parted: bool,
}

impl Front {
    /// Looks at the first octets of a message, of which there may be more. `None`:
    /// not enough is known.
    pub(super) fn of(octets: &[u8], form: Form, more: bool) -> Option<Self> {
        let more = more && octets.len() < ENOUGH;
        let first = Line::of(octets);
        if first.end == 0 && more {
            return None;
        }
        let is_led = form == Form::Data && first.is_proper && is_separator(first.text(form));
        if !is_led {
            return Some(Self {
                separator: 0,
                parted: !first.begins_header(form),
            });
        }
        let separator = first.end;
        let second = Line::of(octets.get(separator..).unwrap_or_default());
        if second.end == 0 && more {
            return None;
        }
        Some(Self {
            separator,
            parted: !second.begins_header(form),
        })
    }
}

/// A line, or the beginning of one.
struct Line<'a> {
    octets: &'a [u8],
    /// Where the next line begins; 0 for nowhere yet.
    end: usize,
    /// Whether CRLF ends it.
    is_proper: bool,
}

impl<'a> Line<'a> {
    /// A bare CR or LF is an end here too: it is one once it is repaired, and
    /// if it is not, the message never arrives.
    fn of(octets: &'a [u8]) -> Self {
        let Some(end) = memchr::memchr2(b'\r', b'\n', octets) else {
            return Self {
                octets,
                end: 0,
                is_proper: false,
            };
        };
        let (line, rest) = octets.split_at_checked(end).unwrap_or_default();
        let (length, is_proper) = match rest {
            // What follows the CR is not known.
            [b'\r'] => (0, false),
            [b'\r', b'\n', ..] => (2, true),
            _ => (1, false),
        };
        Self {
            octets: line,
            end: if length == 0 { 0 } else { end + length },
            is_proper,
        }
    }

    fn text(&self, form: Form) -> &'a [u8] {
        match form {
            Form::Data => self.octets.strip_prefix(b".").unwrap_or(self.octets),
            Form::Chunk => self.octets,
        }
    }

    /// Whether fields may stand right before it: it is one, or empty, or the end
    /// of the message, or may become a field when the rest of it comes. One of which
    /// nothing has come may become anything.
    fn begins_header(&self, form: Form) -> bool {
        let text = self.text(form);
        let may_become = || self.end == 0 && is_field(&[text, b":"].concat());
        (text.is_empty() && self.end > 0) || is_field(text) || may_become()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(separator: usize, parted: bool) -> Option<Front> {
        Some(Front { separator, parted })
    }

    #[test]
    fn tells_a_header_section_from_what_is_none() {
        for (octets, front) in [
            ("Subject: x\r\n", at(0, false)),
            ("subject :x\r\n", at(0, false)),
            ("\r\nbody\r\n", at(0, false)),
            (".\r\n", at(0, false)),
            ("..x: y\r\n", at(0, false)),
            ("\tfrom elsewhere\r\n", at(0, true)),
            (" \r\n", at(0, true)),
            (". x\r\n", at(0, true)),
            ("Hello\r\n", at(0, true)),
            ("Hello Bob: how are you\r\n", at(0, true)),
            (": x\r\n", at(0, true)),
            ("From bob Mon\r\nSubject: x\r\n", at(14, false)),
            (">From bob Mon\r\n\r\n", at(15, false)),
            (".From bob Mon\r\n.\r\n", at(15, false)),
            ("From bob Mon\r\n\tfrom elsewhere\r\n", at(14, true)),
            ("From bob Mon\r\nFrom bob Tue\r\n", at(14, true)),
            ("From bob Mon\nSubject: x\r\n", at(0, true)),
            ("From bob Mon\rSubject: x\r\n", at(0, true)),
            ("Subject: x", None),
            ("Subject: x\r", None),
            ("From bob Mon\r\nSubject: x", None),
            ("", None),
        ] {
            assert_eq!(
                Front::of(octets.as_bytes(), Form::Data, true),
                front,
                "{octets:?}"
            );
        }
    }

    #[test]
    fn decides_by_what_there_is_when_no_more_may_come() {
        for (octets, front) in [
            ("Sub", at(0, false)),
            ("Subject: x", at(0, false)),
            ("\t", at(0, true)),
            ("From bob", at(0, true)),
            (".\r\n", at(0, true)),
            ("", at(0, true)),
            ("From bob Mon\r\nSubject: x\r\n", at(0, true)),
            ("From bob Mon\r\n", at(0, true)),
        ] {
            assert_eq!(
                Front::of(octets.as_bytes(), Form::Chunk, false),
                front,
                "{octets:?}"
            );
        }
        for (line, second, parted) in [
            ("From ", "", true),
            ("From ", "Sub", false),
            ("From ", ".", true),
        ] {
            let name = "x".repeat(ENOUGH - line.len() - second.len() - 2);
            let octets = format!("{line}{name}\r\n{second}");
            let separator = ENOUGH - second.len();
            let front = Front::of(octets.as_bytes(), Form::Data, true);
            assert_eq!(front, at(separator, parted), "{second:?}");
        }
        let long = "x".repeat(ENOUGH);
        assert_eq!(Front::of(long.as_bytes(), Form::Data, true), at(0, false));
        let spaced = format!(" {long}");
        assert_eq!(Front::of(spaced.as_bytes(), Form::Data, true), at(0, true));
    }
}
