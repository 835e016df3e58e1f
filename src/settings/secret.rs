//! A value that must not be seen: no `Debug`, `Display` or log shows it.

use std::fmt;

use super::Value;

/// Stands for what must not be seen.
pub const MASK: &str = "***";

/// The text with everything masked that stands before the `@` of a URL: no
/// setting that may be seen wants a password there, but people write one, with
/// commas and spaces in it.
pub fn without_passwords(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for url in pieces {
        shown.push_str("://");
        match url.rsplit_once('@') {
            Some((_, host)) => shown.extend([MASK, "@", host]),
            None => shown.push_str(url),
        }
    }
    shown
}

/// A password or token. Printing it in any way prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Value for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}
