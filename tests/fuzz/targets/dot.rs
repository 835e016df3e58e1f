//! The DATA codec: no cut matters, the end is CRLF . CRLF alone, what was encoded
//! decodes to the same, and recoding is both in one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::smtp::dot::{BareNewline, BodyOffence, Decoder, Encoder, Recoder};
use portcullis_fuzz::{pieces, steered};

#[derive(Debug, PartialEq)]
struct Seen {
    content: Vec<u8>,
    taken: usize,
    ended: bool,
    offence: Option<BodyOffence>,
}

fn decode(reads: &[&[u8]], newline: BareNewline, line_max: Option<usize>) -> Seen {
    let mut decoder = Decoder::new(newline, line_max);
    let mut seen = Seen {
        content: Vec::new(),
        taken: 0,
        ended: false,
        offence: None,
    };
    for read in reads {
        let decoded = decoder.decode(read, &mut seen.content);
        seen.taken += decoded.taken;
        seen.ended = decoded.ended;
        if seen.ended {
            break;
        }
        assert_eq!(decoded.taken, read.len(), "octets left before the end");
    }
    assert_eq!(decoder.size(), seen.content.len() as u64);
    seen.offence = decoder.offence();
    seen
}

/// From wire to wire; what of it has been taken, and whether it has ended.
fn recode(
    reads: &[&[u8]],
    newline: BareNewline,
    line_max: Option<usize>,
) -> (Vec<u8>, usize, bool, Option<BodyOffence>) {
    let mut recoder = Recoder::new(newline, line_max);
    let (mut written, mut wire) = (Vec::new(), Vec::new());
    let (mut taken, mut ended) = (0, false);
    for read in reads {
        let recoded = recoder.recode(read, &mut wire);
        if recoded.as_is {
            assert!(wire.is_empty());
            written.extend_from_slice(&read[..recoded.taken]);
        }
        written.append(&mut wire);
        taken += recoded.taken;
        ended = recoded.ended;
        if ended {
            break;
        }
        assert_eq!(recoded.taken, read.len(), "octets left before the end");
    }
    (written, taken, ended, recoder.offence())
}

/// Octet by octet, with all of the stream at hand.
fn reference(data: &[u8], newline: BareNewline, line_max: Option<usize>) -> Seen {
    let longest = line_max.map_or(usize::MAX, |max| max.saturating_sub(2));
    let (mut at, mut line, mut line_start) = (0, 0, true);
    let mut content = Vec::new();
    let mut offence = None;
    let mut ended = false;
    while let Some(octet) = data.get(at) {
        let rest = &data[at..];
        if line_start && rest.starts_with(b".\r\n") {
            at += 3;
            ended = true;
            break;
        }
        if std::mem::take(&mut line_start) && *octet == b'.' {
            if rest == b".\r" {
                at = data.len();
                break;
            }
            at += 1;
            continue;
        }
        let bare = match rest {
            [b'\r'] => {
                at += 1;
                break;
            }
            [b'\r', b'\n', ..] => {
                if offence.is_none() {
                    content.extend_from_slice(b"\r\n");
                }
                (at, line, line_start) = (at + 2, 0, true);
                continue;
            }
            [b'\r', ..] => Some(BodyOffence::BareCr),
            [b'\n', ..] => Some(BodyOffence::BareLf),
            _ => None,
        };
        at += 1;
        match bare {
            Some(_) if newline == BareNewline::Normalize => {
                line = 0;
                if offence.is_none() {
                    content.extend_from_slice(b"\r\n");
                }
            }
            Some(bare) => _ = offence.get_or_insert(bare),
            None if *octet == 0 => _ = offence.get_or_insert(BodyOffence::Nul),
            None => {
                line += 1;
                if line > longest {
                    offence.get_or_insert(BodyOffence::LineTooLong);
                }
                if offence.is_none() {
                    content.push(*octet);
                }
            }
        }
    }
    Seen {
        content,
        taken: at,
        ended,
        offence,
    }
}

fn encode(reads: &[&[u8]]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut wire = Vec::new();
    for read in reads {
        encoder.encode(read, &mut wire);
    }
    encoder.finish(&mut wire);
    wire
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, data)) = steered(data) else {
        return;
    };
    let Some((line_max, data)) = steered(data) else {
        return;
    };
    let line_max = (line_max > 0).then_some(usize::from(line_max));
    let cuts = pieces(seed, data);
    for newline in [BareNewline::Reject, BareNewline::Normalize] {
        let expected = reference(data, newline, line_max);
        assert_eq!(decode(&[data], newline, line_max), expected);
        assert_eq!(decode(&cuts, newline, line_max), expected);
        let mut wire = Vec::new();
        let mut encoder = Encoder::new();
        encoder.encode(&expected.content, &mut wire);
        if expected.ended && expected.offence.is_none() {
            encoder.finish(&mut wire);
        }
        let recoded = (wire, expected.taken, expected.ended, expected.offence);
        assert_eq!(recode(&[data], newline, line_max), recoded);
        assert_eq!(recode(&cuts, newline, line_max), recoded);
        // What was decoded is clean, and comes back from the encoder whole.
        if expected.ended && expected.offence.is_none() {
            let mut content = expected.content;
            let wire = encode(&pieces(seed, &content));
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                content.extend_from_slice(b"\r\n");
            }
            let again = decode(&[&wire], BareNewline::Reject, None);
            assert_eq!((again.content, again.offence), (content, None));
        }
    }
    // Whatever goes in, nobody sees an end before the end: neither strict
    // readers nor those to whom a bare LF ends a line.
    let wire = encode(&cuts);
    assert_eq!(wire, encode(&[data]));
    let seen = decode(&[&wire], BareNewline::Reject, None);
    assert!(seen.ended && seen.taken == wire.len());
    let body = wire.strip_suffix(b".\r\n").expect("an end");
    assert!(body.is_empty() || body.ends_with(b"\r\n"));
    for line in body.split(|octet| *octet == b'\n') {
        assert!(line != b"." && line != b".\r", "an end in the body");
    }
});
