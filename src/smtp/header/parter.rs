//! Parts a header section from a body that begins without an empty line.
//!
//! To some readers a header section ends at its first line that is no field, to
//! others they all count up to the first empty line. Whoever judges a message and
//! whoever gets it must not differ in that: what one takes for the body the other
//! would find changed, or not find at all. Behind an empty line they agree.

use super::change::is_name_octet;
use super::section::{is_separator, name_of};

/// In so many octets of a line its colon has come, or it is no field: RFC 5322 2.1.1
/// has no room for a longer name.
const NAME_MAX: usize = 998;

/// What an mbox separator becomes the value of.
const SEPARATOR: &[u8] = b"X-Mailbox-Line: ";

/// Octets by which a message grows at most.
pub const GROWTH_MAX: u64 = 18;

/// Puts an empty line before the first line of a header section that is neither a
/// field nor the continuation of one, be it the very first of the message. What is
/// behind an empty line passes as it is.
///
/// An mbox separator (`From `, `>From `) in front becomes a field, as Postfix has it:
/// there are servers to which it is the body.
#[derive(Debug, Default)]
pub struct Parter {
    at: At,
    /// The beginning of a line of which it is not known yet what it is.
    held: Vec<u8>,
}

/// Where in the message we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// At its first line, which may be an mbox separator.
    #[default]
    Front,
    /// In a field or a continuation of one.
    Field,
    /// At a line behind a field.
    Next,
    /// In the body.
    Body,
}

impl Parter {
    /// Whether all that follows passes as it is.
    pub fn is_over(&self) -> bool {
        self.at == At::Body
    }

    /// Takes the next octets of the content and appends to `out` what can go.
    pub fn part(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let mut rest = content;
        while !rest.is_empty() {
            match self.at {
                At::Body => return out.extend_from_slice(rest),
                At::Field => {
                    let (line, behind) = match memchr::memchr(b'\n', rest) {
                        Some(lf) => rest.split_at(lf + 1),
                        None => return out.extend_from_slice(rest),
                    };
                    out.extend_from_slice(line);
                    rest = behind;
                    self.at = At::Next;
                }
                At::Front | At::Next => {
                    let is_one = |octet: &&u8| is_name_octet(**octet) || is_space(**octet);
                    let run = rest.iter().take_while(is_one).count();
                    let room = NAME_MAX.saturating_sub(self.held.len());
                    let (beginning, behind) = rest.split_at(run.min(room).clamp(1, rest.len()));
                    rest = behind;
                    self.held.extend_from_slice(beginning);
                    if let Some(at) = self.known() {
                        self.go_on(at, out);
                    }
                }
            }
        }
    }

    /// The content is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.go_on(At::Body, out);
        }
    }

    /// What the line is that has begun.
    fn known(&self) -> Option<At> {
        let line = self.held.as_slice();
        match line {
            b"\r" => None,
            _ if self.is_led() => Some(At::Field),
            [first, ..] if is_space(*first) && self.at == At::Next => Some(At::Field),
            _ if name_of(line).is_some() => Some(At::Field),
            _ if line.len() < NAME_MAX && may_become_field(line) => None,
            _ => Some(At::Body),
        }
    }

    /// Whether an mbox separator leads the message.
    fn is_led(&self) -> bool {
        self.at == At::Front && is_separator(&self.held)
    }

    fn go_on(&mut self, at: At, out: &mut Vec<u8>) {
        if self.is_led() {
            out.extend_from_slice(SEPARATOR);
        }
        let is_empty_line = matches!(self.held.as_slice(), b"\r\n" | b"\n" | b"\r");
        if at == At::Body && !is_empty_line {
            out.extend_from_slice(b"\r\n");
        }
        out.append(&mut self.held);
        if at == At::Body {
            self.held = Vec::new();
        }
        self.at = at;
    }
}

/// Whether it is a name, perhaps with white space behind it, and nothing else yet.
fn may_become_field(line: &[u8]) -> bool {
    let length = line.iter().take_while(|o| is_name_octet(**o)).count();
    let behind = line.get(length..).unwrap_or_default();
    length > 0 && behind.iter().all(|octet| is_space(*octet))
}

fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

#[cfg(test)]
mod tests;
