//! Dialogs: what a client says, what it hears, and what the backend hears.
//!
//! Each file in `tests/dialogs` is one dialog, run through the real program
//! before a scripted backend. Its lines:
//!
//! ```text
//! # why: the rule or the attack
//! set NAME=VALUE        a setting of the program
//! offer WORD WORD       a keyword line of the backend's EHLO reply
//! on START REPLY        the backend's reply to a line that begins so; START may be
//!                       `greeting` or `.`; REPLY may be `close`; CRLF is added
//! C: line               the client says a line; \r \n \0 \t \xNN \\ are escapes
//! C> octets             the same without CRLF
//! S: start              the client hears a reply that begins so
//! S~ text               it hears a reply that holds this
//! end                   the connection to the client is closed, nothing more is heard
//! B: line               the backend hears this line, in this order, and nothing else;
//!                       `<cut>` is the end of a connection without QUIT
//! idle                  the backend is not even connected to for this client
//! ```
//!
//! The backend's account leaves out EHLO, QUIT, and visits without a transaction.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Portcullis, Smtp, wait_for};

#[derive(Default)]
struct Dialog {
    settings: Vec<(String, String)>,
    backend: Script,
    acts: Vec<Act>,
    heard: Vec<String>,
    /// A nuisance must not cost the backend a connection.
    idle: bool,
}

enum Act {
    Send(Vec<u8>),
    Begins(String),
    Holds(String),
    End,
}

#[derive(Clone, Default)]
struct Script {
    offers: Vec<String>,
    rules: Vec<(String, Vec<u8>)>,
}

impl Dialog {
    fn parse(text: &str) -> Self {
        let mut dialog = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "#" => {}
                "set" => {
                    let (name, value) = rest.split_once('=').expect("set NAME=VALUE");
                    dialog.settings.push((name.into(), value.into()));
                }
                "offer" => dialog.backend.offers.push(rest.into()),
                "on" => {
                    let (place, reply) = match rest.strip_prefix('"') {
                        Some(quoted) => quoted.split_once("\" ").unwrap(),
                        None => rest.split_once(' ').unwrap(),
                    };
                    dialog.backend.rules.push((place.into(), unescape(reply)));
                }
                "C:" => {
                    let mut octets = unescape(rest);
                    octets.extend(b"\r\n");
                    dialog.acts.push(Act::Send(octets));
                }
                "C>" => dialog.acts.push(Act::Send(unescape(rest))),
                "S:" => dialog.acts.push(Act::Begins(rest.into())),
                "S~" => dialog.acts.push(Act::Holds(rest.into())),
                "end" => dialog.acts.push(Act::End),
                "idle" => dialog.idle = true,
                "B:" => dialog.heard.push(rest.into()),
                other => panic!("no such line in a dialog: {other}"),
            }
        }
        if dialog.backend.offers.is_empty() {
            let usual = ["8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES", "DSN"];
            dialog.backend.offers = usual.map(str::to_owned).to_vec();
        }
        dialog
    }

    fn run(&self) {
        let backend = Backend::start(self.backend.clone());
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| {
                let value = value.replace("BACKEND", &backend.address.to_string());
                (name.as_str(), value)
            })
            .collect();
        let mut settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        settings.push(("LISTEN_TLS", "off"));
        settings.push(("LISTEN_SUBMISSION", "off"));
        settings.push(("CLIENT_INFO", "none"));
        let portcullis = Portcullis::guarding(backend.address, &settings);
        portcullis.log_with("probe");
        let visits = backend.visits.lock().unwrap().len();
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        for act in &self.acts {
            match act {
                Act::Send(octets) => drop(client.try_send(octets)),
                Act::Begins(start) => {
                    let reply = client.reply();
                    assert!(
                        reply.starts_with(start),
                        "expected {start:?}, heard {reply:?}"
                    );
                }
                Act::Holds(text) => {
                    let reply = client.reply();
                    assert!(reply.contains(text), "expected {text:?} in {reply:?}");
                }
                Act::End => assert_eq!(client.rest(), "", "after the end"),
            }
        }
        drop(client);
        let settled = wait_for(Duration::from_secs(3), || {
            (backend.account() == self.heard).then_some(())
        });
        if settled.is_none() {
            assert_eq!(backend.account(), self.heard, "what the backend heard");
        }
        // What came too late is a defect as well.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            backend.account(),
            self.heard,
            "what the backend heard at last"
        );
        if self.idle {
            let more = backend.visits.lock().unwrap().len() - visits;
            assert_eq!(more, 0, "connections to a backend that nobody needs");
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        octets.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("no such escape: {}", char::from(other)),
        });
    }
    octets
}

