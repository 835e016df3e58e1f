//! A PROXY header is read to its end and not one octet further, and prints as
//! one that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::proxy_protocol::{Addresses, ProxyError, read, write_v1, write_v2};
use portcullis_fuzz::ready;

/// The longest header that is read: 16 octets and a block of 4096.
const LONGEST: usize = 16 + 4096;

fn header(data: &[u8]) -> (Result<Option<Addresses>, ProxyError>, usize) {
    let mut stream = data;
    let header = ready(read(&mut stream));
    (header, data.len() - stream.len())
}

fuzz_target!(|data: &[u8]| {
    let (found, taken) = header(data);
    assert!(taken <= LONGEST);
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
            }
        }
        Err(ProxyError::Gone(_)) => assert_eq!(taken, data.len()),
        Err(ProxyError::NotProxy | ProxyError::Malformed) => {}
    }
});
