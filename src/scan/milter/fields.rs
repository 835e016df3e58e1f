//! Cuts the header section off the front of a message, field by field.
//!
//! Must never hold more than the bound of a header section.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr_iter;

use crate::smtp::header;

/// Longest header section in octets. Sendmail takes 32 KiB (`MaxHeadersLength`),
/// Postfix 100 KiB a field (`header_size_limit`); beyond this it is an attack.
const SECTION_MAX: usize = 1024 * 1024;

/// Longest field name in octets: RFC 5322 2.1.1 has no room for more in a line.
/// A longer one is a field to others all the same, so it must not pass for the
/// end of the section: what stands behind it would be hidden from the filter.
const NAME_MAX: usize = 997;

/// What the front of the message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// One field: the name, and all that stands behind the colon but the last
    /// line end, folded lines with LF between them (so do Sendmail and Postfix
    /// show them to filters).
    Field { name: Bytes, value: Bytes },
    /// Octets are missing.
    Incomplete,
    /// The header section is over: an empty line, which is taken off, or a line
    /// that is no field (the body begins with it, as with Sendmail and Postfix).
    Over,
}

/// The header section is longer than anybody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The octets of a message that are not cut off yet.
#[derive(Debug, Default)]
pub(super) struct Fields {
    rest: BytesMut,
    /// Octets of the section so far.
    taken: usize,
    /// The place of an mbox separator is behind us.
    begun: bool,
    /// Nothing follows `rest`.
    complete: bool,
}

impl Fields {
    /// Adds the next piece of the message.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// Says that there are no more pieces.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// What is left when the section is over: the front of the body.
    pub(super) fn into_rest(self) -> BytesMut {
        self.rest
    }

    /// Takes the next field off.
    pub(super) fn next(&mut self) -> Result<Front, TooLong> {
        if !self.begun && !self.skip_separator() {
            return match self.rest.len() {
                length if length > SECTION_MAX => Err(TooLong),
                _ => Ok(Front::Incomplete),
            };
        }
        if self.rest.starts_with(b"\r\n") {
            self.rest.advance(2);
            return Ok(Front::Over);
        }
        match self.field_length() {
            Some(length) if self.taken + length > SECTION_MAX => Err(TooLong),
            Some(length) => self.cut(length),
            None if self.taken + self.rest.len() > SECTION_MAX => Err(TooLong),
            None => Ok(Front::Incomplete),
        }
    }

    /// Passes over an mbox separator, behind which servers look for fields.
    /// Tells whether enough has come to be sure.
    fn skip_separator(&mut self) -> bool {
        let Some(end) = memchr::memchr(b'\n', &self.rest) else {
            self.begun = self.complete;
            return self.complete;
        };
        if header::is_separator(&self.rest) {
            self.rest.advance(end + 1);
        }
        self.begun = true;
        true
    }

    /// A field reaches up to the first line end that no space or tab follows
    /// (RFC 5322 2.2.3).
    fn field_length(&self) -> Option<usize> {
        let mut ends = memchr_iter(b'\n', &self.rest).map(|at| at + 1);
        let followed = ends.find(|end| !matches!(self.rest.get(*end), Some(b' ' | b'\t')));
        match followed {
            Some(end) if end < self.rest.len() || self.complete => Some(end),
            None if self.complete => Some(self.rest.len()),
            _ => None,
        }
    }

    fn cut(&mut self, length: usize) -> Result<Front, TooLong> {
        let text = self.rest.get(..length).unwrap_or_default();
        let Some((name, value)) = split(text) else {
            return Ok(Front::Over);
        };
        if name.len() > NAME_MAX {
            return Err(TooLong);
        }
        self.taken += length;
        self.rest.advance(length);
        Ok(Front::Field { name, value })
    }
}

/// Name and value of a field, unless it is none. White space before the colon
/// is obsolete (RFC 5322 4.5) and no part of the name; a line end there is not
/// allowed, and whoever edits the message finds no field there either.
fn split(field: &[u8]) -> Option<(Bytes, Bytes)> {
    let colon = memchr::memchr(b':', field)?;
    let (name, value) = field.split_at_checked(colon)?;
    let length = name
        .iter()
        .rposition(|octet| !matches!(octet, b' ' | b'\t'))?
        + 1;
    let name = name.get(..length)?;
    let is_name = name.iter().all(u8::is_ascii_graphic);
    let value = value.strip_prefix(b":")?;
    let value = value
        .strip_suffix(b"\r\n")
        .or_else(|| value.strip_suffix(b"\n"))
        .unwrap_or(value);
    is_name.then(|| {
        let value = value.iter().copied().filter(|octet| *octet != b'\r');
        (Bytes::copy_from_slice(name), value.collect())
    })
}

#[cfg(test)]
mod tests;
