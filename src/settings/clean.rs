//! Text of a stranger made fit for a terminal, a log line or a message.

use std::fmt::{self, Write};

/// Longest piece of foreign text that is shown, in characters.
pub const CAP: usize = 512;

/// Prints a text with control characters escaped and its length capped.
///
/// Escaped are also the characters that reorder or break a line without being
/// controls (Unicode line separators and directional formatting).
#[derive(Clone, Copy, Debug)]
pub struct Clean<'a>(pub &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(CAP) {
            if is_hidden(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        match self.0.chars().skip(CAP).count() {
            0 => Ok(()),
            more => write!(f, "[{more} more]"),
        }
    }
}

/// Whether a character would act on the reader's screen rather than show there.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
