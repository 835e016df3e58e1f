//! Messages that carry a file.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::run;

/// A message with a file in base64 beside its text.
pub fn attachment(subject: &str, octets: &[u8]) -> String {
    let encoded = STANDARD.encode(octets);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).collect();
    let lines = String::from_utf8(lines.join(&b"\r\n"[..])).unwrap();
    format!(
        "From: Ann <ann@sender.test>\r\n\
         To: Bob <bob@example.org>\r\n\
         Subject: {subject}\r\n\
         Date: Tue, 24 Nov 2026 08:00:00 +0000\r\n\
         Message-ID: <{subject}@sender.test>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"cut\"\r\n\
         \r\n\
         --cut\r\n\
         Content-Type: text/plain\r\n\
         \r\n\
         Dear Bob, see the file.\r\n\
         --cut\r\n\
         Content-Type: application/octet-stream; name=\"file\"\r\n\
         Content-Disposition: attachment; filename=\"file\"\r\n\
         Content-Transfer-Encoding: base64\r\n\
         \r\n\
         {lines}\r\n\
         --cut--\r\n"
    )
}

/// A zip archive of one deflated file.
pub fn zipped(octets: &[u8]) -> Vec<u8> {
    let program = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as archive:\n\
        \x20   archive.writestr('setup.com', sys.stdin.buffer.read())\n";
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive.zip");
    let arguments = ["-c", program, archive.to_str().unwrap()];
    run("python3", &arguments, octets, Duration::from_secs(30)).assert_success();
    std::fs::read(archive).unwrap()
}
