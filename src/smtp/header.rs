//! Header fields of a message (RFC 5322 2.2), changed while the message passes.
//!
//! Must never touch an octet of the body unless asked to drop it for another one,
//! never print a field that could be taken for two or for the end of the header
//! section, and never let a result depend on how the octets are cut.
//!
//! What is taken for the header section: every line up to the first empty one.
//! A line that is neither a field nor a continuation stays where it is, and
//! fields behind it still count: some readers end the section there and some
//! do not, and a forged field must be found for both. A message that is judged has
//! an empty line there and no separator in front, see [`Parter`]. A message whose
//! very first line is no field has no header section; an empty line then parts new
//! fields from it, so that its first line cannot continue the last of them.
//! An mbox separator (`From `, `>From `, `>>From `) that leads a message stays in front:
//! servers look for it nowhere else.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

mod change;
mod parter;
mod section;

pub use change::{Change, FieldError, Place};
pub use parter::{GROWTH_MAX, Parter};
use section::Section;
pub(crate) use section::{is_field, is_separator};

/// Longest header section that is edited, octets. A message with a longer one,
/// or with one of too many lines, gets its new fields in front and passes
/// otherwise unchanged; a [`Gauge`] tells beforehand.
pub const SECTION_MAX: usize = 1024 * 1024;

/// Most lines of a header section that is edited: each change looks at all fields.
const LINES_MAX: usize = 20_000;

/// What is changed in a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// Names of fields that are taken out, all of each name, before anything
    /// is put in; `*` at the end stands for any ending. Case does not count.
    pub remove: Vec<&'static str>,
    /// Then these, in order. One that [`Change::checked`] refuses is left out.
    pub changes: Vec<Change>,
}

impl Edits {
    /// Whether the message stays as it is.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.changes.is_empty()
    }
}

/// Edits one message while it passes.
#[derive(Debug)]
pub struct Editor {
    trace: Bytes,
    edits: Edits,
    body: Fate,
    state: State,
}

/// What becomes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Another one will follow the header section.
    Dropped,
}

#[derive(Debug)]
enum State {
    /// The header section is coming, and is held back.
    Header(Incoming),
    /// The body passes.
    Body,
    /// The body is thrown away.
    Dropped,
}

/// A header section of which the end has not come yet.
#[derive(Debug, Default)]
struct Incoming {
    held: BytesMut,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// No LF stands between there and here.
    searched: usize,
    /// Complete lines.
    lines: usize,
}

/// What is known of a header section.
enum Extent {
    /// Its end has not come.
    Unknown,
    /// It ends here, behind its empty line.
    Ends(usize),
    /// It is too long to be edited.
    Overlong,
}

/// Measures the header section of a message before anybody edits it.
#[derive(Debug, Default)]
pub struct Gauge(Incoming);

/// Whether a header section is short enough to be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Editable,
    /// Nothing can be taken out of it, and the body cannot be replaced.
    Overlong,
}

impl Gauge {
    /// Takes the next octets of the content; `None` while it takes more to tell.
    pub fn measure(&mut self, content: &[u8]) -> Option<Fit> {
        self.0.held.extend_from_slice(content);
        match self.0.extent() {
            Extent::Unknown => None,
            Extent::Ends(_) => Some(Fit::Editable),
            Extent::Overlong => Some(Fit::Overlong),
        }
    }
}

impl Editor {
    /// An editor at the start of a message. `trace` are whole fields, CRLF
    /// included, that stand before all others, or nothing. They count where
    /// a change counts fields, since scanners saw them, but none alters them.
    pub fn new(trace: &[u8], edits: Edits) -> Self {
        let state = if trace.is_empty() && edits.is_empty() {
            State::Body
        } else {
            State::Header(Incoming::default())
        };
        Self {
            trace: Bytes::copy_from_slice(trace),
            edits,
            body: Fate::Passes,
            state,
        }
    }

    /// As [`Editor::new`], for a message whose body is dropped: a header section
    /// comes out with its empty line, and whoever edits writes another body
    /// behind it. See [`Editor::has_dropped_body`].
    pub fn without_body(trace: &[u8], edits: Edits) -> Self {
        Self {
            body: Fate::Dropped,
            state: State::Header(Incoming::default()),
            ..Self::new(trace, edits)
        }
    }

    /// Whether all that will come out has come out, and the message's own body
    /// does not. Not so before the header section has ended, and never where it
    /// is too long to be edited: such a message keeps its body.
    pub fn has_dropped_body(&self) -> bool {
        matches!(self.state, State::Dropped)
    }

    /// Takes the next octets of the content and appends to `out` what can go.
    /// No more than [`SECTION_MAX`] octets and one `content` are held back.
    pub fn edit(&mut self, content: &[u8], out: &mut Vec<u8>) {
        match &mut self.state {
            State::Body => out.extend_from_slice(content),
            State::Dropped => {}
            State::Header(incoming) => {
                incoming.held.extend_from_slice(content);
                let extent = incoming.extent();
                if let Extent::Unknown = extent {
                    return;
                }
                let held = std::mem::take(&mut incoming.held).freeze();
                match extent {
                    Extent::Ends(end) => self.write(held.slice(..end), held.slice(end..), out),
                    Extent::Unknown | Extent::Overlong => self.write_overlong(held, out),
                }
            }
        }
    }

    /// The content is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let State::Header(incoming) = &mut self.state {
            let held = std::mem::take(&mut incoming.held).freeze();
            self.write(held, Bytes::new(), out);
        }
    }

    /// Writes the edited section and what is known of the body.
    fn write(&mut self, held: Bytes, body: Bytes, out: &mut Vec<u8>) {
        let edits = std::mem::take(&mut self.edits);
        let mut section = Section::parse(&self.trace, held);
        section.remove(&edits.remove);
        for change in edits.changes {
            if let Ok(change) = change.checked() {
                section.apply(change);
            }
        }
        match self.body {
            Fate::Passes => {
                section.print(out);
                out.extend_from_slice(&body);
                self.state = State::Body;
            }
            Fate::Dropped => {
                section.print_for_another_body(out);
                self.state = State::Dropped;
            }
        }
    }

    /// Puts the new fields before a section that is too long to be edited.
    fn write_overlong(&mut self, held: Bytes, out: &mut Vec<u8>) {
        let edits = std::mem::take(&mut self.edits);
        let mut section = Section::parse_front(&self.trace, held);
        for change in edits.changes {
            if let Ok(Change::Add { name, value, .. }) = change.checked() {
                section.apply(Change::Add {
                    place: Place::Last,
                    name,
                    value,
                });
            }
        }
        section.print(out);
        self.state = State::Body;
    }
}

impl Incoming {
    /// Looks at the lines that have come since it was asked last. The answer
    /// depends on the octets alone, not on how they came.
    fn extent(&mut self) -> Extent {
        while let Some(lf) = memchr(b'\n', self.held.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + lf + 1;
            if end > SECTION_MAX || self.lines == LINES_MAX {
                return Extent::Overlong;
            }
            if matches!(self.held.get(self.line..end), Some(b"\r\n" | b"\n")) {
                return Extent::Ends(end);
            }
            (self.line, self.searched) = (end, end);
            self.lines += 1;
        }
        self.searched = self.held.len();
        if self.held.len() > SECTION_MAX {
            Extent::Overlong
        } else {
            Extent::Unknown
        }
    }
}

#[cfg(test)]
mod tests;
