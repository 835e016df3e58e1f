//! SMTP replies (RFC 5321 4.2) with enhanced status codes (RFC 3463, RFC 2034).
//!
//! Must never print a line over 512 octets or a control character, whatever
//! text went in.

mod parser;

pub use parser::{ReplyError, ReplyParser};

use std::fmt;

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
                    *line = text.to_owned();
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
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        let mut numbers = word.splitn(3, '.');
        let class = number(numbers.next()?)?;
        let subject = number(numbers.next()?)?;
        let detail = number(numbers.next()?)?;
        let class = u8::try_from(class)
            .ok()
            .filter(|c| matches!(c, 2 | 4 | 5))?;
        Some((Self::new(class, subject, detail), text))
    }
}

/// 0..=999 without leading zeros (RFC 3463 2).
fn number(digits: &str) -> Option<u16> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let short = (1..=3).contains(&digits.len()) && digits.bytes().all(|o| o.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical && short)
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

impl fmt::Display for Reply {
    /// The wire form, CRLF after each line. The enhanced code stands on every
    /// line (RFC 2034 4); a text too long for a line is printed as several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
                self.code.fmt(f)?;
                f.write_str(if is_last { " " } else { "-" })?;
                if let Some(enhanced) = self.enhanced {
                    write!(f, "{enhanced} ")?;
                }
                f.write_str(piece)?;
                f.write_str("\r\n")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests;
