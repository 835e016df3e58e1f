//! How far a body goes on with nothing in it that needs a closer look.
//!
//! Most of all mail is text in lines, and none of them begins with a dot: what is
//! looked at in blocks here costs a tenth of what it costs line by line.

use memchr::memrchr;

/// Octets that are looked at together. Not more: a block is looked at once for
/// each oddity in it.
const BLOCK: usize = 128;

/// Octets of a block that are looked at together to find the oddity in it.
const VECTOR: usize = 16;

/// How many octets of `input` are text and CRLF alone, without NUL and without a dot
/// that leads a line; a CR at the very end is not among them. `before` stands before
/// the first one, and is no CR.
pub(super) fn plain(before: u8, input: &[u8]) -> usize {
    let Some((first, rest)) = input.split_first() else {
        return 0;
    };
    if is_odd(before, *first) {
        return 0;
    }
    let (before, _) = input.as_chunks::<BLOCK>();
    let (blocks, _) = rest.as_chunks::<BLOCK>();
    let mut pairs = before.iter().zip(blocks);
    let odd = pairs.position(|(before, block)| is_odd_anywhere(before, block));
    // Of the first block that is odd, or of the octets that fill none.
    let at = BLOCK * odd.unwrap_or(blocks.len());
    let before = input.get(at..).unwrap_or_default();
    let plain = 1 + at + until_odd(before, rest.get(at..).unwrap_or_default());
    match input.get(..plain) {
        Some([.., b'\r']) => plain - 1,
        _ => plain,
    }
}

/// How many octets come before the first oddity.
fn until_odd(before: &[u8], octets: &[u8]) -> usize {
    let mut vectors = before.chunks(VECTOR).zip(octets.chunks(VECTOR));
    let odd = vectors.position(|(before, vector)| is_odd_anywhere(before, vector));
    let Some(at) = odd.map(|vectors| vectors * VECTOR) else {
        return octets.len();
    };
    let mut pairs = before.iter().zip(octets).skip(at);
    let octet = pairs.position(|(before, octet)| is_odd(*before, *octet));
    at + octet.unwrap_or_default()
}

/// Without a branch in the loop, which compilers turn into a few vector instructions.
fn is_odd_anywhere(before: &[u8], block: &[u8]) -> bool {
    let pairs = before.iter().zip(block);
    pairs.fold(false, |odd, (before, octet)| odd | is_odd(*before, *octet))
}

/// A CR or LF that stands alone, NUL, or a dot that leads a line.
fn is_odd(before: u8, octet: u8) -> bool {
    ((before == b'\r') != (octet == b'\n')) | (octet == 0) | ((before == b'\n') & (octet == b'.'))
}

/// How many octets of `text`, as [`plain`] leaves it, come before the first line that
/// is longer than `max` octets without its CRLF; and how long the last line of these
/// is so far. `line` octets of the first line have come before.
pub(super) fn in_bounds(text: &[u8], line: usize, max: usize) -> (usize, usize) {
    let (mut at, mut line) = (0, line);
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let room = max.saturating_add(2).saturating_sub(line);
        let window = rest.get(..room).unwrap_or(rest);
        // Whatever ends inside the window is no longer than it.
        match memrchr(b'\n', window) {
            Some(newline) => {
                at += newline + 1;
                line = 0;
            }
            None if line.saturating_add(rest.len()) > max => return (at, line),
            None => return (text.len(), line.saturating_add(rest.len())),
        }
    }
}
