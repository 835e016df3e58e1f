//! The streaming DATA codec: transparency and the end of a message (RFC 5321 4.5.2).
//!
//! Must never see an end of message in anything but CRLF . CRLF, and never let
//! a result depend on how the octets are cut into reads.

mod recoder;
mod run;

pub use recoder::{Recoded, Recoder};

use memchr::{memchr3, memmem};

/// What becomes of a CR or LF that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// It is an offence.
    Reject,
    /// It becomes CRLF.
    Normalize,
}

/// Why a message body cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyOffence {
    /// A CR that no LF follows (RFC 5321 2.3.8).
    #[error("bare CR")]
    BareCr,
    /// An LF that no CR precedes (RFC 5321 2.3.8).
    #[error("bare LF")]
    BareLf,
    /// A NUL octet.
    #[error("NUL octet")]
    Nul,
    /// A line longer than the limit (RFC 5321 4.5.3.1.6).
    #[error("line too long")]
    LineTooLong,
}

/// What ends a message, at the start of a line.
const END: &[u8] = b".\r\n";

/// A dot that leads a line of content, on the wire.
const DOT: &[u8] = b"..";

/// What one call of [`Decoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Octets of the input that belong to the message, its end included.
    pub taken: usize,
    /// Whether CRLF . CRLF was reached.
    pub ended: bool,
}

/// Takes the transparency off a DATA stream and finds its end.
#[derive(Debug)]
pub struct Decoder {
    newline: BareNewline,
    /// Longest line in octets, CRLF not counted.
    line_max: usize,
    place: Place,
    /// Octets of the current line so far.
    line: usize,
    size: u64,
    offence: Option<BodyOffence>,
}

/// Where in the line structure the next octet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Just after CRLF, or at the very beginning.
    LineStart,
    /// After a dot that leads its line; the dot is held back.
    Dot,
    /// After a leading dot and a CR, both held back.
    DotCr,
    Text,
    /// After a CR that is held back.
    Cr,
    End,
}

impl Decoder {
    /// A decoder at the start of a message, as if just after CRLF: an empty
    /// message is `.` CRLF.
    ///
    /// `line_max` is the longest line allowed in octets, CRLF included and a
    /// dot added for transparency not counted.
    pub fn new(newline: BareNewline, line_max: Option<usize>) -> Self {
        Self {
            newline,
            line_max: line_max.map_or(usize::MAX, |max| max.saturating_sub(2)),
            place: Place::LineStart,
            line: 0,
            size: 0,
            offence: None,
        }
    }

    /// Takes octets from the front of `input` and appends the decoded ones to
    /// `content`. Everything is taken unless the message ends inside `input`;
    /// never an octet beyond its end.
    pub fn decode(&mut self, input: &[u8], content: &mut Vec<u8>) -> Decoded {
        let mut at = 0;
        // input[copied..at] is content that is not appended yet.
        let mut copied = 0;
        while let Some(&octet) = input.get(at) {
            match (self.place, octet) {
                (Place::LineStart, b'.') => {
                    self.append(input.get(copied..at), content);
                    at += 1;
                    copied = at;
                    self.place = Place::Dot;
                }
                (Place::LineStart | Place::Text, _) => {
                    let rest = input.get(at..).unwrap_or_default();
                    let run = self.run(rest);
                    if run > 0 {
                        at += run;
                        continue;
                    }
                    let text = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
                    let room = self.line_max.saturating_sub(self.line);
                    if text > room && self.offence.is_none() {
                        self.append(input.get(copied..at + room), content);
                        self.offend(BodyOffence::LineTooLong);
                    }
                    self.line = self.line.saturating_add(text);
                    self.place = Place::Text;
                    match rest.get(text..).unwrap_or_default() {
                        [] => at += text,
                        [b'\r', b'\n', ..] => {
                            at += text + 2;
                            self.line = 0;
                            self.place = Place::LineStart;
                        }
                        [special, ..] => {
                            self.append(input.get(copied..at + text), content);
                            at += text + 1;
                            copied = at;
                            match special {
                                b'\r' => self.place = Place::Cr,
                                b'\n' => self.bare(BodyOffence::BareLf, content),
                                _ => self.offend(BodyOffence::Nul),
                            }
                        }
                    }
                }
                (Place::Dot, b'\r') => {
                    at += 1;
                    copied = at;
                    self.place = Place::DotCr;
                }
                // Anything else than CRLF behind it: the dot was transparency.
                (Place::Dot, _) => self.place = Place::Text,
                (Place::DotCr, b'\n') => {
                    at += 1;
                    copied = at;
                    self.place = Place::End;
                    break;
                }
                (Place::Cr, b'\n') => {
                    at += 1;
                    copied = at;
                    self.append(Some(b"\r\n"), content);
                    self.line = 0;
                    self.place = Place::LineStart;
                }
                (Place::DotCr | Place::Cr, _) => self.bare(BodyOffence::BareCr, content),
                (Place::End, _) => break,
            }
        }
        self.append(input.get(copied..at), content);
        Decoded {
            taken: at,
            ended: self.place == Place::End,
        }
    }

