//! Lines do not depend on the cuts, are those of a slow reference, and no more
//! than one line is held back.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::smtp::line::{LineCutter, LineOffence};
use portcullis_fuzz::{pieces, steered};

type Lines = Vec<Result<Vec<u8>, LineOffence>>;

fn cut(reads: &[&[u8]], max: usize) -> Lines {
    let (mut cutter, mut buffer, mut lines) = (LineCutter::new(), BytesMut::new(), Lines::new());
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match cutter.cut(&mut buffer, max) {
                Ok(None) => break,
                Ok(Some(line)) => lines.push(Ok(line.to_vec())),
                Err(LineOffence::TooLong) => lines.push(Err(LineOffence::TooLong)),
                Err(offence) => {
                    assert_eq!(cutter.cut(&mut buffer, max), Err(offence), "not final");
                    lines.push(Err(offence));
                    return lines;
                }
            }
        }
        assert!(buffer.len() <= max, "{} octets held", buffer.len());
    }
    lines
}

/// The same with one look at every octet and no memory.
fn reference(data: &[u8], max: usize) -> Lines {
    let mut lines = Lines::new();
    if data.starts_with(&[0x16, 3]) {
        return vec![Err(LineOffence::TlsHello)];
    }
    let mut rest = data;
    while let Some(end) = rest.iter().position(|octet| b"\r\n\0".contains(octet)) {
        let offence = match &rest[end..] {
            b"\r" => break,
            [b'\r', b'\n', ..] => {
                lines.push(match end + 2 > max {
                    true => Err(LineOffence::TooLong),
                    false => Ok(rest[..end].to_vec()),
                });
                rest = &rest[end + 2..];
                continue;
            }
            [b'\r', ..] => LineOffence::BareCr,
            [b'\n', ..] => LineOffence::BareLf,
            _ => LineOffence::Nul,
        };
        lines.push(Err(offence));
        break;
    }
    lines
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, data)) = steered(data) else {
        return;
    };
    let Some((max, data)) = steered(data) else {
        return;
    };
    // A CRLF alone is the shortest line there is.
    let max = usize::from(max) + 2;
    let expected = reference(data, max);
    assert_eq!(cut(&[data], max), expected);
    assert_eq!(cut(&pieces(seed, data), max), expected);
});
