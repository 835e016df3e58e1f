//! The byte rules of DATA for BDAT chunks, which carry no dots (RFC 3030).
//!
//! Must never change an octet: chunks are counted, so they pass as they are or
//! not at all.

use super::dot::BodyOffence;
use memchr::memchr3;

/// Checks the octets of all chunks of one message.
#[derive(Debug, Default)]
pub struct ChunkChecker {
    /// The last octet was a CR whose LF has not come yet; it may stand at the
    /// front of the next chunk.
    after_cr: bool,
    offence: Option<BodyOffence>,
}

impl ChunkChecker {
    /// A checker at the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next octets, in whatever pieces they come.
    pub fn check(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while self.offence.is_none() && !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) {
                match rest.strip_prefix(b"\n") {
                    Some(after) => rest = after,
                    None => self.offence = Some(BodyOffence::BareCr),
                }
                continue;
            }
            let special = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            rest = match rest.get(special..).unwrap_or_default() {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r', after @ ..] => {
                    self.after_cr = true;
                    after
                }
                [b'\n', ..] => {
                    self.offence = Some(BodyOffence::BareLf);
                    &[]
                }
                [_, ..] => {
                    self.offence = Some(BodyOffence::Nul);
                    &[]
                }
                [] => &[],
            };
        }
    }

    /// Call it after the last chunk: a CR that still waits for its LF is bare.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.after_cr) {
            self.offence.get_or_insert(BodyOffence::BareCr);
        }
    }

    /// The first offence, if any.
    pub fn offence(&self) -> Option<BodyOffence> {
        self.offence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pieces: &[&[u8]]) -> Option<BodyOffence> {
        let mut checker = ChunkChecker::new();
        for piece in pieces {
            checker.check(piece);
        }
        checker.finish();
        checker.offence()
    }

    #[test]
    fn accepts_crlf_lines_and_a_last_line_without_end() {
        assert_eq!(verdict(&[b"a\r\n.\r\n\r\nlast"]), None);
        assert_eq!(verdict(&[]), None);
    }

    #[test]
    fn accepts_crlf_split_between_chunks() {
        assert_eq!(verdict(&[b"a\r", b"", b"\nb"]), None);
    }

    #[test]
    fn refuses_bare_cr_bare_lf_and_nul() {
        assert_eq!(verdict(&[b"a\rb\n"]), Some(BodyOffence::BareCr));
        assert_eq!(verdict(&[b"a\r\r\n"]), Some(BodyOffence::BareCr));
        assert_eq!(verdict(&[b"a\n.\r\n"]), Some(BodyOffence::BareLf));
        assert_eq!(verdict(&[b"a\r\n", b"\n"]), Some(BodyOffence::BareLf));
        assert_eq!(verdict(&[b"a\0\n"]), Some(BodyOffence::Nul));
    }

    #[test]
    fn refuses_cr_split_from_something_else_between_chunks() {
        assert_eq!(verdict(&[b"a\r", b".\r\n"]), Some(BodyOffence::BareCr));
    }

    #[test]
    fn refuses_cr_at_the_end_of_the_last_chunk() {
        assert_eq!(verdict(&[b"a\r\n\r"]), Some(BodyOffence::BareCr));
    }
}
