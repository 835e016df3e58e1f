//! The header section of one message, held whole: its fields in order.

use bytes::Bytes;
use memchr::memchr;

use super::change::{Change, Place, is_name_octet};

/// A header section that is being edited.
pub(super) struct Section {
    /// The mbox separator line, or nothing.
    separator: Bytes,
    /// The fields, and among them the lines that are none.
    fields: Vec<Field>,
    /// How many of the fields are our own trace, which nothing goes before.
    trace: usize,
    /// What follows the fields.
    rest: Rest,
    /// Whether any field was put in.
    has_grown: bool,
}

enum Rest {
    /// The empty line, as it came.
    EmptyLine(Bytes),
    /// Nothing: the message ends with its header section.
    Nothing,
    /// Content that is no header section, or of one that is too long to be edited.
    Content { octets: Bytes, parted: Parted },
}

/// Whether an empty line must part new fields from what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parted {
    ByEmptyLine,
    Not,
}

/// A field with its continuation lines, or a line that is no field.
struct Field(Bytes);

impl Section {
    /// Reads a section up to and with its empty line, or without one where the
    /// message ends before.
    pub(super) fn parse(trace: &Bytes, held: Bytes) -> Self {
        let mut section = Self::parse_front(trace, held);
        let Rest::Content {
            octets,
            parted: Parted::Not,
        } = &mut section.rest
        else {
            return section;
        };
        let mut octets = std::mem::take(octets);
        section.rest = Rest::Nothing;
        while !octets.is_empty() {
            let field = octets.split_to(field_length(&octets));
            if matches!(field.as_ref(), b"\r\n" | b"\n") {
                section.rest = Rest::EmptyLine(field);
                break;
            }
            section.fields.push(Field(field));
        }
        section
    }

    /// Reads only as much as is needed to put fields in front.
    pub(super) fn parse_front(trace: &Bytes, mut held: Bytes) -> Self {
        let separator = if is_separator(&held) {
            held.split_to(line_length(&held))
        } else {
            Bytes::new()
        };
        let first = Field(held.clone());
        let has_header = held.is_empty()
            || held.starts_with(b"\r\n")
            || held.starts_with(b"\n")
            || first.name().is_some();
        let mut fields = Vec::new();
        let mut trace = trace.clone();
        while !trace.is_empty() {
            fields.push(Field(trace.split_to(field_length(&trace))));
        }
        Self {
            separator,
            trace: fields.len(),
            has_grown: !fields.is_empty(),
            fields,
            rest: Rest::Content {
                octets: held,
                parted: if has_header {
                    Parted::Not
                } else {
                    Parted::ByEmptyLine
                },
            },
        }
    }

    /// Takes out every field with one of these names, or that begins with one
    /// that ends in `*`.
    pub(super) fn remove(&mut self, names: &[&str]) {
        let is_meant = |field: &Field| {
            field.name().is_some_and(|found| {
                names.iter().any(|name| match name.strip_suffix('*') {
                    Some(start) => found
                        .get(..start.len())
                        .is_some_and(|found| found.eq_ignore_ascii_case(start.as_bytes())),
                    None => found.eq_ignore_ascii_case(name.as_bytes()),
                })
            })
        };
        let mut index = 0;
        let trace = self.trace;
        self.fields.retain(|field| {
            index += 1;
            index <= trace || !is_meant(field)
        });
    }

