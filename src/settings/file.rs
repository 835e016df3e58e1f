//! Reads the text files that settings name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is read, octets: a million domains.
const SIZE_MAX: u64 = 64 * 1024 * 1024;

/// The text of a file. What is no regular file is not opened: a FIFO would be waited
/// for, and no reload be heard any more.
///
/// # Errors
/// Those of the system; and what is no regular file, too large or not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    // One octet more tells a file that is too large from one that fits.
    File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|size| size > SIZE_MAX) {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_and_waits_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text"), "one\n").unwrap();
        assert_eq!(read_text(at("text")).unwrap(), "one\n");
        let made = std::process::Command::new("mkfifo")
            .arg(at("fifo"))
            .status();
        assert!(made.unwrap().success());
        for odd in ["fifo", "."] {
            let error = read_text(at(odd)).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
        let huge = File::create(at("huge")).unwrap();
        huge.set_len(SIZE_MAX + 1).unwrap();
        assert!(
            read_text(at("huge"))
                .unwrap_err()
                .to_string()
                .contains("larger")
        );
    }
}
