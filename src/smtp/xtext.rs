//! xtext: printable ASCII with `+XX` escapes (RFC 3461 4).
//!
//! Whatever goes in, what is printed holds no space, no control character and
//! no octet above 126.

use std::fmt::{self, Write};

/// Decoded content of an xtext value: one or more ASCII octets. Control
/// characters can only have come as escapes, and are printed as escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xtext(String);

impl Xtext {
    /// Wraps content that is to be encoded; `None` if it is empty or not ASCII.
    pub fn new(content: &str) -> Option<Self> {
        (!content.is_empty() && content.is_ascii()).then(|| Self(content.to_owned()))
    }

    /// Decodes `encoded`; `None` if it is empty, badly escaped, or holds an
    /// octet that is not ASCII. Escapes are two upper-case hexadecimal digits.
    pub fn parse(encoded: &str) -> Option<Self> {
        let mut content = String::with_capacity(encoded.len());
        let mut octets = encoded.bytes();
        while let Some(octet) = octets.next() {
            let decoded = match octet {
                b'+' => 16 * hex_digit(octets.next()?)? + hex_digit(octets.next()?)?,
                literal if is_xchar(literal) => literal,
                _ => return None,
            };
            if !decoded.is_ascii() {
                return None;
            }
            content.push(char::from(decoded));
        }
        (!content.is_empty()).then_some(Self(content))
    }

    /// Whether it decodes to printable characters, as most of what is written so must
    /// (RFC 3461 4.2 and 4.4).
    pub fn is_printable(&self) -> bool {
        self.0.bytes().all(|octet| matches!(octet, b' '..=b'~'))
    }

    /// The decoded content. It may hold control characters: never print it raw.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Postfix takes no longer values in XCLIENT, octets as they are encoded.
pub const XCLIENT_VALUE_MAX: usize = 255;

/// Encodes any text; octets beyond ASCII become one `+XX` escape each, as
/// XCLIENT values need them.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if is_xchar(octet) {
            encoded.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "+{octet:02X}");
        }
    }
    encoded
}

impl fmt::Display for Xtext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

pub(super) fn is_xchar(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'+' && octet != b'='
}

fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &str) -> Option<String> {
        Xtext::parse(encoded).map(|x| x.as_str().to_owned())
    }

    #[test]
    fn decodes_upper_case_escapes() {
        assert_eq!(decoded("a+2Bb+3Dc").as_deref(), Some("a+b=c"));
        assert_eq!(decoded("+41").as_deref(), Some("A"));
    }

    #[test]
    fn refuses_broken_escapes_and_unescaped_octets() {
        for bad in [
            "", "+", "+4", "+4g", "+2b", "a=b", "a b", "a\r\nb", "a\0", "é", "+E9", "+ 1", "++41",
        ] {
            assert_eq!(Xtext::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn line_end_in_a_value_stays_an_escape() {
        let value = Xtext::parse("a+0D+0ARSET").unwrap();
        assert_eq!(value.as_str(), "a\r\nRSET");
        assert_eq!(value.to_string(), "a+0D+0ARSET");
    }

    #[test]
    fn encodes_hostile_host_names_harmlessly() {
        assert_eq!(
            encode("evil\r\nRCPT TO:<x>"),
            "evil+0D+0ARCPT+20TO:<x>",
            "a PTR record must not start a new command"
        );
        assert_eq!(encode("é+="), "+C3+A9+2B+3D");
    }
}
