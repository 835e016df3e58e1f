//! What is parsed prints as one clean line that parses to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::smtp::command::{AuthLine, Command};
use portcullis_fuzz::assert_one_line;

fuzz_target!(|data: &[u8]| {
    match Command::parse(data) {
        Ok(command) => {
            let printed = command.to_string();
            assert_one_line(&printed);
            assert!(printed.starts_with(&command.verb().to_string()));
            assert_eq!(Command::parse(printed.as_bytes()).as_ref(), Ok(&command));
        }
        Err(error) => assert_one_line(&error.to_string()),
    }
    if let Ok(line) = AuthLine::parse(data) {
        let printed = line.to_string();
        assert_one_line(&printed);
        assert_eq!(AuthLine::parse(printed.as_bytes()), Ok(line));
    }
});
