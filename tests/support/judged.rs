//! Transactions whose message is judged, and what arrives of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Portcullis, Postfix, Smtp, first_difference, gtube, letter, wait_for};

/// A small message that every spam filter refuses.
pub fn spam(subject: &str) -> String {
    format!("{}{}\r\n", letter(subject), gtube())
}

/// MAIL, RCPT and the message in chunks of at most `size` octets (RFC 3030 2); the
/// reply to the last one.
#[track_caller]
pub fn deliver_in_chunks(
    client: &mut Smtp,
    sender: &str,
    recipient: &str,
    message: &[u8],
    size: usize,
) -> String {
    client.ask(&format!("MAIL FROM:<{sender}>"), "250");
    client.ask(&format!("RCPT TO:<{recipient}>"), "250");
    let mut chunks = message.chunks(size).peekable();
    while let Some(chunk) = chunks.next() {
        let last = if chunks.peek().is_none() { " LAST" } else { "" };
        client.send(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
        client.send(chunk);
        if last.is_empty() {
            client.expect("250");
        }
    }
    client.reply()
}

/// One that arrived, taken apart.
#[derive(Debug)]
pub struct Arrived {
    pub sender: String,
    pub recipient: String,
    /// The fields that Portcullis put before the sender's, unfolded.
    pub added: Vec<String>,
}

impl Arrived {
    /// The one message at `postfix` that ends with `sent`, once it is there.
    #[track_caller]
    pub fn at(postfix: &Postfix, sent: &[u8]) -> Self {
        let found = wait_for(Duration::from_secs(60), || {
            let mut all = postfix.messages(0);
            all.retain(|message| message.ends_with(sent));
            Some(all).filter(|all| !all.is_empty())
        });
        let Some(found) = found else {
            panic!("did not arrive as it was sent\n{}", postfix.log())
        };
        assert_eq!(found.len(), 1, "arrived more than once");
        Self::of(&found[0], sent)
    }

    /// `arrived` must be fields that were added, Postfix's own before them, and then
    /// `sent`, octet for octet.
    #[track_caller]
    pub fn of(arrived: &[u8], sent: &[u8]) -> Self {
        let start = arrived.len().saturating_sub(sent.len());
        let (head, rest) = arrived.split_at(start);
        if let Some(difference) = first_difference(sent, rest) {
            let head = String::from_utf8_lossy(head);
            panic!("{difference}\nbehind {head}");
        }
        let fields = fields(&String::from_utf8_lossy(head));
        let of_postfix = [
            "Return-Path: ",
            "X-Original-To: ",
            "Delivered-To: ",
            "Received: ",
        ];
        let found = |name: &str| {
            let mut values = fields.iter().filter_map(|field| field.strip_prefix(name));
            values.next().unwrap_or_default().to_owned()
        };
        Self {
            sender: found("Return-Path: "),
            recipient: found("X-Original-To: "),
            added: fields
                .iter()
                .filter(|field| !of_postfix.iter().any(|name| field.starts_with(name)))
                .cloned()
                .collect(),
        }
    }

    /// The names of the fields that were added.
    pub fn names(&self) -> Vec<&str> {
        let name = |field: &'_ String| field.find(':').unwrap_or(field.len());
        self.added
            .iter()
            .map(|field| field.split_at(name(field)).0)
            .collect()
    }
}

/// The fields of a header section, unfolded.
pub fn fields(header: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in header.lines().take_while(|line| !line.is_empty()) {
        match fields.last_mut() {
            Some(field) if line.starts_with(['\t', ' ']) => {
                field.push(' ');
                field.push_str(line.trim_start());
            }
            _ => fields.push(line.to_owned()),
        }
    }
    fields
}

/// How often a Postfix heard each of these commands, once it heard at least `least`
/// of the first in sessions that are over.
#[track_caller]
pub fn heard<const N: usize>(postfix: &Postfix, commands: [&str; N], least: usize) -> [usize; N] {
    let all = |log: &str| commands.map(|command| count(log, command));
    let heard = wait_for(Duration::from_secs(30), || {
        // Each look is a visit of its own.
        std::thread::sleep(Duration::from_millis(200));
        Some(all(&postfix.log())).filter(|counts| counts[0] >= least)
    });
    heard.unwrap_or_else(|| panic!("too few of {commands:?} in\n{}", postfix.log()))
}

/// Adds up what Postfix notes at the end of each session: `data=1`, or `data=0/1`
/// of one that it refused.
fn count(log: &str, command: &str) -> usize {
    let lines = log
        .lines()
        .filter(|line| line.contains(" disconnect from "));
    let words = lines.flat_map(|line| line.split(' '));
    let counts = words.filter_map(|word| word.strip_prefix(command)?.strip_prefix('='));
    let count = |count: &str| -> usize { count.rsplit('/').next().unwrap().parse().unwrap() };
    counts.map(count).sum()
}

/// Bodies that `portcullis` holds in files of `folder`.
fn held(portcullis: &Portcullis, folder: &Path) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", portcullis.id())).unwrap();
    let targets = descriptors.filter_map(|it| fs::read_link(it.unwrap().path()).ok());
    targets.filter(|it| it.starts_with(folder)).count()
}

/// Waits for that number, as bodies come and go in their own time.
#[track_caller]
pub fn wait_until_held(portcullis: &Portcullis, folder: &Path, expected: usize) {
    let same = wait_for(Duration::from_secs(20), || {
        (held(portcullis, folder) == expected).then_some(())
    });
    assert!(
        same.is_some(),
        "{} bodies are held",
        held(portcullis, folder)
    );
}
