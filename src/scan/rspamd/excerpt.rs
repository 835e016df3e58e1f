//! What is kept of rspamd's answer while it comes: the members that are read. No
//! I/O.
//!
//! Others repeat the message at length: the whole of its Message-ID, and up to
//! 10,241 hosts and addresses (`max_urls`) of 253 and 318 octets. How long they
//! are is for whoever wrote the message to say, who must neither gain memory by
//! it nor make the answer unheard. Must never hold more than [`HELD_MAX`].

use memchr::memchr2;

/// The members that are read.
const READ: [&[u8]; 8] = [
    b"\"action\"",
    b"\"dkim-signature\"",
    b"\"messages\"",
    b"\"milter\"",
    b"\"required_score\"",
    b"\"score\"",
    b"\"subject\"",
    SYMBOLS,
];

/// Of its members only the names are read.
const SYMBOLS: &[u8] = b"\"symbols\"";

/// Longest value that is kept, octets: a few header fields at their longest.
const VALUE_MAX: usize = 256 * 1024;

/// Most octets that are kept.
const HELD_MAX: usize = READ.len() * VALUE_MAX;

/// What the next octet of an answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Structure,
    String,
    /// The octet behind a `\` in a string.
    Escape,
}

/// An answer in which `null` stands for every value that is not read.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    held: Vec<u8>,
    inside: Inside,
    /// Objects and lists that are open.
    depth: usize,
    /// Where the last name (or text) of the outermost object begins in `held`.
    name: usize,
    /// Where the value of a member of the outermost object begins, while it comes.
    value: Option<usize>,
    in_symbols: bool,
    /// The depth of the value that is passed over.
    skipped: Option<usize>,
    is_cut: bool,
}

impl Excerpt {
    /// Takes the next octets of the answer.
    pub(super) fn take(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let plain = match self.inside {
                Inside::String => memchr2(b'"', b'\\', rest).unwrap_or(rest.len()),
                Inside::Structure | Inside::Escape => 0,
            };
            let (text, behind) = rest.split_at(plain);
            self.hold(text);
            rest = match behind.split_first() {
                Some((octet, behind)) => {
                    self.pass(*octet);
                    behind
                }
                None => behind,
            };
        }
    }

    /// Whether a value that would be read was too long, and is `null` too.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What was kept.
    pub(super) fn into_answer(self) -> Vec<u8> {
        self.held
    }

    fn pass(&mut self, octet: u8) {
        match (self.inside, octet) {
            (Inside::Escape, _) => self.inside = Inside::String,
            (Inside::String, b'\\') => self.inside = Inside::Escape,
            (Inside::String, b'"') => self.inside = Inside::Structure,
            (Inside::Structure, b'"') => {
                self.inside = Inside::String;
                if self.depth == 1 {
                    self.name = self.held.len();
                }
            }
            (Inside::Structure, b'{' | b'[') => self.depth += 1,
            (Inside::Structure, b'}' | b']') => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            (Inside::Structure, b',') => self.end_value(),
            (Inside::Structure, b':') => return self.begin_value(),
            (Inside::String | Inside::Structure, _) => {}
        }
        self.hold(&[octet]);
    }

    fn begin_value(&mut self) {
        let name = self.held.get(self.name..).unwrap_or_default();
        let name = name.trim_ascii_end();
        let is_read = match self.depth {
            1 => READ.contains(&name),
            2 => !self.in_symbols,
            _ => true,
        };
        let in_symbols = name == SYMBOLS;
        self.hold(b":");
        if self.depth == 1 && self.skipped.is_none() {
            self.in_symbols = in_symbols;
            self.value = Some(self.held.len());
        }
        if !is_read {
            self.skip(self.depth);
        }
    }

    fn end_value(&mut self) {
        if self.skipped == Some(self.depth) {
            self.skipped = None;
        }
        if self.depth == 1 {
            self.value = None;
        }
    }

    /// Passes over the value at this depth.
    fn skip(&mut self, depth: usize) {
        if self.skipped.is_none() {
            self.hold(b"null");
            self.skipped = Some(depth);
        }
    }

    fn hold(&mut self, text: &[u8]) {
        if self.skipped.is_some() {
            return;
        }
        let length = self.held.len() + text.len();
        match self.value {
            Some(value) if length - value > VALUE_MAX => {
                self.held.truncate(value);
                self.is_cut = true;
                self.value = None;
                self.skip(1);
            }
            // Names without end: no answer any more, whatever is left out of it.
            _ if length > HELD_MAX => {}
            _ => self.held.extend_from_slice(text),
        }
    }
}

#[cfg(test)]
mod tests;
