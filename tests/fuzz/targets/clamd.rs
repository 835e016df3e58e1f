//! Whatever clamd answers is a word or an error, and only `OK` is clean.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::policy::content::Word;
use portcullis::scan::clamav::word;
use portcullis_fuzz::assert_one_line;

fuzz_target!(|data: &[u8]| {
    match word(data) {
        Ok(Word::Clean) => assert_eq!(data, b"stream: OK\0"),
        Ok(Word::Infected(name)) => {
            assert!(!name.is_empty());
            assert_one_line(&name);
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => assert_one_line(&error.to_string()),
    }
});
