//! Properties of the DATA and BDAT codecs, against a slow obvious reference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use portcullis::smtp::bdat::ChunkChecker;
use portcullis::smtp::dot::{BareNewline, BodyOffence, Decoder, Encoder};
use proptest::prelude::*;

/// Octets rich in everything that could be mistaken for an end.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b".".to_vec()),
        Just(b"\r\n.\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"abc".to_vec()),
        Just(b"\xff".to_vec()),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Bodies of whole CRLF lines, 8-bit octets and leading dots included.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let octet = any::<u8>().prop_filter("legal", |octet| !matches!(octet, b'\r' | b'\n' | 0));
    let line = (
        proptest::collection::vec(Just(b'.'), 0..3),
        proptest::collection::vec(octet, 0..40),
    );
    let line = line.prop_map(|(dots, rest)| [dots, rest, b"\r\n".to_vec()].concat());
    proptest::collection::vec(line, 0..20).prop_map(|lines| lines.concat())
}

#[derive(Debug, PartialEq)]
struct Outcome {
    content: Vec<u8>,
    taken: usize,
    ended: bool,
    offence: Option<BodyOffence>,
}

/// RFC 5321 4.5.2 read aloud: find the end first, then look at every octet.
fn reference(input: &[u8], newline: BareNewline) -> Outcome {
    let with_start = [b"\r\n", input].concat();
    let end = with_start
        .windows(5)
        .position(|window| window == b"\r\n.\r\n");
    let (message, taken) = match end {
        Some(at) => (&with_start[..at + 2], at + 3),
        None => (&with_start[..], input.len()),
    };
    let mut outcome = Outcome {
        content: Vec::new(),
        taken,
        ended: end.is_some(),
        offence: None,
    };
    let mut at = 2;
    while at < message.len() {
        let octet = message[at];
        let next = message.get(at + 1);
        let offence = match octet {
            0 => Some(BodyOffence::Nul),
            b'\r' if next == Some(&b'\n') => {
                outcome.content.extend(b"\r\n");
                at += 2;
                continue;
            }
            // What follows is not known yet.
            b'\r' if next.is_none() => break,
            b'\r' => Some(BodyOffence::BareCr),
            b'\n' => Some(BodyOffence::BareLf),
            _ => None,
        };
        match offence {
            Some(BodyOffence::Nul) => {
                outcome.offence = offence;
                break;
            }
            Some(_) if newline == BareNewline::Normalize => outcome.content.extend(b"\r\n"),
            Some(_) => {
                outcome.offence = offence;
                break;
            }
            // A line-leading dot is removed; what ends a message was cut off above.
            None if octet == b'.' && &message[at - 2..at] == b"\r\n" && next.is_some() => {
                // Whether it leads the final dot is not known while only `.` CR is there.
                if message[at + 1..] == *b"\r" {
                    break;
                }
            }
            None if octet == b'.' && &message[at - 2..at] == b"\r\n" => break,
            None => outcome.content.push(octet),
        }
        at += 1;
    }
    outcome
}

/// Whether every CR and LF is half of a CRLF.
fn is_strict(octets: &[u8]) -> bool {
    (0..octets.len()).all(|at| match octets[at] {
        b'\r' => octets.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && octets[at - 1] == b'\r',
        _ => true,
    })
}

fn decode(input: &[u8], newline: BareNewline, cuts: &[usize]) -> Outcome {
    decode_lines(input, newline, None, cuts)
}

