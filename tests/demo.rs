//! `portcullis demo`: the lines that it prints do what it says they do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Finished, free_address, run, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

struct Demo {
    child: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    /// Starts the demo on free ports and waits until it listens.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| File::create(folder.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("demo").env_clear();
        for name in ["LISTEN", "LISTEN_TLS", "LISTEN_SUBMISSION", "ADMIN"] {
            command.env(format!("PORTCULLIS_{name}"), free_address().to_string());
        }
        let child = command
            .env("PORTCULLIS_LOG_FORMAT", "text")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("account"))
            .stderr(file("invitation"))
            .spawn()
            .unwrap();
        let demo = Self { child, folder };
        demo.account_with("portcullis is up");
        demo
    }

    /// What it invites to try: what a command is said to do, and the command.
    fn invitation(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.folder.path().join("invitation")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        lines
            .windows(2)
            .filter(|pair| pair[1].contains("swaks ") || pair[1].contains("curl "))
            .map(|pair| (pair[0].trim().to_owned(), pair[1].trim().to_owned()))
            .collect()
    }

    fn account(&self) -> String {
        fs::read_to_string(self.folder.path().join("account")).unwrap()
    }

    /// The line of the account that holds all of these.
    #[track_caller]
    fn account_of(&self, parts: &[&str]) -> String {
        let find = || {
            let account = self.account();
            let mut lines = account.lines();
            let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
            found.map(str::to_owned)
        };
        wait_for(PATIENCE, find).unwrap_or_else(|| panic!("no {parts:?} in\n{}", self.account()))
    }

    #[track_caller]
    fn account_with(&self, text: &str) {
        self.account_of(&[text]);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Does what a reader does with such a line.
fn try_out(line: &str) -> Finished {
    run("sh", &["-c", line], b"", PATIENCE)
}

#[test]
fn every_line_that_the_demo_prints_does_what_it_says() {
    let demo = Demo::start();
    let invitation = demo.invitation();
    assert!(invitation.len() >= 3, "{invitation:?}");
    for tool in ["swaks ", "curl "] {
        let named = invitation.iter().any(|(_, line)| line.contains(tool));
        assert!(named, "no {tool}line in {invitation:?}");
    }
    let (mut delivered, mut refused) = (0, 0);
    for (promise, line) in &invitation {
        let tried = try_out(line);
        if promise.contains("refused") {
            assert!(!tried.success(), "{line}\n{}", tried.output());
            assert!(tried.output().contains("550 5.7.1"), "{}", tried.output());
            refused += 1;
        } else {
            assert!(tried.success(), "{line}\n{}", tried.output());
            delivered += 1;
        }
    }
    assert!(delivered >= 2 && refused >= 1, "{invitation:?}");

    demo.account_of(&[
        "refused",
        "victim@example.com",
        "reason=relay-denied",
        "550 5.7.1",
    ]);
    let arrivals = || {
        let account = demo.account();
        let count = account.matches("the example server has a message").count();
        (count == delivered).then_some(())
    };
    assert!(wait_for(PATIENCE, arrivals).is_some(), "{}", demo.account());
}

#[test]
fn the_account_names_the_message_and_who_sent_it() {
    let demo = Demo::start();
    for tool in ["swaks ", "curl "] {
        let invitation = demo.invitation();
        let subject = format!("{}-was-here", tool.trim());
        let (_, line) = invitation
            .iter()
            .find(|(_, line)| line.contains(tool) && line.contains("Subject: hello"))
            .unwrap();
        try_out(&line.replace("hello", &subject)).assert_success();
        let arrival = demo.account_of(&["the example server has a message", &subject]);
        for part in ["you@example.org", "friend@example.org", "127.0.0.1"] {
            assert!(arrival.contains(part), "no `{part}` in `{arrival}`");
        }
    }
}

#[test]
fn a_mailbox_that_the_example_server_lacks_is_refused_in_its_own_words() {
    let demo = Demo::start();
    let invitation = demo.invitation();
    let (_, line) = invitation
        .iter()
        .find(|(_, line)| line.contains("friend@"))
        .unwrap();
    let tried = try_out(&line.replace("friend@", "nobody@"));
    assert!(!tried.success());
    assert!(tried.output().contains("550 5.1.1"), "{}", tried.output());
    demo.account_of(&[
        "refused",
        "nobody@example.org",
        "reason=backend",
        "no such mailbox",
    ]);
}
