//! Line ends made what SMTP knows for text that never came over SMTP (RFC 5321 2.3.8).
//!
//! Must never let a CR or LF out that stands alone, and never let a result
//! depend on how the octets are cut.

use memchr::memchr2;

/// Makes CRLF of every CR and LF that stands alone, piece by piece.
#[derive(Debug, Default)]
pub struct Newlines {
    /// A CR came last; it has been written as CRLF already.
    after_cr: bool,
    /// The last line has no end so far.
    is_open: bool,
}

impl Newlines {
    /// Appends the next octets of the text to `out`, with strict line ends.
    pub fn convert(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = match text {
            [] => return,
            [b'\n', rest @ ..] if self.after_cr => rest,
            _ => text,
        };
        self.after_cr = false;
        while let Some(at) = memchr2(b'\r', b'\n', rest) {
            let (line, end) = rest.split_at(at);
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
            self.is_open = false;
            rest = match end {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => end,
            };
            self.after_cr = matches!(end, [b'\r']);
        }
        out.extend_from_slice(rest);
        self.is_open |= !rest.is_empty();
    }

    /// The text is over: its last line gets an end if it has none.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.is_open {
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converted<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut newlines, mut out) = (Newlines::default(), Vec::new());
        for piece in pieces {
            newlines.convert(piece, &mut out);
        }
        newlines.finish(&mut out);
        out
    }

    #[test]
    fn makes_crlf_of_every_line_end() {
        for (text, strict) in [
            ("", ""),
            ("a", "a\r\n"),
            ("a\r\nb\r\n", "a\r\nb\r\n"),
            ("a\n.\nb\r.\rc", "a\r\n.\r\nb\r\n.\r\nc\r\n"),
            ("\r\r\n\n", "\r\n\r\n\r\n"),
            ("\n\r", "\r\n\r\n"),
        ] {
            assert_eq!(converted([text.as_bytes()]), strict.as_bytes(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[ab\r\n]{0,12}", size in 1usize..4) {
            let whole = converted([text.as_bytes()]);
            prop_assert_eq!(converted(text.as_bytes().chunks(size)), whole.clone());
            // One after the other, as slow as can be.
            let plain = text.replace("\r\n", "\n").replace('\r', "\n");
            let lines = plain.split_inclusive('\n').map(|line| line.trim_end_matches('\n'));
            let strict: String = lines.map(|line| format!("{line}\r\n")).collect();
            prop_assert_eq!(whole, strict.into_bytes());
        }
    }
}