fn decode_lines(
    input: &[u8],
    newline: BareNewline,
    line_max: Option<usize>,
    cuts: &[usize],
) -> Outcome {
    let mut decoder = Decoder::new(newline, line_max);
    let mut outcome = Outcome {
        content: Vec::new(),
        taken: 0,
        ended: false,
        offence: None,
    };
    let mut buffer = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        buffer.extend(&input[from..cut]);
        from = cut;
        if outcome.ended {
            continue;
        }
        let decoded = decoder.decode(&buffer, &mut outcome.content);
        buffer.drain(..decoded.taken);
        outcome.taken += decoded.taken;
        outcome.ended = decoded.ended;
    }
    outcome.offence = decoder.offence();
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn decoder_does_what_the_rfc_says_however_the_octets_are_cut(
        input in tricky(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        normalize in any::<bool>(),
    ) {
        let newline = if normalize { BareNewline::Normalize } else { BareNewline::Reject };
        let expected = reference(&input, newline);
        let found = decode(&input, newline, &cuts);
        prop_assert_eq!(found.ended, expected.ended);
        prop_assert_eq!(found.offence, expected.offence);
        prop_assert_eq!(&found.content, &expected.content);
        if expected.ended {
            prop_assert_eq!(found.taken, expected.taken);
        }
    }

    #[test]
    fn every_body_comes_back_byte_for_byte(
        body in body(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        behind in "[A-Z. \r\n]{0,12}",
    ) {
        let mut wire = Vec::new();
        let mut encoder = Encoder::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        ends.push(body.len());
        ends.sort_unstable();
        let mut from = 0;
        for end in ends {
            encoder.encode(&body[from..end], &mut wire);
            from = end;
        }
        encoder.finish(&mut wire);
        prop_assert!(is_strict(&wire), "{}", wire.escape_ascii());
        let end = wire.len();
        // The end stands once, and last.
        let framed = [b"\r\n", wire.as_slice()].concat();
        let ends = framed.windows(5).filter(|window| *window == b"\r\n.\r\n").count();
        prop_assert_eq!(ends, 1);
        prop_assert!(framed.ends_with(b"\r\n.\r\n"));
        wire.extend(behind.as_bytes());
        let found = decode(&wire, BareNewline::Reject, &cuts);
        prop_assert_eq!(found, Outcome { content: body, taken: end, ended: true, offence: None });
    }

    #[test]
    fn nothing_is_passed_on_after_an_offence_and_the_end_is_still_found(
        before in body(),
        offence in prop_oneof![Just(&b"\0"[..]), Just(&b"x\ry"[..]), Just(&b"x\ny"[..]), Just(&b"\r\r\n"[..])],
        after in tricky(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut input = Vec::new();
        Encoder::new().encode(&before, &mut input);
        input.extend([offence, &after, b"\r\n.\r\n"].concat());
        let found = decode(&input, BareNewline::Reject, &cuts);
        prop_assert!(found.offence.is_some() && found.ended);
        // An octet of the line it stands in may have come before it.
        let line = if offence.starts_with(b"x") { "x" } else { "" };
        prop_assert_eq!(found.content, [&before, line.as_bytes()].concat());
    }

    #[test]
    fn the_line_limit_is_the_same_however_the_octets_are_cut(
        body in body(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        max in 2usize..44,
    ) {
        let longest = body.split_inclusive(|octet| *octet == b'\n').map(<[u8]>::len).max();
        let expected = (longest > Some(max)).then_some(BodyOffence::LineTooLong);
        let mut wire = Vec::new();
        let mut encoder = Encoder::new();
        encoder.encode(&body, &mut wire);
        encoder.finish(&mut wire);
        let found = decode_lines(&wire, BareNewline::Reject, Some(max), &cuts);
        prop_assert_eq!(found.offence, expected);
        prop_assert!(found.ended && found.taken == wire.len());
        prop_assert!(body.starts_with(&found.content));
        prop_assert_eq!(found, decode_lines(&wire, BareNewline::Reject, Some(max), &[]));
    }

    #[test]
    fn what_is_printed_after_repair_is_strict(input in tricky()) {
        let found = decode(&input, BareNewline::Normalize, &[]);
        let mut wire = Vec::new();
        let mut encoder = Encoder::new();
        encoder.encode(&found.content, &mut wire);
        encoder.finish(&mut wire);
        let again = decode(&wire, BareNewline::Reject, &[]);
        prop_assert_eq!(again.offence, None);
        prop_assert!(again.ended && again.taken == wire.len());
    }

    #[test]
    fn chunks_are_checked_by_the_same_rules_however_they_are_cut(
        input in tricky(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut checker = ChunkChecker::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts {
            checker.check(&input[from..cut]);
            from = cut;
        }
        checker.finish();
        let first = (0..input.len()).find_map(|at| match input[at] {
            0 => Some(BodyOffence::Nul),
            b'\r' if input.get(at + 1) != Some(&b'\n') => Some(BodyOffence::BareCr),
            b'\n' if at == 0 || input[at - 1] != b'\r' => Some(BodyOffence::BareLf),
            _ => None,
        });
        prop_assert_eq!(checker.offence(), first);
    }
}
