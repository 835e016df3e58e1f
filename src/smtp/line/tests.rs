use super::*;

/// Feeds `pieces` one after the other and collects what comes out, up to and
/// with the first final offence.
fn cut_all(pieces: &[&[u8]], max: usize) -> Vec<Result<Vec<u8>, LineOffence>> {
    let mut cutter = LineCutter::new();
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match cutter.cut(&mut buffer, max) {
                Ok(None) => break,
                Ok(Some(line)) => found.push(Ok(line.to_vec())),
                Err(LineOffence::TooLong) => found.push(Err(LineOffence::TooLong)),
                Err(last) => {
                    found.push(Err(last));
                    return found;
                }
            }
        }
        assert!(buffer.len() < max, "no more than a line is held back");
    }
    found
}

fn cut(stream: &[u8]) -> Vec<Result<Vec<u8>, LineOffence>> {
    cut_all(&[stream], 64)
}

#[test]
fn cuts_pipelined_lines_and_keeps_the_rest() {
    let mut buffer = BytesMut::from(&b"NOOP\r\n\r\nRS"[..]);
    let mut cutter = LineCutter::new();
    assert_eq!(cutter.cut(&mut buffer, 64).unwrap().unwrap(), "NOOP");
    assert_eq!(cutter.cut(&mut buffer, 64).unwrap().unwrap(), "");
    assert_eq!(cutter.cut(&mut buffer, 64), Ok(None));
    assert_eq!(buffer, "RS");
    buffer.extend_from_slice(b"ET\r\n");
    assert_eq!(cutter.cut(&mut buffer, 64).unwrap().unwrap(), "RSET");
}

#[test]
fn refuses_bare_cr_bare_lf_and_nul() {
    assert_eq!(cut(b"NOOP\rRSET\r\n"), [Err(LineOffence::BareCr)]);
    assert_eq!(cut(b"NOOP\r\r\n"), [Err(LineOffence::BareCr)]);
    assert_eq!(cut(b"NOOP\nRSET\r\n"), [Err(LineOffence::BareLf)]);
    assert_eq!(cut(b"\nRSET\r\n"), [Err(LineOffence::BareLf)]);
    assert_eq!(cut(b"NO\0OP\r\n"), [Err(LineOffence::Nul)]);
    assert_eq!(cut(b"NOOP\r\0\n"), [Err(LineOffence::BareCr)]);
}

#[test]
fn cr_at_the_end_of_a_read_is_not_an_offence_yet() {
    assert_eq!(
        cut_all(&[b"NOOP\r", b"\n"], 64),
        [Ok(b"NOOP".to_vec())],
        "CRLF may arrive in two reads"
    );
    assert_eq!(cut_all(&[b"NOOP\r", b"R"], 64), [Err(LineOffence::BareCr)]);
}

#[test]
fn a_final_offence_is_reported_again() {
    let mut buffer = BytesMut::from(&b"a\nNOOP\r\n"[..]);
    let mut cutter = LineCutter::new();
    assert_eq!(cutter.cut(&mut buffer, 64), Err(LineOffence::BareLf));
    buffer = BytesMut::from(&b"NOOP\r\n"[..]);
    assert_eq!(cutter.cut(&mut buffer, 64), Err(LineOffence::BareLf));
}

#[test]
fn limit_counts_crlf() {
    assert_eq!(cut_all(&[b"12345678\r\n"], 10), [Ok(b"12345678".to_vec())]);
    assert_eq!(
        cut_all(&[b"123456789\r\nQUIT\r\n"], 10),
        [Err(LineOffence::TooLong), Ok(b"QUIT".to_vec())],
        "the next line is read after a long one"
    );
}

#[test]
fn endless_line_is_dropped_as_it_comes() {
    let mut cutter = LineCutter::new();
    let mut buffer = BytesMut::new();
    for _ in 0..1000 {
        buffer.extend_from_slice(&[b'a'; 100]);
        assert_eq!(cutter.cut(&mut buffer, 50), Ok(None));
        assert!(buffer.is_empty());
    }
    buffer.extend_from_slice(b"\r\n");
    assert_eq!(cutter.cut(&mut buffer, 50), Err(LineOffence::TooLong));
    assert_eq!(cutter.cut(&mut buffer, 50), Ok(None));
}

#[test]
fn bare_newline_inside_a_long_line_is_reported_instead() {
    let long = [b'a'; 100];
    for (end, offence) in [
        (&b"\nRSET\r\n"[..], LineOffence::BareLf),
        (b"\rRSET\r\n", LineOffence::BareCr),
        (b"\0\r\n", LineOffence::Nul),
    ] {
        let stream = [&long[..], end].concat();
        assert_eq!(cut_all(&[&stream], 50), [Err(offence)]);
        assert_eq!(cut_all(&[&long, end], 50), [Err(offence)]);
    }
}

#[test]
fn tells_a_tls_hello_by_its_first_two_octets() {
    assert_eq!(cut(b"\x16\x03\x01\x02\x00"), [Err(LineOffence::TlsHello)]);
    assert_eq!(
        cut_all(&[b"\x16", b"\x03"], 64),
        [Err(LineOffence::TlsHello)]
    );
    assert_eq!(cut(b"\x16\r\n"), [Ok(b"\x16".to_vec())]);
    assert_eq!(
        cut(b"NOOP\r\n\x16\x03\r\n"),
        [Ok(b"NOOP".to_vec()), Ok(b"\x16\x03".to_vec())],
        "only the first octets of a stream can be a hello"
    );
}

#[test]
fn does_not_scan_twice() {
    let mut cutter = LineCutter::new();
    let mut buffer = BytesMut::from(&b"abc"[..]);
    assert_eq!(cutter.cut(&mut buffer, 64), Ok(None));
    assert_eq!(cutter.scanned, 3);
    buffer.extend_from_slice(b"d\r");
    assert_eq!(cutter.cut(&mut buffer, 64), Ok(None));
    assert_eq!(cutter.scanned, 4, "a waiting CR is looked at again");
}
