use super::*;

/// Decodes one stream whole, and again octet by octet, and insists that both
/// agree. Returns content, octets taken, whether it ended, and the offence.
fn decode(
    newline: BareNewline,
    line_max: Option<usize>,
    stream: &[u8],
) -> (Vec<u8>, usize, bool, Option<BodyOffence>) {
    let mut content = Vec::new();
    let mut decoder = Decoder::new(newline, line_max);
    let decoded = decoder.decode(stream, &mut content);
    assert_eq!(decoder.size(), content.len() as u64);

    let mut slow = Decoder::new(newline, line_max);
    let (mut slow_content, mut taken, mut ended) = (Vec::new(), 0, false);
    for octet in stream {
        let step = slow.decode(&[*octet], &mut slow_content);
        taken += step.taken;
        ended = step.ended;
    }
    assert_eq!(
        (&slow_content, taken, ended, slow.offence()),
        (&content, decoded.taken, decoded.ended, decoder.offence()),
        "the result must not depend on the cut"
    );
    (content, decoded.taken, decoded.ended, decoder.offence())
}

fn strict(stream: &[u8]) -> (Vec<u8>, bool, Option<BodyOffence>) {
    let (content, _, ended, offence) = decode(BareNewline::Reject, None, stream);
    (content, ended, offence)
}

fn normalized(stream: &[u8]) -> (Vec<u8>, bool) {
    let (content, _, ended, offence) = decode(BareNewline::Normalize, None, stream);
    assert_eq!(offence, None);
    (content, ended)
}

#[test]
fn decodes_lines_and_leaves_what_follows_the_end() {
    let (content, taken, ended, offence) =
        decode(BareNewline::Reject, None, b"a\r\nb\r\n.\r\nQUIT\r\n");
    assert_eq!(content, b"a\r\nb\r\n");
    assert_eq!((taken, ended, offence), (9, true, None));
}

#[test]
fn empty_message_ends_at_once() {
    assert_eq!(strict(b".\r\n"), (vec![], true, None));
    assert_eq!(strict(b"\r\n.\r\n"), (b"\r\n".to_vec(), true, None));
}

#[test]
fn takes_transparency_off() {
    assert_eq!(
        strict(b"..\r\n.a\r\n...\r\n. \r\nx.\r\n.\r\n"),
        (b".\r\na\r\n..\r\n \r\nx.\r\n".to_vec(), true, None)
    );
}

#[test]
fn nothing_but_crlf_dot_crlf_is_an_end() {
    // One line for each way that other servers have ended a message.
    for (stream, offence) in [
        (&b"a\n.\n"[..], BodyOffence::BareLf),
        (b"a\n.\r\n", BodyOffence::BareLf),
        (b"a\r\n.\n", BodyOffence::BareLf),
        (b"a\r.\r", BodyOffence::BareCr),
        (b"a\r.\r\n", BodyOffence::BareCr),
        (b"a\r\n.\r", BodyOffence::BareCr),
        (b"a\r\n.\r\r\n", BodyOffence::BareCr),
        (b"a\r\r\n.\r\r\n", BodyOffence::BareCr),
        (b"a\r\n\0.\r\n", BodyOffence::Nul),
        (b"a\r\n.\0\r\n", BodyOffence::Nul),
        (b"a\n\n.\r\n", BodyOffence::BareLf),
        (b".\n", BodyOffence::BareLf),
        (b".\rx", BodyOffence::BareCr),
    ] {
        let stream = [stream, b"MAIL FROM:<a@b>"].concat();
        let (_, ended, found) = strict(&stream);
        assert_eq!((ended, found), (false, Some(offence)), "{stream:?}");
    }
}

#[test]
fn finds_the_true_end_after_an_offence() {
    let (content, taken, ended, offence) =
        decode(BareNewline::Reject, None, b"a\nb\r\n.\r\nQUIT\r\n");
    assert_eq!(content, b"a", "nothing is passed on after it");
    assert_eq!(
        (taken, ended, offence),
        (8, true, Some(BodyOffence::BareLf))
    );
    let (_, ended, offence) = strict(b"a\r\r\n.\r\n");
    assert_eq!((ended, offence), (true, Some(BodyOffence::BareCr)));
}

#[test]
fn first_offence_is_the_one_reported() {
    assert_eq!(strict(b"a\0\n\r\n.\r\n").2, Some(BodyOffence::Nul));
    assert_eq!(strict(b"a\n\0\r\n.\r\n").2, Some(BodyOffence::BareLf));
}

#[test]
fn normalizes_each_bare_cr_and_lf() {
    assert_eq!(
        normalized(b"a\rb\nc\r\r\nd\n\r\n.\r\n"),
        (b"a\r\nb\r\nc\r\n\r\nd\r\n\r\n".to_vec(), true)
    );
}

