//! The AUTH command and the lines of its exchange (RFC 4954 4).
//!
//! Must never show a secret in `Debug`, and never look into one.

use super::{CommandError, Verb};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// RFC 4954 4: the longest line an exchange may need, in octets.
const BASE64_MAX: usize = 12_288;
/// RFC 4422 3.1.
const MECHANISM_MAX: usize = 20;

/// RFC 4954 4. `initial` is the base64 text as sent; `Debug` never shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How to authenticate.
    pub mechanism: Mechanism,
    /// The initial response. The empty one is written `=` here and nowhere else.
    pub initial: Option<Base64Text>,
}

/// SASL mechanism name, 1-20 of A-Z 0-9 - _ (RFC 4422 3.1), kept in upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mechanism(String);

/// A line of base64, perhaps empty; `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64Text(String);

/// What a client sends in answer to a 334 challenge (RFC 4954 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthLine {
    /// An answer, perhaps empty.
    Response(Base64Text),
    /// `*`: the client gives up.
    Cancel,
}

impl Auth {
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let (mechanism, initial) = match text.split_once(' ') {
            None => (text, None),
            Some((mechanism, "=")) => (mechanism, Some(Base64Text(String::new()))),
            Some((mechanism, response)) => {
                let response = Base64Text::parse(response).filter(|text| !text.0.is_empty());
                let response = response.ok_or(syntax("the initial response is not base64"))?;
                (mechanism, Some(response))
            }
        };
        let mechanism = Mechanism::parse(mechanism).ok_or(syntax("bad mechanism name"))?;
        Ok(Self { mechanism, initial })
    }
}

impl Mechanism {
    /// Parses a name in any case; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        let fits = (1..=MECHANISM_MAX).contains(&text.len()) && text.bytes().all(allowed);
        fits.then(|| Self(text.to_ascii_uppercase()))
    }

    /// The name in upper case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it cannot pass a proxy that ends TLS, because it proves something
    /// about the client's own TLS connection: channel binding (`-PLUS`, RFC 5802 4)
    /// or a client certificate (EXTERNAL, RFC 4422 appendix A).
    pub fn is_bound_to_tls(&self) -> bool {
        self.0.ends_with("-PLUS") || self.0 == "EXTERNAL"
    }

    /// Whether anybody may sign in by it, who need be nobody (RFC 4505).
    pub fn is_anonymous(&self) -> bool {
        self.0 == "ANONYMOUS"
    }
}

impl Base64Text {
    /// Takes base64 with its padding (RFC 4648 4), up to 12288 octets; `None`
    /// when it is not. Nothing at all is base64 of nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_suffix("==")
            .or_else(|| text.strip_suffix('='))
            .unwrap_or(text);
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
        let fits =
            text.len() <= BASE64_MAX && text.len().is_multiple_of(4) && digits.bytes().all(allowed);
        fits.then(|| Self(text.to_owned()))
    }

    /// Encodes octets.
    pub fn encode(octets: &[u8]) -> Self {
        Self(STANDARD.encode(octets))
    }

    /// The octets it stands for; `None` when unused bits are set (RFC 4648 3.5).
    pub fn decode(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.0).ok()
    }

    /// The text as sent; empty for the empty response.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AuthLine {
    /// Parses one line without its CRLF.
    ///
    /// # Errors
    /// `Syntax` when it is neither base64 nor `*`.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| syntax("not base64"))?;
        match text.trim_end_matches(' ') {
            "*" => Ok(Self::Cancel),
            text => Base64Text::parse(text)
                .map(Self::Response)
                .ok_or(syntax("not base64")),
        }
    }
}

fn syntax(problem: &'static str) -> CommandError {
    CommandError::Syntax {
        verb: Verb::Auth,
        problem,
    }
}

impl fmt::Display for Auth {
    /// Prints the secret too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mechanism.as_str())?;
        match &self.initial {
            None => Ok(()),
            Some(Base64Text(empty)) if empty.is_empty() => f.write_str(" ="),
            Some(Base64Text(text)) => write!(f, " {text}"),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AuthLine {
    /// Prints the secret too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(response) => f.write_str(response.as_str()),
            Self::Cancel => f.write_str("*"),
        }
    }
}

impl fmt::Debug for Base64Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base64Text(..)")
    }
}
