//! SMTP smuggling, by comparison: whatever a client sends around the end of a message,
//! servers of every laxity behind the real program see exactly the messages and
//! commands that the client meant by the letter of RFC 5321, or it was refused.
//!
//! `SMUGGLING_STREAMS` sets how many random streams there are, `SMUGGLING_SEED` which.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use support::meant::{Bare, Meant, Transcript, parted};
use support::readers::{Account, Laxity, Letter, Reader};
use support::smuggler::{Client, try_all};
use support::streams::{self, Dice, Stream};
use support::{Manner, Options, Portcullis, Postfix, Sham, between, fields, heard};
use tokio::task::JoinSet;

/// Random streams, unless told otherwise.
const RANDOM: usize = 600;

/// How the program is set.
#[derive(Clone, Copy, Debug)]
struct Lane {
    bare: Bare,
    /// With one, bodies take the way through the spool.
    scanner: Option<SocketAddr>,
}

impl Lane {
    fn all(scanner: SocketAddr) -> Vec<Self> {
        let scanners = [None, Some(scanner)];
        let bares = [Bare::Refused, Bare::Repaired];
        let lanes = bares.map(|bare| scanners.map(|scanner| Self { bare, scanner }));
        lanes.concat()
    }

    fn portcullis(self, backend: SocketAddr) -> Portcullis {
        let scanner = self.scanner.map(|scanner| scanner.to_string());
        let mut settings = vec![
            ("CLIENT_INFO", "none"),
            ("BACKEND_TLS", "off"),
            ("ERROR_MAX", "1000000"),
            ("JUNK_MAX", "1000000"),
            ("LISTEN_TLS", "off"),
            ("LISTEN_SUBMISSION", "off"),
            ("LOG_LEVEL", "warn"),
        ];
        settings.push(match self.bare {
            Bare::Refused => ("BARE_NEWLINE", "reject"),
            Bare::Repaired => ("BARE_NEWLINE", "normalize"),
        });
        if let Some(scanner) = &scanner {
            settings.push(("CLAMAV", scanner));
        }
        let portcullis = Portcullis::guarding(backend, &settings);
        portcullis.wait_for_keywords();
        portcullis
    }
}

fn all_streams() -> Vec<Stream> {
    let number = |name, usual| {
        let given = std::env::var(name).ok();
        given.map_or(usual, |given| given.parse().unwrap())
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = number("SMUGGLING_SEED", now.subsec_nanos() as usize);
    let count = number("SMUGGLING_STREAMS", RANDOM);
    println!("SMUGGLING_SEED={seed} SMUGGLING_STREAMS={count}");
    let mut dice = Dice::new(seed as u64);
    let mut streams = [
        streams::ends(),
        streams::cuts(),
        streams::pipelined(),
        streams::chunks(),
    ]
    .concat();
    streams.extend((0..count).map(|_| streams::random(&mut dice)));
    streams
}

/// What a reader heard of a session, under whatever names.
fn account_of(meant: &Meant, accounts: &mut HashMap<String, Account>) -> Account {
    let mut whole = Account::default();
    for part in meant.names.iter().filter_map(|name| accounts.remove(name)) {
        whole.commands.extend(part.commands);
        whole.letters.extend(part.letters);
    }
    whole
}

/// What is wrong with what a reader heard in a session.
fn differences(meant: &Meant, lane: Lane, account: &Account) -> Vec<String> {
    let mut wrong = meant.faults.clone();
    let letters: Vec<_> = meant.letters.iter().map(|it| lane.arrives(it)).collect();
    if letters != account.letters {
        let both = letters.iter().zip(&account.letters);
        let same = both.take_while(|(meant, seen)| meant == seen).count();
        let (meant, seen) = (letters.get(same), account.letters.get(same));
        wrong.push(format!("meant {} but seen {}", show(meant), show(seen)));
    }
    let is_envelope = |line: &&String| line.starts_with("MAIL ") || line.starts_with("RCPT ");
    let envelopes: Vec<_> = account.commands.iter().filter(is_envelope).collect();
    if envelopes != meant.envelopes.iter().collect::<Vec<_>>() {
        wrong.push(format!(
            "taken {:?} but heard {envelopes:?}",
            meant.envelopes
        ));
    }
    let heard = |verb: &str| account.commands.iter().filter(|line| *line == verb).count();
    if heard("RSET") > meant.resets {
        wrong.push(format!("{} RSET, meant {}", heard("RSET"), meant.resets));
    }
    let known = |line: &&String| {
        is_envelope(line)
            || ["DATA", "RSET", "QUIT"].contains(&line.as_str())
            || line.starts_with("BDAT ")
            || line.starts_with("EHLO ")
    };
    let strange: Vec<_> = account
        .commands
        .iter()
        .filter(|line| !known(line))
        .collect();
    if !strange.is_empty() {
        wrong.push(format!("heard {strange:?}"));
    }
    wrong
}

impl Lane {
    /// A letter that took the way through the spool comes by DATA, whose last line has an
    /// end, and has an empty line before its body.
    fn arrives(self, letter: &Letter) -> Letter {
        let mut letter = letter.clone();
        if self.scanner.is_some() {
            letter.content = parted(&letter.content);
            end_last_line(&mut letter.content);
        }
        letter
    }
}

fn end_last_line(content: &mut Vec<u8>) {
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        content.extend_from_slice(b"\r\n");
    }
}

