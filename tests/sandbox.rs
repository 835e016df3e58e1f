//! The sandbox of Landlock: what settings did not name at the start is out of reach,
//! and the log says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs;
use std::path::PathBuf;

use support::{Portcullis, Scripted, Smtp};

/// Two folders, each with a list of domains; the setting of the first is given at the
/// start, a reload asks for the other.
struct Lists {
    folder: tempfile::TempDir,
}

impl Lists {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, domain) in [("first", "first.test"), ("other", "other.test")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("domains"), domain).unwrap();
        }
        let lists = Self { folder };
        fs::create_dir(lists.path("etc")).unwrap();
        lists.name("first/domains");
        lists
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc").join("portcullis.toml")
    }

    fn name(&self, list: &str) {
        let setting = format!("domains = '@{}'\n", self.path(list).display());
        fs::write(self.config(), setting).unwrap();
    }
}

fn start(lists: &Lists, backend: &Scripted, sandbox: &str) -> Portcullis {
    let backend = backend.address.to_string();
    let config = lists.config();
    let portcullis = Portcullis::start(&[
        ("BACKEND", &backend),
        ("CONFIG", config.to_str().unwrap()),
        ("SANDBOX", sandbox),
    ]);
    assert!(asks(&portcullis, "first.test").starts_with("250"));
    portcullis
}

fn asks(portcullis: &Portcullis, domain: &str) -> String {
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<a@client.test>", "250");
    client.say(&format!("RCPT TO:<b@{domain}>"));
    client.reply()
}

/// The line of `/proc/PID/status` that begins with this word.
fn status(portcullis: &Portcullis, word: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", portcullis.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap().trim().to_owned()
}

#[test]
fn files_beside_the_named_folders_are_out_of_reach_and_the_log_says_what_to_do() {
    let (backend, lists) = (Scripted::start(&[]), Lists::new());
    let portcullis = start(&lists, &backend, "true");
    portcullis.log_with("sandbox: only files that settings name");
    assert_eq!(status(&portcullis, "NoNewPrivs:"), "1");

    // Another list beside the first is within reach, and one in another folder is not.
    fs::write(lists.path("first/next"), "next.test").unwrap();
    lists.name("first/next");
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    assert!(asks(&portcullis, "next.test").starts_with("250"));

    lists.name("other/domains");
    portcullis.hang_up();
    let log = portcullis.log_with("a restart lets in others");
    assert!(log.contains("Permission denied"), "{log}");
    assert!(asks(&portcullis, "next.test").starts_with("250"));
    assert!(asks(&portcullis, "other.test").starts_with("550"));
}

#[test]
fn without_the_sandbox_every_file_is_within_reach() {
    let (backend, lists) = (Scripted::start(&[]), Lists::new());
    let portcullis = start(&lists, &backend, "false");
    assert!(!portcullis.log().contains("sandbox"));
    lists.name("other/domains");
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    assert!(asks(&portcullis, "other.test").starts_with("250"));
}
