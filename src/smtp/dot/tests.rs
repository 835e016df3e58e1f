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