    /// Takes octets that are content as they stand, and whose wire form they are.
    /// Stops before the first that is not, and behind the end of the message.
    fn pass(&mut self, input: &[u8]) -> Decoded {
        let mut taken = 0;
        if self.offence.is_none() && matches!(self.place, Place::LineStart | Place::Text) {
            loop {
                let rest = input.get(taken..).unwrap_or_default();
                let run = self.run(rest);
                taken += run;
                self.size += run as u64;
                let rest = rest.get(run..).unwrap_or_default();
                if self.place == Place::LineStart && rest.starts_with(END) {
                    taken += END.len();
                    self.place = Place::End;
                    break;
                }
                if self.place != Place::LineStart || !rest.starts_with(DOT) || self.line_max == 0 {
                    break;
                }
                taken += DOT.len();
                self.size += 1;
                self.line = 1;
                self.place = Place::Text;
            }
        }
        Decoded {
            taken,
            ended: self.place == Place::End,
        }
    }

    /// The octets that follow, at the start or in the middle of a line, and are
    /// content as they stand: up to something that is not, or is not certain yet.
    fn run(&mut self, input: &[u8]) -> usize {
        let before = if self.place == Place::LineStart {
            b'\n'
        } else {
            b' '
        };
        let max = match self.offence {
            Some(_) => usize::MAX,
            None => self.line_max,
        };
        let plain = run::plain(before, input);
        let text = input.get(..plain).unwrap_or_default();
        let (run, line) = run::in_bounds(text, self.line, max);
        self.line = line;
        match input.get(..run) {
            Some([.., b'\n']) => self.place = Place::LineStart,
            Some([.., _]) => self.place = Place::Text,
            _ => {}
        }
        run
    }

    fn at_line_start(&self) -> bool {
        self.place == Place::LineStart
    }

    /// The first offence, if any. After it nothing more is appended, but the
    /// end is still found: reply only then, or the rest would be commands.
    pub fn offence(&self) -> Option<BodyOffence> {
        self.offence
    }

    /// Octets appended so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn append(&mut self, octets: Option<&[u8]>, content: &mut Vec<u8>) {
        if let (Some(octets), None) = (octets, self.offence) {
            content.extend_from_slice(octets);
            self.size += octets.len() as u64;
        }
    }

    /// A newline that stands alone. What follows is in the middle of a line as
    /// far as dots are concerned, whatever the newline turns into: a dot there
    /// is neither an end nor transparency.
    fn bare(&mut self, offence: BodyOffence, content: &mut Vec<u8>) {
        self.place = Place::Text;
        match self.newline {
            BareNewline::Reject => self.offend(offence),
            BareNewline::Normalize => {
                self.append(Some(b"\r\n"), content);
                self.line = 0;
            }
        }
    }

    fn offend(&mut self, offence: BodyOffence) {
        self.offence.get_or_insert(offence);
    }
}

/// Adds transparency and the end to a message body.
///
/// The content should have passed a [`Decoder`]. Should a bare LF get in here
/// all the same, a dot behind it is doubled too, so that no receiver, however
/// lenient, can take it for the end.
#[derive(Debug)]
pub struct Encoder {
    /// The last two octets written.
    tail: [u8; 2],
}

impl Encoder {
    /// An encoder at the start of a message.
    pub fn new() -> Self {
        Self { tail: *b"\r\n" }
    }

    /// Appends `content`, with transparency, to `wire`.
    pub fn encode(&mut self, content: &[u8], wire: &mut Vec<u8>) {
        if self.at_line_start() && content.starts_with(b".") {
            wire.push(b'.');
        }
        let mut copied = 0;
        for newline in memmem::find_iter(content, b"\n.") {
            let dot = newline + 1;
            wire.extend_from_slice(content.get(copied..dot).unwrap_or_default());
            wire.push(b'.');
            copied = dot;
        }
        wire.extend_from_slice(content.get(copied..).unwrap_or_default());
        self.passed(content);
    }

    /// So much has been written without us.
    fn passed(&mut self, wire: &[u8]) {
        self.tail = match (self.tail, wire) {
            (_, [.., before, last]) => [*before, *last],
            ([_, before], [last]) => [before, *last],
            (tail, []) => tail,
        };
    }

    fn at_line_start(&self) -> bool {
        self.tail.ends_with(b"\n")
    }

    /// Appends the end of the message to `wire`, after a CRLF if the content
    /// did not end in one.
    pub fn finish(self, wire: &mut Vec<u8>) {
        if self.tail != *b"\r\n" {
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(END);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