    /// Applies a change that has been checked.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Add { place, name, value } => {
                let at = match place {
                    Place::First => self.trace,
                    Place::Last => self.end(),
                    Place::At(index) => usize::try_from(index)
                        .unwrap_or(usize::MAX)
                        .min(self.end())
                        .max(self.trace),
                };
                self.put(at, &name, &value);
            }
            Change::Set { name, index, value } => match (self.find(&name, index), value.trim()) {
                (None, "") => {}
                (None, _) => self.put(self.end(), &name, &value),
                (Some(at), _) if at < self.trace => {}
                (Some(at), "") => drop(self.fields.remove(at)),
                (Some(at), _) => {
                    if let Some(field) = self.fields.get_mut(at) {
                        *field = Field::new(&name, &value);
                    }
                }
            },
            Change::Delete {
                name,
                index: None | Some(0),
            } => {
                let (mut index, trace) = (0, self.trace);
                self.fields.retain(|field| {
                    index += 1;
                    index <= trace || !field.is_named(&name)
                });
            }
            Change::Delete {
                name,
                index: Some(index),
            } => {
                if let Some(at) = self.find(&name, index)
                    && at >= self.trace
                {
                    self.fields.remove(at);
                }
            }
        }
    }

    fn put(&mut self, at: usize, name: &str, value: &str) {
        self.fields.insert(at, Field::new(name, value));
        self.has_grown = true;
    }

    /// Behind the last field that every reader takes for one.
    fn end(&self) -> usize {
        let is_no_field = |field: &Field| field.name().is_none();
        let end = self.fields.iter().position(is_no_field);
        end.unwrap_or(self.fields.len())
    }

    /// The nth (from 1) field of that name.
    fn find(&self, name: &str, index: u32) -> Option<usize> {
        let nth = usize::try_from(index.saturating_sub(1)).ok()?;
        let fields = self.fields.iter().enumerate();
        fields
            .filter(|(_, field)| field.is_named(name))
            .map(|(at, _)| at)
            .nth(nth)
    }

    /// Appends the section, and what else was held, to `out`.
    pub(super) fn print(self, out: &mut Vec<u8>) {
        let has_grown = self.has_grown;
        match self.print_fields(out) {
            Rest::EmptyLine(line) => out.extend_from_slice(&line),
            Rest::Nothing => {}
            Rest::Content { octets, parted } => {
                if has_grown && parted == Parted::ByEmptyLine {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(&octets);
            }
        }
    }

    /// Appends the section with an empty line at its end; what was held of the
    /// body is dropped.
    pub(super) fn print_for_another_body(self, out: &mut Vec<u8>) {
        match self.print_fields(out) {
            Rest::EmptyLine(line) => out.extend_from_slice(&line),
            Rest::Nothing | Rest::Content { .. } => out.extend_from_slice(b"\r\n"),
        }
    }

    fn print_fields(self, out: &mut Vec<u8>) -> Rest {
        let pieces = std::iter::once(&self.separator).chain(self.fields.iter().map(|f| &f.0));
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            out.extend_from_slice(piece);
            // The message may have ended inside its last line.
            if !piece.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
        self.rest
    }
}

impl Field {
    fn new(name: &str, value: &str) -> Self {
        let space = if value.starts_with([' ', '\t']) {
            ""
        } else {
            " "
        };
        Self(format!("{name}:{space}{value}\r\n").into())
    }

    /// The name, without the white space that may stand before the colon
    /// (RFC 5322 4.5); `None` for a line that is no field.
    fn name(&self) -> Option<&[u8]> {
        name_of(&self.0)
    }

    fn is_named(&self, name: &str) -> bool {
        self.name()
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The name of the field that begins a line (RFC 5322 2.2, and 4.5 for white space
/// before the colon).
pub(super) fn name_of(line: &[u8]) -> Option<&[u8]> {
    let length = line.iter().take_while(|o| is_name_octet(**o)).count();
    let (name, rest) = line.split_at_checked(length)?;
    let behind = rest.iter().find(|octet| !matches!(octet, b' ' | b'\t'));
    (!name.is_empty() && behind == Some(&b':')).then_some(name)
}

/// Whether a line begins a field.
pub(crate) fn is_field(line: &[u8]) -> bool {
    name_of(line).is_some()
}

/// Whether an mbox separator leads these octets, quoted or not: Postfix takes
/// any number of `>` for quotes.
pub(crate) fn is_separator(octets: &[u8]) -> bool {
    let quotes = octets.iter().take_while(|octet| **octet == b'>').count();
    let unquoted = octets.get(quotes..).unwrap_or_default();
    unquoted.starts_with(b"From ")
}

/// The length of the first line, its LF included.
fn line_length(octets: &[u8]) -> usize {
    memchr(b'\n', octets).map_or(octets.len(), |lf| lf + 1)
}

/// The length of the first line with the lines that continue it (RFC 5322 2.2.3).
fn field_length(octets: &[u8]) -> usize {
    let mut length = line_length(octets);
    // Nothing continues an empty line.
    if matches!(octets.get(..length), Some(b"\r\n" | b"\n")) {
        return length;
    }
    while let Some(rest @ [b' ' | b'\t', ..]) = octets.get(length..) {
        length += line_length(rest);
    }
    length
}