#[test]
fn normalizing_never_makes_an_end() {
    for stream in [
        &b"a\n.\r\nRCPT\r\n"[..],
        b"a\r.\r\nRCPT\r\n",
        b"a\r\n.\nRCPT\r\n",
        b"a\r\n.\rRCPT\r\n",
        b"a\r\n.\r\r\nRCPT\r\n",
    ] {
        assert!(!normalized(stream).1, "{stream:?}");
    }
}

#[test]
fn dot_after_a_bare_newline_is_content() {
    assert_eq!(
        normalized(b"a\n.\r\n.\r\n"),
        (b"a\r\n.\r\n".to_vec(), true),
        "neither end nor transparency"
    );
    assert_eq!(normalized(b"a\n..b\r\n.\r\n").0, b"a\r\n..b\r\n");
    let mut wire = Vec::new();
    let mut encoder = Encoder::new();
    encoder.encode(b"a\r\n.\r\n", &mut wire);
    encoder.finish(&mut wire);
    assert_eq!(wire, b"a\r\n..\r\n.\r\n", "so the encoder doubles it");
}

#[test]
fn leading_dot_goes_even_before_a_bare_newline() {
    assert_eq!(normalized(b".\nb\r\n.\r\n").0, b"\r\nb\r\n");
    assert_eq!(normalized(b".\rb\r\n.\r\n").0, b"\r\nb\r\n");
    assert_eq!(normalized(b".\r\r\n.\r\n").0, b"\r\n\r\n");
}

#[test]
fn nul_is_an_offence_in_both_modes() {
    for newline in [BareNewline::Reject, BareNewline::Normalize] {
        let (content, _, ended, offence) = decode(newline, None, b"a\0b\r\n.\r\n");
        assert_eq!(content, b"a");
        assert_eq!((ended, offence), (true, Some(BodyOffence::Nul)));
    }
}

#[test]
fn line_limit_counts_crlf_and_not_the_transparency_dot() {
    let limit = |stream| decode(BareNewline::Reject, Some(5), stream);
    assert_eq!(limit(b"abc\r\n.abc\r\n.\r\n").3, None);
    let (content, _, ended, offence) = limit(b"abc\r\nabcd\r\nx\r\n.\r\n");
    assert_eq!(content, b"abc\r\nabc", "up to the octet too many");
    assert_eq!((ended, offence), (true, Some(BodyOffence::LineTooLong)));
    assert_eq!(limit(b"...abc\r\n.\r\n").3, Some(BodyOffence::LineTooLong));
}

#[test]
fn line_limit_starts_again_at_a_normalized_newline() {
    let limit = |stream| decode(BareNewline::Normalize, Some(5), stream);
    assert_eq!(limit(b"abc\nabc\rabc\r\n.\r\n").3, None);
    assert_eq!(limit(b"abc\nabcd\n").3, Some(BodyOffence::LineTooLong));
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut decoder = Decoder::new(BareNewline::Reject, None);
    let mut content = Vec::new();
    assert!(decoder.decode(b"a\r\n.\r\n", &mut content).ended);
    let again = decoder.decode(b"b\r\n", &mut content);
    assert_eq!((again.taken, again.ended), (0, true));
    assert_eq!(content, b"a\r\n");
}

fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut encoder = Encoder::new();
    for piece in pieces {
        encoder.encode(piece, &mut wire);
    }
    encoder.finish(&mut wire);
    wire
}

#[test]
fn doubles_leading_dots_however_cut() {
    assert_eq!(
        encode(&[b".a\r\n..\r\nb.\r\n"]),
        b"..a\r\n...\r\nb.\r\n.\r\n"
    );
    assert_eq!(
        encode(&[b"a\r", b"\n", b"", b".b\r\n"]),
        b"a\r\n..b\r\n.\r\n"
    );
    assert_eq!(encode(&[b"a\r\n", b"."]), b"a\r\n..\r\n.\r\n");
}

#[test]
fn adds_the_missing_crlf_before_the_end() {
    assert_eq!(encode(&[]), b".\r\n");
    assert_eq!(encode(&[b"a"]), b"a\r\n.\r\n");
    assert_eq!(encode(&[b"a\r\n"]), b"a\r\n.\r\n");
    assert_eq!(encode(&[b"a\r", b"\n"]), b"a\r\n.\r\n");
}

#[test]
fn dot_behind_a_stray_lf_is_doubled_too() {
    // A lenient receiver would take it for the end.
    assert_eq!(encode(&[b"a\n.\r\nb"]), b"a\n..\r\nb\r\n.\r\n");
    assert_eq!(encode(&[b"a\n", b".\r\nb"]), b"a\n..\r\nb\r\n.\r\n");
}

