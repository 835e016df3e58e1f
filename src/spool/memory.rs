//! The part of a body that is in memory: pieces that never move once they are
//! full, so that growing copies nothing and readers share them.

use bytes::Bytes;

use super::budget::Share;

/// The first piece. Most mail fits in a few of these.
const PIECE_MIN: u64 = 4 * 1024;

/// The largest piece, which is also the most that a reader gets at once.
const PIECE_MAX: u64 = 64 * 1024;

/// Octets in memory, accounted by capacity.
#[derive(Debug)]
pub(super) struct Pieces {
    full: Vec<Bytes>,
    /// The piece that is being filled.
    tail: Vec<u8>,
    length: u64,
    memory: Share,
}

impl Pieces {
    pub(super) fn new(memory: Share) -> Self {
        Self {
            full: Vec::new(),
            tail: Vec::new(),
            length: 0,
            memory,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Takes what fits of `octets` into at most `limit` octets of memory, and
    /// returns the rest: it is not empty when there is no more room.
    pub(super) fn fill<'a>(&mut self, mut octets: &'a [u8], limit: u64) -> &'a [u8] {
        while !octets.is_empty() {
            let room = self.tail.capacity() - self.tail.len();
            if room == 0 && !self.begin_piece(limit) {
                break;
            }
            let room = self.tail.capacity() - self.tail.len();
            let (now, later) = octets.split_at(room.min(octets.len()));
            self.tail.extend_from_slice(now);
            self.length += self::octets(now.len());
            octets = later;
        }
        octets
    }

    /// Pieces double the capacity until they are as large as they get.
    fn begin_piece(&mut self, limit: u64) -> bool {
        let held = self.memory.held();
        let size = held
            .clamp(PIECE_MIN, PIECE_MAX)
            .min(limit.saturating_sub(held));
        if size == 0 || !self.memory.grow(size) {
            return false;
        }
        // At most PIECE_MAX.
        let piece = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let full = std::mem::replace(&mut self.tail, piece);
        self.keep(full);
        true
    }

    fn keep(&mut self, piece: Vec<u8>) {
        if !piece.is_empty() {
            self.full.push(Bytes::from(piece));
        }
    }

    /// Nothing more will come: gives back the capacity that was not used.
    pub(super) fn finish(mut self) -> Self {
        let mut tail = std::mem::take(&mut self.tail);
        tail.shrink_to_fit();
        self.keep(tail);
        self.memory.shrink_to(self.length);
        self
    }

    /// The piece number `index`, once finished.
    pub(super) fn get(&self, index: u64) -> Option<Bytes> {
        self.full.get(usize::try_from(index).ok()?).cloned()
    }

    /// All there is, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let full = self.full.iter().map(|piece| &**piece);
        full.chain(std::iter::once(&*self.tail))
    }
}

/// A length as an amount of octets; a `usize` always fits here.
pub(super) fn octets(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