/// One connection to the backend, as it heard it.
#[derive(Default)]
struct Visit {
    lines: Vec<String>,
    transaction: bool,
    quit: bool,
    over: bool,
}

struct Backend {
    address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl Backend {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let visits = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&visits);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = {
                    let mut visits = all.lock().unwrap();
                    visits.push(Visit::default());
                    visits.len() - 1
                };
                let (all, script) = (Arc::clone(&all), script.clone());
                std::thread::spawn(move || {
                    converse(stream, &script, number, &all);
                    all.lock().unwrap()[number].over = true;
                });
            }
        });
        Self { address, visits }
    }

    fn account(&self) -> Vec<String> {
        let visits = self.visits.lock().unwrap();
        let mut account = Vec::new();
        for visit in visits.iter().filter(|visit| visit.transaction) {
            account.extend(visit.lines.iter().cloned());
            if visit.over && !visit.quit {
                account.push("<cut>".to_owned());
            }
        }
        account
    }
}

/// `None` when the conversation is over.
fn converse(
    stream: TcpStream,
    script: &Script,
    number: usize,
    all: &Mutex<Vec<Visit>>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = |place: &str, usual: &str| -> Option<()> {
        let rule = script
            .rules
            .iter()
            .find(|(start, _)| place.starts_with(start.as_str()));
        let reply = rule.map_or_else(|| usual.as_bytes().to_vec(), |(_, reply)| reply.clone());
        if reply == b"close" {
            return None;
        }
        writer.write_all(&[&reply, &b"\r\n"[..]].concat()).ok()
    };
    let note = |line: String| all.lock().unwrap()[number].lines.push(line);
    let hear = |reader: &mut BufReader<TcpStream>| -> Option<String> {
        let mut octets = Vec::new();
        reader.read_until(b'\n', &mut octets).ok()?;
        let line = octets.strip_suffix(b"\r\n")?;
        Some(line.escape_ascii().to_string())
    };
    answer("greeting", "220 scripted.test")?;
    let mut ehlo = String::from("250-scripted.test");
    for offer in &script.offers {
        ehlo = format!("{}\r\n250-{offer}", ehlo);
    }
    let last = ehlo.rfind("250-").unwrap();
    ehlo.replace_range(last..last + 4, "250 ");
    loop {
        let line = hear(&mut reader)?;
        let verb = line.split(' ').next().unwrap();
        if !matches!(verb, "EHLO" | "LHLO" | "HELO" | "QUIT") {
            all.lock().unwrap()[number].transaction = true;
            note(line.clone());
        }
        match verb {
            "EHLO" | "LHLO" => answer(&line, &ehlo)?,
            "DATA" => {
                answer(&line, "354 go on")?;
                if script.rules.iter().any(|(place, _)| place == "DATA") {
                    continue;
                }
                loop {
                    let line = hear(&mut reader)?;
                    note(line.clone());
                    if line == "." {
                        break;
                    }
                }
                answer(".", "250 2.0.0 taken")?;
            }
            "BDAT" => {
                let size = line.split(' ').nth(1).unwrap().parse().unwrap();
                let mut octets = vec![0; size];
                reader.read_exact(&mut octets).ok()?;
                note(octets.escape_ascii().to_string());
                answer(&line, "250 2.0.0 chunk")?;
            }
            "QUIT" => {
                all.lock().unwrap()[number].quit = true;
                answer(&line, "221 bye")?;
                return None;
            }
            _ => answer(&line, "250 2.0.0 fine")?,
        }
    }
}

#[test]
fn every_dialog_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 60, "dialogs are missing: {}", files.len());
    let failures = Mutex::new(Vec::new());
    let queue = Mutex::new(files.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(file) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let text = std::fs::read_to_string(file).unwrap();
                    let run = AssertUnwindSafe(|| Dialog::parse(&text).run());
                    if let Err(why) = catch_unwind(run) {
                        let why = why
                            .downcast_ref::<String>()
                            .cloned()
                            .or_else(|| why.downcast_ref::<&str>().map(|why| (*why).to_owned()));
                        let name = file.file_name().unwrap().to_string_lossy();
                        let why = why.unwrap_or_default();
                        failures.lock().unwrap().push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