/// What a [`Recoder`] makes of a stream that comes in pieces of so many octets:
/// the wire, octets taken, whether it ended, and the offence.
fn recode(
    newline: BareNewline,
    line_max: Option<usize>,
    stream: &[u8],
    piece: usize,
) -> (Vec<u8>, usize, bool, Option<BodyOffence>) {
    let mut recoder = Recoder::new(newline, line_max);
    let (mut written, mut wire) = (Vec::new(), Vec::new());
    let (mut taken, mut ended) = (0, false);
    let mut read = 0;
    while !ended && read < stream.len() {
        read = stream.len().min(read + piece);
        let recoded = recoder.recode(&stream[taken..read], &mut wire);
        if recoded.as_is {
            assert_eq!(wire, b"");
            written.extend_from_slice(&stream[taken..taken + recoded.taken]);
        }
        written.append(&mut wire);
        taken += recoded.taken;
        ended = recoded.ended;
    }
    (written, taken, ended, recoder.offence())
}

fn by_both_codecs(
    newline: BareNewline,
    line_max: Option<usize>,
    stream: &[u8],
) -> (Vec<u8>, usize, bool, Option<BodyOffence>) {
    let (content, taken, ended, offence) = decode(newline, line_max, stream);
    let mut wire = Vec::new();
    let mut encoder = Encoder::new();
    encoder.encode(&content, &mut wire);
    if ended && offence.is_none() {
        encoder.finish(&mut wire);
    }
    (wire, taken, ended, offence)
}

#[test]
fn recoding_is_decoding_and_encoding() {
    let long = "x".repeat(2 * 128);
    for stream in [
        "a\r\nb\r\n.\r\nQUIT\r\n",
        ".\r\n",
        "a\r\n..b\r\n.c\r\n.\r\n",
        "a\n.\r\n.\r\n",
        "a\n.b\r\n..\r\n.\r\n",
        "..\r\n...\r\n....x\r\n..",
        "..\n..\r\n..\r..\r\n.\r\n",
        "a\r",
        "a\0\r\n.\r\n",
        &format!("{long}\r\n{long}\n.{long}\r\n.\r\nQUIT\r\n"),
        &format!("{}\r\n.\r\n", "x".repeat(511)),
    ] {
        for newline in [BareNewline::Reject, BareNewline::Normalize] {
            for line_max in [None, Some(2), Some(3), Some(4), Some(512), Some(514)] {
                let expected = by_both_codecs(newline, line_max, stream.as_bytes());
                for piece in [1, 2, 3, 127, 128, 129, 257, usize::MAX >> 1] {
                    let seen = recode(newline, line_max, stream.as_bytes(), piece);
                    assert_eq!(seen, expected, "{stream:?} by {piece}");
                }
            }
        }
    }
}

#[test]
fn whole_clean_lines_and_the_end_are_not_copied() {
    let mut recoder = Recoder::new(BareNewline::Reject, Some(1000));
    let mut wire = Vec::new();
    let recoded = recoder.recode(b"a\r\n..b.\r\n.\r\nQUIT\r\n", &mut wire);
    let expected = Recoded {
        taken: 12,
        ended: true,
        as_is: true,
    };
    assert_eq!((recoded, &*wire), (expected, &b""[..]));
    assert_eq!(recoder.size(), 8, "without the dot that only the wire has");
}

#[test]
fn what_is_inserted_goes_first_and_in_one_piece_with_the_rest() {
    let mut recoder = Recoder::new(BareNewline::Reject, None);
    let mut wire = Vec::new();
    recoder.insert(b"Received: from here\r\n", &mut wire);
    let recoded = recoder.recode(b"a\r\n.\r\n", &mut wire);
    assert!(recoded.ended && !recoded.as_is);
    assert_eq!(wire, b"Received: from here\r\na\r\n.\r\n");
}

mod random {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b"\r\n".to_vec()),
            2 => Just(b".".to_vec()),
            2 => Just(b"\r\n.\r\n".to_vec()),
            1 => Just(b"\r".to_vec()),
            1 => Just(b"\n".to_vec()),
            1 => Just(b"\0".to_vec()),
            4 => (0_usize..300).prop_map(|octets| vec![b'x'; octets]),
        ];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn streams_are_recoded_as_by_both_codecs(
            stream in pieces(),
            normalize: bool,
            line_max in proptest::option::of(2_usize..700),
            piece in prop_oneof![1_usize..8, 200_usize..600],
        ) {
            let newline = match normalize {
                true => BareNewline::Normalize,
                false => BareNewline::Reject,
            };
            let expected = by_both_codecs(newline, line_max, &stream);
            prop_assert_eq!(recode(newline, line_max, &stream, piece), expected);
        }
    }
}
