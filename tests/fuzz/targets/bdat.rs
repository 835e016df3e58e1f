//! Chunks are judged by their octets alone, wherever they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::smtp::bdat::ChunkChecker;
use portcullis::smtp::dot::BodyOffence;
use portcullis_fuzz::{pieces, steered};

fn check(reads: &[&[u8]]) -> Option<BodyOffence> {
    let mut checker = ChunkChecker::new();
    reads.iter().for_each(|read| checker.check(read));
    checker.finish();
    checker.offence()
}

fn reference(data: &[u8]) -> Option<BodyOffence> {
    let mut before = 0;
    for (at, octet) in data.iter().enumerate() {
        match octet {
            b'\r' if data.get(at + 1) != Some(&b'\n') => return Some(BodyOffence::BareCr),
            b'\n' if before != b'\r' => return Some(BodyOffence::BareLf),
            0 => return Some(BodyOffence::Nul),
            _ => before = *octet,
        }
    }
    None
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, data)) = steered(data) else {
        return;
    };
    let expected = reference(data);
    assert_eq!(check(&[data]), expected);
    assert_eq!(check(&pieces(seed, data)), expected);
});
