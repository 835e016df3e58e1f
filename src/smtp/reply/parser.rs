//! Reads replies off a buffer, within bounds.
//!
//! Must never guess: what does not parse is an error, and the connection it
//! came from is out of step and lost.

use super::{Reply, clean};
use bytes::{Buf, BytesMut};
use memchr::memchr;

/// Longest line in octets, CRLF included: RFC 5321 4.5.3.1.5 allows 512, a challenge
/// of RFC 4954 4 may have as many as this.
const LINE_MAX: usize = 12_288;
const LINES_MAX: usize = 128;
const REPLY_MAX: usize = 64 * 1024;

/// Why the octets read are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReplyError {
    /// No code 200..=599 at the front of a line, or nothing fit behind it.
    #[error("malformed reply line")]
    Malformed,
    /// Lines of one reply with different codes (RFC 5321 4.2.1).
    #[error("reply lines with different codes")]
    MixedCodes,
    /// A CR or LF alone.
    #[error("bare CR or LF in a reply")]
    BareNewline,
    /// A line of more than 12,288 octets, more than 128 lines, or more than 64 KiB.
    #[error("reply too long")]
    TooLong,
}

/// Takes replies off the front of a buffer; use one per connection.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// Octets at the front of the buffer that are known to hold no LF.
    scanned: usize,
    /// The code of the lines so far.
    code: Option<u16>,
    lines: Vec<String>,
    /// Octets of the lines so far, codes and CRLF included.
    octets: usize,
}

impl ReplyParser {
    /// A parser at the start of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the lines of one reply off `buffer`; `None` when more octets are
    /// needed. What follows the reply stays in the buffer.
    ///
    /// # Errors
    /// The first offence; close the connection then, the parser is of no more use.
    pub fn feed(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        while let Some(length) = self.find_line(buffer)? {
            self.octets += length;
            let line = Line::parse(buffer.get(..length).unwrap_or_default())?;
            buffer.advance(length);
            if *self.code.get_or_insert(line.code) != line.code {
                return Err(ReplyError::MixedCodes);
            }
            // Most replies are one line, and some are held for long.
            if line.last {
                self.lines.reserve_exact(1);
            }
            self.lines.push(line.text);
            if self.lines.len() > LINES_MAX || self.octets > REPLY_MAX {
                return Err(ReplyError::TooLong);
            }
            if line.last {
                let whole = std::mem::take(self);
                return Ok(Some(Reply::from_wire(line.code, whole.lines)));
            }
        }
        Ok(None)
    }

    /// Whether no line of a reply is held whose end is still to come.
    pub fn is_at_rest(&self) -> bool {
        self.code.is_none()
    }

    /// How long the next line is, with its CRLF.
    fn find_line(&mut self, buffer: &[u8]) -> Result<Option<usize>, ReplyError> {
        let unscanned = buffer.get(self.scanned..).unwrap_or_default();
        let Some(found) = memchr(b'\n', unscanned) else {
            self.scanned = buffer.len();
            return match self.scanned {
                LINE_MAX.. => Err(ReplyError::TooLong),
                _ => Ok(None),
            };
        };
        let length = self.scanned + found + 1;
        self.scanned = 0;
        if length > LINE_MAX {
            return Err(ReplyError::TooLong);
        }
        Ok(Some(length))
    }
}

struct Line {
    code: u16,
    last: bool,
    text: String,
}

impl Line {
    fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        let line = line
            .strip_suffix(b"\r\n")
            .filter(|line| !line.contains(&b'\r'))
            .ok_or(ReplyError::BareNewline)?;
        let (code, rest) = match line {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
                let digit = |octet: &u8| u16::from(octet - b'0');
                (100 * digit(a) + 10 * digit(b) + digit(c), rest)
            }
            _ => return Err(ReplyError::Malformed),
        };
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(ReplyError::Malformed),
        };
        Ok(Self {
            code,
            last,
            text: match std::str::from_utf8(text) {
                Ok(text) => clean(text),
                Err(_) => clean(&String::from_utf8_lossy(text)),
            },
        })
    }
}
