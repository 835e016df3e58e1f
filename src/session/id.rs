//! Names for sessions: short, unique within a process, hard to mistake.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Crockford's base 32: no I, L, O or U to be misread on the telephone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Digits of an id: 60 bits.
const DIGITS: usize = 12;

/// Where this process begins to count. Random, so that two processes do not
/// give the same names.
static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("portcullis"));
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The name of one session. It stands in the greeting, in every refusal, in
/// the trace header and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// A new one.
    pub fn next() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(scatter(START.wrapping_add(count)) & ((1 << (5 * DIGITS)) - 1))
    }
}

/// An odd factor and xor-shifts are bijections: close numbers come out far
/// apart, and none twice (the cut to 60 bits costs nothing in practice).
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; DIGITS];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            let value = usize::try_from(rest & 31).unwrap_or_default();
            *digit = ALPHABET.get(value).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn gives_no_name_twice() {
        let names: HashSet<_> = (0..100_000)
            .map(|_| SessionId::next().to_string())
            .collect();
        assert_eq!(names.len(), 100_000);
        assert!(names.iter().all(|name| name.len() == 12));
    }
}
