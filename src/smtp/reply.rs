//! SMTP replies (RFC 5321 4.2) with enhanced status codes (RFC 3463, RFC 2034).
//!
//! Must never print a line over 512 octets or a control character, whatever
//! text went in.

mod parser;

pub use parser::{ReplyError, ReplyParser};

use std::fmt::{self, Write};

/// Longest printed line in octets without CRLF (RFC 5321 4.5.3.1.5).
const LINE_MAX: usize = 510;

/// One reply, one or more lines. Text is printable ASCII or UTF-8, no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
}

/// class.subject.detail, class 2, 4 or 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedCode {
    /// Success, transient or permanent failure.
    pub class: u8,
    /// What it is about, 0..=999.
    pub subject: u16,
    /// What exactly, 0..=999.
    pub detail: u16,
}

impl Reply {
    /// A reply of one line. Control characters in `text` become `?`.
    ///
    /// `code` is 200..=599. An enhanced code of another class is left out, and
    /// one that stands at the front of `text` is recognised, as a client would.
    pub fn new(code: u16, enhanced: impl Into<Option<EnhancedCode>>, text: &str) -> Self {
        Self::multiline(code, enhanced, [text])
    }

    /// A reply of several lines, at least one; otherwise as [`Reply::new`].
    pub fn multiline<T: AsRef<str>>(
        code: u16,
        enhanced: impl Into<Option<EnhancedCode>>,
        lines: impl IntoIterator<Item = T>,
    ) -> Self {
        let lines = lines.into_iter().map(|line| clean(line.as_ref())).collect();
        match enhanced.into() {
            Some(enhanced) if u16::from(enhanced.class) == code / 100 => Self {
                code,
                enhanced: Some(enhanced),
                lines,
            },
            _ => Self::from_wire(code, lines),
        }
        .with_a_line()
    }

    /// Takes the enhanced code out of the lines, if the first one has it.
    fn from_wire(code: u16, mut lines: Vec<String>) -> Self {
        let enhanced = lines
            .first()
            .and_then(|first| EnhancedCode::split(first))
            .map(|(enhanced, _)| enhanced)
            .filter(|enhanced| u16::from(enhanced.class) == code / 100);
        if enhanced.is_some() {
            for line in &mut lines {
                if let Some((found, text)) = EnhancedCode::split(line)
                    && enhanced == Some(found)
                {
                    line.drain(..line.len() - text.len());
                }
            }
        }
        Self {
            code,
            enhanced,
            lines,
        }
    }

