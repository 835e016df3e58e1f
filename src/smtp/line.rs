//! Cuts one strict CRLF line off a growing buffer (RFC 5321 2.3.8).
//!
//! Must never end a line at anything but CRLF, and never hold more than one
//! line's worth of octets back.

use bytes::{Buf, BytesMut};
use memchr::memchr3;

/// Why the octets read are not a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineOffence {
    /// A CR that no LF follows. Final: the stream is over.
    #[error("bare CR")]
    BareCr,
    /// An LF that no CR precedes. Final: the stream is over.
    #[error("bare LF")]
    BareLf,
    /// A NUL octet. Final: the stream is over.
    #[error("NUL octet")]
    Nul,
    /// The line was longer than allowed; it has been discarded up to its CRLF
    /// and the next line can be read.
    #[error("line too long")]
    TooLong,
    /// The stream opens with a TLS record where text was due. Final.
    #[error("TLS hello on a plain text port")]
    TlsHello,
}

/// Takes lines off the front of a buffer; use one cutter per stream, and a new
/// one after an upgrade to TLS.
#[derive(Debug, Default)]
pub struct LineCutter {
    state: State,
    /// Octets at the front of the buffer that are known to hold no line end.
    scanned: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was cut yet: a TLS hello would show now.
    #[default]
    Fresh,
    Reading,
    /// Inside a line that is too long; its octets are dropped as they come.
    Discarding,
    Broken(LineOffence),
}

impl LineCutter {
    /// A cutter at the very beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one line off the front of `buffer` and returns it without its
    /// CRLF, or `None` when more octets are needed.
    ///
    /// `max` is the longest line allowed in octets, CRLF included.
    ///
    /// # Errors
    /// The first offence of the stream; every one but `TooLong` is final and is
    /// reported again if asked again. The result does not depend on how the
    /// octets arrive.
    pub fn cut(
        &mut self,
        buffer: &mut BytesMut,
        max: usize,
    ) -> Result<Option<BytesMut>, LineOffence> {
        match (self.state, buffer.as_ref()) {
            (State::Broken(offence), _) => return Err(offence),
            // ContentType handshake, protocol version major 3 (RFC 8446 5.1).
            (State::Fresh, [0x16, 0x03, ..]) => return Err(self.broken(LineOffence::TlsHello)),
            (State::Fresh, [0x16]) => return Ok(None),
            _ => {}
        }
        let unscanned = buffer.get(self.scanned..).unwrap_or_default();
        let end = match memchr3(b'\r', b'\n', 0, unscanned) {
            Some(found) => self.scanned + found,
            None => buffer.len(),
        };
        let too_long = self.state == State::Discarding || end.saturating_add(2) > max;
        match buffer.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {
                let mut line = match buffer.len() - end {
                    // Nothing is behind it: it need not be told apart.
                    2 => std::mem::take(buffer),
                    _ => buffer.split_to(end + 2),
                };
                line.truncate(end);
                self.scanned = 0;
                self.state = State::Reading;
                if too_long {
                    return Err(LineOffence::TooLong);
                }
                Ok(Some(line))
            }
            // A CR at the very end is not certain yet.
            [] | [b'\r'] => {
                self.scanned = end;
                if too_long {
                    buffer.advance(end);
                    self.scanned = 0;
                    self.state = State::Discarding;
                }
                Ok(None)
            }
            [b'\r', ..] => Err(self.broken(LineOffence::BareCr)),
            [b'\n', ..] => Err(self.broken(LineOffence::BareLf)),
            _ => Err(self.broken(LineOffence::Nul)),
        }
    }

    fn broken(&mut self, offence: LineOffence) -> LineOffence {
        self.state = State::Broken(offence);
        offence
    }
}

#[cfg(test)]
mod tests;