fn show(letter: Option<&Letter>) -> String {
    letter.map_or("nothing".to_owned(), |letter| {
        let content = letter.content.escape_ascii();
        format!("`{content}` of {} to {:?}", letter.mail, letter.rcpt)
    })
}

#[track_caller]
fn assert_none_wrong(wrong: Vec<String>) {
    let some = wrong.iter().take(10).cloned().collect::<Vec<_>>();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        some.join("\n\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_every_laxity_see_what_was_meant_and_nothing_else() {
    let clamd = Sham::start(Manner::Clean);
    let streams = Arc::new(all_streams());
    let mut lanes = JoinSet::new();
    for laxity in [Laxity::Strict, Laxity::BareLf, Laxity::Anything] {
        for lane in Lane::all(clamd.address) {
            let streams = Arc::clone(&streams);
            lanes.spawn(async move {
                let reader = Reader::start(laxity).await;
                let address = reader.address;
                let portcullis = tokio::task::spawn_blocking(move || lane.portcullis(address));
                let portcullis = portcullis.await.unwrap();
                let transcripts = try_all(portcullis.mx, streams).await;
                (laxity, lane, transcripts, reader.accounts().await)
            });
        }
    }
    let mut wrong = Vec::new();
    for (laxity, lane, transcripts, mut accounts) in lanes.join_all().await {
        let mut taken = 0;
        for transcript in &transcripts {
            let meant = Meant::of(transcript, lane.bare);
            let account = account_of(&meant, &mut accounts);
            taken += account.letters.len();
            for what in differences(&meant, lane, &account) {
                let (sent, heard) = (transcript.sent.escape_ascii(), &transcript.replies);
                wrong.push(format!("{laxity:?} {lane:?}: {what}\nin {sent}\n{heard:?}"));
            }
        }
        // Somebody whom no client called itself: only the program may.
        for (name, account) in accounts {
            if account.commands.iter().any(|line| line != "QUIT") {
                wrong.push(format!("{laxity:?} {lane:?}: {name} said {account:?}"));
            }
        }
        println!(
            "{laxity:?} {lane:?}: {} sessions, {taken} messages",
            transcripts.len()
        );
        assert!(taken > 300, "hardly anything was taken");
    }
    assert_none_wrong(wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_as_lax_as_they_claim() {
    for (laxity, believed) in [
        (Laxity::Strict, 1),
        (Laxity::BareLf, 2),
        (Laxity::Anything, 4),
    ] {
        let reader = Reader::start(laxity).await;
        let mut client = Client::greeted(reader.address, "c.test".to_owned()).await;
        let evil = "RCPT TO:<evil@example.org>\r\nDATA\r\nevil";
        let body = format!("x\n.\n{evil}\r.\r{evil}\r\n\0.\0\r\n{evil}\r\n.\r\nQUIT\r\n");
        client
            .try_out(&Stream::Body(vec![body.into_bytes()]), 0)
            .await;
        let accounts: HashMap<_, _> = reader.accounts().await;
        let letters = &accounts["c.test"].letters;
        assert_eq!(letters.len(), believed, "{laxity:?} {letters:?}");
    }
}

/// Sender, recipient and content of what a Postfix keeps, or should.
type Kept = (String, String, Vec<u8>);

/// All that Postfix must keep of a letter: one for each recipient.
fn kept(letter: &Letter) -> Vec<Kept> {
    let address = |line: &str| between(line, "<", ">").unwrap().to_owned();
    let mut content = letter.content.clone();
    end_last_line(&mut content);
    let recipients: BTreeSet<_> = letter.rcpt.iter().map(|line| address(line)).collect();
    let one = |recipient| (address(&letter.mail), recipient, content.clone());
    recipients.into_iter().map(one).collect()
}

/// Whether `arrived` is `kept` behind fields of Postfix's own.
fn is_kept(arrived: &[u8], (sender, recipient, content): &Kept) -> bool {
    let Some(front) = arrived.strip_suffix(content.as_slice()) else {
        return false;
    };
    let fields = fields(&String::from_utf8_lossy(front));
    let own = [
        "Return-Path: ",
        "X-Original-To: ",
        "Delivered-To: ",
        "Received: ",
    ];
    fields.contains(&format!("Return-Path: <{sender}>"))
        && fields.contains(&format!("X-Original-To: {recipient}"))
        && fields.len() == own.len()
        && fields
            .iter()
            .zip(own)
            .all(|(field, own)| field.starts_with(own))
}

/// A Postfix as Debian sets it up, but for fields that it would add to mail of its
/// own machine.
fn postfix() -> Postfix {
    Postfix::start(Options {
        extra: "local_header_rewrite_clients =",
        ..Options::default()
    })
}

/// What is wrong with what a Postfix made of `transcripts`.
fn differences_at(postfix: &Postfix, transcripts: &[Transcript], lane: Lane) -> Vec<String> {
    let meant: Vec<_> = transcripts
        .iter()
        .map(|it| Meant::of(it, lane.bare))
        .collect();
    let mut wrong: Vec<_> = meant.iter().flat_map(|it| it.faults.clone()).collect();
    let mut letters: Vec<_> = meant
        .iter()
        .flat_map(|it| &it.letters)
        .flat_map(kept)
        .collect();
    // What is long fits one place only.
    letters.sort_by_key(|(_, _, content)| std::cmp::Reverse(content.len()));
    let commands = |verb| {
        let lines = meant.iter().flat_map(|it| &it.envelopes);
        lines.filter(|line| line.starts_with(verb)).count()
    };
    let taken = [commands("MAIL"), commands("RCPT"), 0];
    let heard = heard(postfix, ["mail", "rcpt", "unknown"], taken[0]);
    if heard != taken {
        wrong.push(format!(
            "MAIL, RCPT, unknown: {taken:?} taken, {heard:?} heard"
        ));
    }
    let mut arrived = postfix.messages(letters.len());
    for letter in &letters {
        match arrived.iter().position(|arrived| is_kept(arrived, letter)) {
            Some(at) => drop(arrived.swap_remove(at)),
            None => wrong.push(format!("did not arrive: {letter:?}")),
        }
    }
    let strays = arrived
        .iter()
        .map(|it| format!("nobody sent `{}`", it.escape_ascii()));
    wrong.extend(strays);
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_sees_what_was_meant_and_nothing_else() {
    let clamd = Sham::start(Manner::Clean);
    let streams = all_streams();
    let mut lanes = JoinSet::new();
    for (number, lane) in Lane::all(clamd.address).into_iter().enumerate() {
        // Disks are slow: each gets its share.
        let share = streams.iter().skip(number).step_by(4).cloned();
        let share = Arc::new(share.collect::<Vec<_>>());
        lanes.spawn(async move {
            let started = tokio::task::spawn_blocking(move || {
                let postfix = postfix();
                let portcullis = lane.portcullis(postfix.address);
                (postfix, portcullis)
            });
            let (postfix, portcullis) = started.await.unwrap();
            let transcripts = try_all(portcullis.mx, share).await;
            let compared = tokio::task::spawn_blocking(move || {
                let wrong = differences_at(&postfix, &transcripts, lane);
                println!("Postfix {lane:?}: {} sessions", transcripts.len());
                wrong
                    .into_iter()
                    .map(|what| format!("{lane:?}: {what}"))
                    .collect::<Vec<_>>()
            });
            compared.await.unwrap()
        });
    }
    assert_none_wrong(lanes.join_all().await.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_is_lax() {
    let postfix = postfix();
    let mut client = Client::greeted(postfix.address, "c.test".to_owned()).await;
    let body = "x\n.\nMAIL FROM:<evil@sender.test>\nRCPT TO:<evil@example.org>\nDATA\nevil\r\n.\r\nQUIT\r\n";
    let stream = Stream::Body(vec![body.as_bytes().to_vec()]);
    client.try_out(&stream, 0).await;
    assert_eq!(postfix.messages(2).len(), 2);
}
