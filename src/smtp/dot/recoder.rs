//! From the wire of a client to that of a backend: what a decoder and an encoder make
//! of a body, mostly without copying it.
//!
//! Must never write anything that the two of them would not.

use super::{BareNewline, BodyOffence, Decoded, Decoder, Encoder};

/// A [`Decoder`] and an [`Encoder`] behind it: from one wire to another.
///
/// What comes out is what the two of them make of it, but most octets are not
/// copied twice for that.
#[derive(Debug)]
pub struct Recoder {
    decoder: Decoder,
    encoder: Encoder,
    content: Vec<u8>,
}

/// Octets of room that a [`Recoder`] keeps from one call to the next.
const KEPT: usize = 16 * 1024;

/// What one call of [`Recoder::recode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recoded {
    /// Octets of the input that belong to the message, its end included.
    pub taken: usize,
    /// Whether CRLF . CRLF was reached.
    pub ended: bool,
    /// Whether the octets taken are to be written just as they are.
    pub as_is: bool,
}

impl Recoder {
    /// For a message that comes by the rules of [`Decoder::new`].
    pub fn new(newline: BareNewline, line_max: Option<usize>) -> Self {
        Self {
            decoder: Decoder::new(newline, line_max),
            encoder: Encoder::new(),
            content: Vec::new(),
        }
    }

    /// Appends content of our own to `wire`, before anything else or between lines.
    pub fn insert(&mut self, content: &[u8], wire: &mut Vec<u8>) {
        self.encoder.encode(content, wire);
    }

    /// Takes octets from the front of `input`, as [`Decoder::decode`] does. What is
    /// to be written is appended to `wire`, with the end of the message, unless it
    /// is what was taken ([`Recoded::as_is`]) and `wire` is empty.
    ///
    /// After an offence nothing more is to be written, the end neither.
    pub fn recode(&mut self, input: &[u8], wire: &mut Vec<u8>) -> Recoded {
        let passed = self.pass(input);
        let front = input.get(..passed.taken).unwrap_or_default();
        if wire.is_empty() && (passed.ended || front.len() == input.len()) {
            return Recoded {
                taken: passed.taken,
                ended: passed.ended,
                as_is: true,
            };
        }
        wire.extend_from_slice(front);
        let rest = input.get(passed.taken..).unwrap_or_default();
        let decoded = self.decoder.decode(rest, &mut self.content);
        self.encoder.encode(&self.content, wire);
        if self.content.capacity() > KEPT {
            self.content = Vec::new();
        }
        self.content.clear();
        if decoded.ended && !passed.ended && self.offence().is_none() {
            std::mem::take(&mut self.encoder).finish(wire);
        }
        Recoded {
            taken: passed.taken + decoded.taken,
            ended: decoded.ended,
            as_is: false,
        }
    }

    fn pass(&mut self, input: &[u8]) -> Decoded {
        // Where a bare newline has become CRLF, a dot is no transparency on this
        // side and needs some on the other.
        if self.encoder.at_line_start() != self.decoder.at_line_start() {
            return Decoded {
                taken: 0,
                ended: false,
            };
        }
        let passed = self.decoder.pass(input);
        self.encoder
            .passed(input.get(..passed.taken).unwrap_or_default());
        passed
    }

    /// The first offence, if any.
    pub fn offence(&self) -> Option<BodyOffence> {
        self.decoder.offence()
    }

    /// Octets of content so far.
    pub fn size(&self) -> u64 {
        self.decoder.size()
    }
}
