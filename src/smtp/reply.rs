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
    text.replace(
        |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER,
        "?",
    )
}

/// Cuts a line into pieces of at most `room` octets, after a space if there is
/// one in the last half of the piece.
fn wrap(line: &str, room: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while rest.len() > room {
        let hard = (0..=room)
            .rev()
            .find(|at| rest.is_char_boundary(*at))
            .unwrap_or(room);
        let soft = rest
            .split_at_checked(hard)
            .and_then(|(piece, _)| piece.rfind(' '))
            .map(|space| space + 1)
            .filter(|end| *end > room / 2);
        let Some((piece, after)) = rest.split_at_checked(soft.unwrap_or(hard)) else {
            break;
        };
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

impl fmt::Display for Reply {
    /// The wire form, CRLF after each line. The enhanced code stands on every
    /// line (RFC 2034 4); a text too long for a line is printed as several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enhanced = match self.enhanced {
            Some(enhanced) => format!("{enhanced} "),
            None => String::new(),
        };
        let room = LINE_MAX.saturating_sub("250-".len() + enhanced.len());
        let mut pieces = self
            .lines
            .iter()
            .flat_map(|line| match self.code {
                // A challenge is one line of up to 12288 octets (RFC 4954 4).
                334 => vec![line.as_str()],
                _ => wrap(line, room),
            })
            .peekable();
        while let Some(piece) = pieces.next() {
            let separator = if pieces.peek().is_some() { '-' } else { ' ' };
            write!(f, "{}{separator}{enhanced}{piece}\r\n", self.code)?;
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
