//! A PROXY header is read to its end and not one octet further, and prints as
//! one that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::proxy_protocol::{Addresses, ProxyError, read, write_v1, write_v2};
use portcullis_fuzz::ready;

/// The longest line of version 1, its CRLF included.
const LONGEST_V1: usize = 107;

fn header(data: &[u8]) -> (Result<Option<Addresses>, ProxyError>, usize) {
    let mut stream = data;
    let header = ready(read(&mut stream));
    (header, data.len() - stream.len())
}

fuzz_target!(|data: &[u8]| {
    let (found, taken) = header(data);
    match data {
        // A block of more than 4096 octets is not even begun.
        [b'\r', ..] if taken > 16 => {
            assert!(u16::from_be_bytes([data[14], data[15]]) <= 4096);
        }
        [b'P', ..] => assert!(taken <= LONGEST_V1),
        _ => {}
    }
    match found {
        Ok(addresses) => {
            let (again, all) = header(&data[..taken]);
            assert_eq!((again.unwrap(), all), (addresses, taken));
            if let Some(Addresses {
                source,
                destination,
            }) = addresses
            {
                for printed in [write_v1(source, destination), write_v2(source, destination)] {
                    let (again, all) = header(&printed);
                    assert_eq!((again.unwrap(), all), (addresses, printed.len()));
                }
                // There is one way to write it.
                if data.starts_with(b"PROXY TCP4") {
                    assert_eq!(write_v1(source, destination), data[..taken]);
                }
            }
        }
        Err(ProxyError::Gone(_)) => assert_eq!(taken, data.len()),
        Err(ProxyError::NotProxy | ProxyError::Malformed) => {}
    }
});