    fn with_a_line(mut self) -> Self {
        if self.lines.is_empty() {
            self.lines.push(String::new());
        }
        self
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code (RFC 3463).
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The code, and the enhanced one behind it if there is one.
    pub fn codes(&self) -> String {
        match self.enhanced {
            Some(enhanced) => format!("{} {enhanced}", self.code),
            None => self.code.to_string(),
        }
    }

    /// The texts of the lines, at least one, without codes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// All text on one line.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// 2xx: done.
    pub fn is_positive_completion(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx: a retry may help.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: a retry will not help.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// 500, 501 or 502: the command was not read as what it is (RFC 5321 4.2.2), so
    /// that no octets behind its line belong to it.
    pub fn is_not_understood(&self) -> bool {
        matches!(self.code, 500..=502)
    }

    /// Adds text to the last line, such as ` [session id]`.
    pub fn append(&mut self, suffix: &str) {
        if let Some(last) = self.lines.last_mut() {
            last.push_str(&clean(suffix));
        }
    }
}

impl EnhancedCode {
    /// class.subject.detail
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self {
            class,
            subject,
            detail,
        }
    }

    /// Octets of the printed form.
    fn width(self) -> usize {
        let digits = |number: u16| match number {
            0..10 => 1,
            10..100 => 2,
            100..1000 => 3,
            _ => 5,
        };
        "0..".len() + digits(self.subject) + digits(self.detail)
    }

    /// Takes an enhanced code off the front of a line, with one space behind it.
    fn split(line: &str) -> Option<(Self, &str)> {
        let (class, rest) = match line.as_bytes() {
            [class @ (b'2' | b'4' | b'5'), b'.', rest @ ..] => (class - b'0', rest),
            _ => return None,
        };
        let (subject, rest) = number(rest)?;
        let (detail, rest) = number(rest.strip_prefix(b".")?)?;
        let text = match rest {
            [] => "",
            [b' ', text @ ..] => line.get(line.len() - text.len()..)?,
            _ => return None,
        };
        Some((Self::new(class, subject, detail), text))
    }

    fn print(self, out: &mut impl Write) -> fmt::Result {
        let mut digits = itoa::Buffer::new();
        out.write_str(digits.format(self.class))?;
        out.write_str(".")?;
        out.write_str(digits.format(self.subject))?;
        out.write_str(".")?;
        out.write_str(digits.format(self.detail))
    }
}

/// 0..=999 without leading zeros (RFC 3463 2), and what stands behind it.
fn number(octets: &[u8]) -> Option<(u16, &[u8])> {
    let length = octets.iter().take_while(|o| o.is_ascii_digit()).count();
    let (digits, rest) = octets.split_at_checked(length)?;
    let canonical = matches!(
        digits,
        [b'0'] | [b'1'..=b'9'] | [b'1'..=b'9', _] | [b'1'..=b'9', _, _]
    );
    let digit = |sum: u16, octet: &u8| 10 * sum + u16::from(octet - b'0');
    canonical.then(|| (digits.iter().fold(0, digit), rest))
}

/// Control characters, and what could not be decoded as UTF-8, become `?`.
fn clean(text: &str) -> String {
    if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return text.to_owned();
    }
    text.replace(
        |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER,
        "?",
    )
}

/// The pieces of a line, of at most `room` octets, cut after a space if there is one
/// in the last half of the piece.
struct Wrapped<'a> {
    rest: Option<&'a str>,
    room: usize,
}

impl<'a> Iterator for Wrapped<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        if rest.len() <= self.room {
            return Some(rest);
        }
        let hard = (0..=self.room)
            .rev()
            .find(|at| rest.is_char_boundary(*at))
            .unwrap_or(self.room);
        let soft = rest
            .split_at_checked(hard)
            .and_then(|(piece, _)| piece.rfind(' '))
            .map(|space| space + 1)
            .filter(|end| *end > self.room / 2);
        match rest.split_at_checked(soft.unwrap_or(hard)) {
            Some((piece, after)) => {
                self.rest = Some(after);
                Some(piece)
            }
            None => Some(rest),
        }
    }
}

impl Reply {
    /// Appends the wire form, CRLF after each line. The enhanced code stands on
    /// every line (RFC 2034 4); a text too long for a line is printed as several.
    ///
    /// # Errors
    /// What `wire` says; a buffer in memory says nothing.
    pub fn print(&self, wire: &mut impl Write) -> fmt::Result {
        let room = match self.code {
            // A challenge is one line of up to 12288 octets (RFC 4954 4).
            334 => usize::MAX,
            _ => {
                let enhanced = self.enhanced.map_or(0, |enhanced| enhanced.width() + 1);
                LINE_MAX.saturating_sub("250-".len() + enhanced)
            }
        };
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let mut pieces = Wrapped {
                rest: Some(line),
                room,
            };
            while let Some(piece) = pieces.next() {
                let is_last = pieces.rest.is_none() && lines.peek().is_none();
                wire.write_str(itoa::Buffer::new().format(self.code))?;
                wire.write_str(if is_last { " " } else { "-" })?;
                if let Some(enhanced) = self.enhanced {
                    enhanced.print(wire)?;
                    wire.write_str(" ")?;
                }
                wire.write_str(piece)?;
                wire.write_str("\r\n")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Reply {
    /// The wire form, see [`Reply::print`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f)
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f)
    }
}

#[cfg(test)]
mod tests;
