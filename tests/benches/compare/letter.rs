//! A message of the load, made so that whoever receives it can tell that nothing in it
//! has changed: its body begins with a number of its own, its header has a digest of
//! the body.
//!
//! Both are of the octets on the wire, dots doubled (RFC 5321 4.5.2): a proxy that
//! takes the dots off and puts them back must arrive at the same.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;

use foldhash::fast::FixedState;
use memchr::memmem;

const DIGEST: &str = "X-Digest: ";
const NUMBER: &str = "Number ";

/// Digits of a number and of a digest.
const DIGITS: usize = 16;

/// A message with its final dot, to be sent again and again under new numbers.
pub struct Letter {
    wire: Vec<u8>,
    digest_at: usize,
    body_at: usize,
}

impl Letter {
    /// Of `size` octets without the final dot.
    pub fn new(size: usize) -> Self {
        let zero = "0".repeat(DIGITS);
        let header = format!(
            "From: Alice <alice@sender.test>\r\n\
             To: Bob <bob@example.org>\r\n\
             Subject: One of many\r\n\
             Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
             Message-ID: <one.of.many@sender.test>\r\n\
             {DIGEST}{zero}\r\n\r\n"
        );
        let mut wire = header.into_bytes();
        let digest_at = wire.len() - DIGITS - 4;
        let body_at = wire.len();
        wire.extend(format!("{NUMBER}{zero}\r\n").bytes());
        let mut line = 0_usize;
        while wire.len() < size {
            // One line in nine begins with a dot.
            let start = if line.is_multiple_of(9) { ".." } else { "" };
            let text: String = (0..70).map(|at| letter(line * 70 + at)).collect();
            wire.extend(format!("{start}{text}\r\n").bytes());
            line += 1;
        }
        wire.truncate(size - 2);
        // A line that the cut left with a CR at its end, or with one dot of two.
        while wire
            .last()
            .is_some_and(|octet| !octet.is_ascii_alphanumeric())
        {
            wire.pop();
        }
        wire.resize(size - 2, b'x');
        wire.extend(b"\r\n.\r\n");
        Self {
            wire,
            digest_at,
            body_at,
        }
    }

    /// The message under this number.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        let at = self.body_at + NUMBER.len();
        write_digits(&mut self.wire[at..], number);
        let end = self.wire.len() - b".\r\n".len();
        let digest = digest(&self.wire[self.body_at..end]);
        write_digits(&mut self.wire[self.digest_at..], digest);
        &self.wire
    }
}

/// The number of a message that has arrived, without its final dot.
///
/// # Errors
/// What is wrong with it.
pub fn number_of(message: &[u8]) -> Result<u64, String> {
    let end = memmem::find(message, b"\r\n\r\n").ok_or("no end of its header")?;
    let (header, body) = (&message[..end], &message[end + 4..]);
    let stated = digits_behind(header, DIGEST).ok_or("no digest in its header")?;
    let number = digits_behind(body, NUMBER).ok_or("no number in its body")?;
    if digest(body) != stated {
        return Err(format!("message {number} has a body of another digest"));
    }
    Ok(number)
}

fn digest(body: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(body);
    hasher.finish()
}

/// Letters and digits in an order without a short period.
fn letter(at: usize) -> char {
    const ALPHABET: &[u8] = b"etaoin shrdlu cmfwyp vbgkjqxz ETAOIN SHRDLU 0123456789";
    char::from(ALPHABET[(at.wrapping_mul(7919) >> 4) % ALPHABET.len()])
}

fn write_digits(mut place: &mut [u8], value: u64) {
    write!(place, "{value:0DIGITS$x}").unwrap();
}

fn digits_behind(text: &[u8], word: &str) -> Option<u64> {
    let at = memmem::find(text, word.as_bytes())? + word.len();
    let digits = std::str::from_utf8(text.get(at..at + DIGITS)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}
