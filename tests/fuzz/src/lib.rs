//! What the fuzz targets share: how octets are cut into reads, how a future is
//! run, what no text for the other side may hold, and the world around a session.

pub mod backend;
pub mod events;

use std::future::Future;
use std::task::{Context, Poll, Waker};

/// The octet in front steers a target; the rest is its input.
pub fn steered(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(steer, rest)| (*steer, rest))
}

/// Cuts `data` into reads as `seed` says: whole, in single octets, or in pieces
/// of changing length, empty ones among them.
pub fn pieces(seed: u8, data: &[u8]) -> Vec<&[u8]> {
    let mut rest = data;
    let mut state = u32::from(seed);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match seed {
            0 => rest.len(),
            1 => 1,
            _ => (state >> 16) as usize % (usize::from(seed) / 4 + 2),
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Takes a text off the front: one octet of length, then as many octets.
pub fn take_text<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = data.split_first() else {
        return &[];
    };
    let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
    *data = rest;
    text
}

/// Takes one octet off the front, or 0 when there is none.
pub fn take_octet(data: &mut &[u8]) -> u8 {
    let Some((octet, rest)) = data.split_first() else {
        return 0;
    };
    *data = rest;
    *octet
}

/// Runs a future that never waits for anything.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What is printed holds no control character, a line end least of all.
pub fn assert_one_line(printed: &str) {
    assert!(!printed.contains(char::is_control), "{printed:?}");
}

/// A printed reply is nothing but lines of a bounded length.
pub fn assert_reply_lines(printed: &str, longest: usize) {
    for line in printed.split_inclusive('\n') {
        assert!(line.len() <= longest, "{} octets", line.len());
        assert_one_line(line.strip_suffix("\r\n").expect("a line ends with CRLF"));
    }
}
