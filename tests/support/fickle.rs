//! A backend that is in another mood each time it is spoken to, and knows what it has
//! promised all the same. What it says goes by the name in EHLO, so that many clients
//! after each other each find it in the moods that were meant for them.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::actor::PASSWORD;
use super::wait_for;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a reply is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Honest,
    /// Honest, after a pause.
    Late,
    Refuses(u16),
    /// 421, and it hangs up.
    Leaves,
    Closes,
    /// Honest, and then it closes.
    AnswersAndCloses,
    /// The honest reply, and the same once more.
    AnswersTwice,
    /// A yes that does not belong to the command.
    Errs,
    Babbles,
    /// Nothing, for ever.
    Sulks,
}

/// A message whose end it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub hello: String,
    /// It was told HELO, to which it offers nothing.
    pub plain: bool,
    /// Who had signed in.
    pub user: Option<String>,
    pub sender: String,
    /// Of MAIL.
    pub parameters: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
    /// Whether it said yes to it.
    pub acknowledged: bool,
}

/// All of one client.
#[derive(Clone, Debug, Default)]
pub struct Record {
    moods: VecDeque<Mood>,
    pub whole: Vec<Whole>,
    /// Commands that it said yes to.
    pub promised: Vec<String>,
    /// It answered a command twice when it had others of the group before it: the second
    /// answer is the next one's for whoever goes by the order (RFC 2920 3.1), and so on
    /// up to the next 354.
    pub out_of_step: bool,
    /// What it should not have heard.
    pub offences: Vec<String>,
}

#[derive(Default)]
struct Book {
    records: HashMap<String, Record>,
    /// Of the connections to come.
    greetings: VecDeque<Mood>,
    open: usize,
}

pub struct Fickle {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl Fickle {
    /// As long as the process lives. Whether it offers PIPELINING.
    pub fn start(pipelining: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::<Mutex<Book>>::default();
        let shared = Arc::clone(&book);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let book = Arc::clone(&shared);
                lock(&book).open += 1;
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut visit = Visit {
                        reader: BufReader::new(stream.try_clone().unwrap()),
                        stream,
                        book: &book,
                        client: String::new(),
                        hello: String::new(),
                        plain: false,
                        pipelining,
                        user: None,
                        came_along: false,
                        transaction: None,
                        leaving: false,
                    };
                    visit.converse();
                    drop(visit);
                    lock(&book).open -= 1;
                });
            }
        });
        Self { address, book }
    }

    /// For a client whose names in EHLO all begin with `client` and a hyphen.
    /// Connections are greeted before that is known: by whoever comes next.
    pub fn prepare(&self, client: &str, greetings: &[Mood], moods: &[Mood]) {
        let record = Record {
            moods: moods.iter().copied().collect(),
            ..Record::default()
        };
        let mut book = lock(&self.book);
        book.greetings = greetings.iter().copied().collect();
        book.records.insert(client.to_owned(), record);
    }

    /// What it knows of the client, once nobody speaks to it.
    pub fn record(&self, client: &str) -> Record {
        let mut quiet = 0;
        let found = wait_for(Duration::from_secs(60), || {
            let mut book = lock(&self.book);
            quiet = if book.open == 0 { quiet + 1 } else { 0 };
            (quiet > 1).then(|| book.records.remove(client).unwrap_or_default())
        });
        found.expect("connections to the backend stay open")
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap()
}

const OFFER: &str =
    "250-fickle.test\r\n250-8BITMIME\r\n250-DSN\r\n250-SIZE 100000\r\n250-AUTH PLAIN\r\n";

struct Transaction {
    sender: String,
    parameters: String,
    recipients: Vec<String>,
    content: Vec<u8>,
}

struct Visit<'a> {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
    book: &'a Mutex<Book>,
    client: String,
    hello: String,
    plain: bool,
    pipelining: bool,
    /// Who has signed in here.
    user: Option<String>,
    /// The line came together with the one before it.
    came_along: bool,
    transaction: Option<Transaction>,
    /// It closes when it is to listen next.
    leaving: bool,
}

impl Visit<'_> {
    /// `None` when it is over.
    fn converse(&mut self) -> Option<()> {
        let mood = lock(self.book).greetings.pop_front();
        let greeted = self.perform(mood.unwrap_or(Mood::Honest), "220 fickle.test")?;
        loop {
            self.came_along = !self.reader.buffer().is_empty();
            if self.came_along && !self.pipelining {
                self.offended("a group".to_owned());
            }
            let line = String::from_utf8_lossy(&self.line()?).into_owned();
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            // RFC 5321 3.1: it is only waiting for QUIT.
            if !greeted && verb != "QUIT" {
                self.offended(format!("after a greeting that was none: {line:?}"));
            }
            match verb {
                "EHLO" | "HELO" => self.hello(verb, rest)?,
                "AUTH" => self.auth(rest)?,
                "MAIL" => self.mail(&line)?,
                "RCPT" => self.rcpt(&line)?,
                "DATA" => self.data()?,
                "BDAT" => self.chunk(rest)?,
                "RSET" => {
                    if self.answer("250 2.0.0 reset")? {
                        self.transaction = None;
                    }
                }
                "QUIT" => {
                    self.answer("221 2.0.0 bye")?;
                    return None;
                }
                _ => {
                    self.offended(format!("heard {line:?}"));
                    self.say("500 5.5.2 what")?;
                }
            }
        }
    }

    fn hello(&mut self, verb: &str, name: &str) -> Option<()> {
        name.split_once('-')
            .map_or("", |(client, _)| client)
            .clone_into(&mut self.client);
        let yes = match (verb, self.pipelining) {
            ("EHLO", true) => format!("{OFFER}250-PIPELINING\r\n250 CHUNKING"),
            ("EHLO", false) => format!("{OFFER}250 CHUNKING"),
            _ => "250 fickle.test".to_owned(),
        };
        if self.answer(&yes)? {
            name.clone_into(&mut self.hello);
            self.plain = verb == "HELO";
            self.transaction = None;
        }
        Some(())
    }

    fn auth(&mut self, argument: &str) -> Option<()> {
        let secret = argument.strip_prefix("PLAIN ").unwrap_or_default();
        let secret = STANDARD.decode(secret).unwrap_or_default();
        let secret = String::from_utf8_lossy(&secret).into_owned();
        let mut parts = secret.split('\0').skip(1);
        let user = parts.next().unwrap_or_default().to_owned();
        if self.user.is_some() || self.transaction.is_some() {
            self.offended(format!("AUTH where it must not be, by {user}"));
        }
        let mood = self.mood();
        if mood == Mood::Errs {
            self.say("334 ")?;
            if self.line()? != b"*" {
                self.offended("an answer to a challenge".to_owned());
            }
            return self.refuse("501 5.7.0 broken off");
        }
        if parts.next() != Some(PASSWORD) {
            return self.perform(mood, "535 5.7.8 who").map(drop);
        }
        if self.perform(mood, "235 2.7.0 in")? {
            self.promised(format!("AUTH {user}"));
            self.user = Some(user);
        }
        Some(())
    }

    fn mail(&mut self, line: &str) -> Option<()> {
        if self.transaction.is_some() {
            self.offended(format!("inside a transaction: {line}"));
        }
        if self.answer("250 2.1.0 sender")? {
            let (_, parameters) = line.split_once('>').unwrap_or_default();
            self.transaction = Some(Transaction {
                sender: address(line),
                parameters: parameters.to_owned(),
                recipients: Vec::new(),
                content: Vec::new(),
            });
            self.promised(format!("MAIL {}", address(line)));
        }
        Some(())
    }

    fn rcpt(&mut self, line: &str) -> Option<()> {
        let recipient = address(line);
        if !recipient.ends_with("@example.org") && self.user.is_none() {
            self.offended(format!("a stranger's {line}"));
        }
        if self.transaction.is_none() {
            return self.unasked("RCPT without a sender");
        }
        if self.answer("250 2.1.5 recipient")? {
            self.promised(format!("RCPT {recipient}"));
            if let Some(transaction) = &mut self.transaction {
                transaction.recipients.push(recipient);
            }
        }
        Some(())
    }

    fn data(&mut self) -> Option<()> {
        if !self.has_recipients() {
            return self.unasked("DATA without a recipient");
        }
        if !self.answer("354 go on")? {
            return Some(());
        }
        let sender = self.transaction.as_ref().map(|it| it.sender.clone());
        self.promised(format!("DATA {}", sender.unwrap_or_default()));
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            if line == b"." {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            content.extend_from_slice(b"\r\n");
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.content = content;
        }
        self.end("250 2.0.0 taken", self.transaction.is_some())
    }

    fn chunk(&mut self, argument: &str) -> Option<()> {
        let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let mut octets = vec![0; size.parse().ok()?];
        self.reader.read_exact(&mut octets).ok()?;
        let is_told = self.has_recipients() || self.note(|record| record.out_of_step);
        if !is_told {
            self.offended("BDAT without a recipient".to_owned());
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.content.extend_from_slice(&octets);
        }
        self.end("250 2.0.0 chunk", last == "LAST")
    }

    /// The reply to a body, which may be whole.
    fn end(&mut self, yes: &str, is_whole: bool) -> Option<()> {
        if !is_whole {
            self.answer(yes)?;
            return Some(());
        }
        let transaction = self.transaction.take()?;
        let whole = Whole {
            hello: self.hello.clone(),
            plain: self.plain,
            user: self.user.clone(),
            sender: transaction.sender,
            parameters: transaction.parameters,
            recipients: transaction.recipients,
            content: transaction.content,
            acknowledged: false,
        };
        let at = self.note(|record| {
            record.whole.push(whole);
            record.whole.len() - 1
        });
        // Before it is said: whoever hears it may look at once.
        let mood = self.mood();
        if self.has_nobody() {
            return None;
        }
        if is_yes(mood) {
            self.note(|record| record.whole[at].acknowledged = true);
        }
        self.perform(mood, yes).map(drop)
    }

    /// Told in one group with what was refused, a command is no offence, but who takes
    /// it errs.
    fn unasked(&mut self, what: &str) -> Option<()> {
        if !self.came_along {
            self.offended(what.to_owned());
        }
        self.refuse("503 5.5.1 out of order")
    }

    fn refuse(&mut self, no: &str) -> Option<()> {
        match self.mood() {
            Mood::Errs => self.say("250 2.0.0 why not"),
            mood => self.perform(mood, no).map(drop),
        }
    }

    /// Whether the other side has given it up, as it may on a machine that lets this one
    /// wait: what is said now nobody hears.
    fn has_nobody(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        match peeked {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    fn has_recipients(&self) -> bool {
        let transaction = self.transaction.as_ref();
        transaction.is_some_and(|it| !it.recipients.is_empty())
    }

    fn mood(&mut self) -> Mood {
        self.note(|record| record.moods.pop_front())
            .unwrap_or(Mood::Honest)
    }

    /// Whether it said yes.
    fn answer(&mut self, yes: &str) -> Option<bool> {
        let mood = self.mood();
        self.perform(mood, yes)
    }

    fn perform(&mut self, mood: Mood, yes: &str) -> Option<bool> {
        match mood {
            Mood::Honest => self.say(yes)?,
            Mood::Late => {
                std::thread::sleep(Duration::from_millis(30));
                self.say(yes)?;
            }
            Mood::Refuses(code) => self.say(&format!("{code} {}.0.0 no", code / 100))?,
            Mood::Leaves => {
                self.say("421 4.3.2 leaving")?;
                return None;
            }
            Mood::Closes => return None,
            Mood::AnswersAndCloses => {
                self.say(yes)?;
                self.leaving = true;
            }
            Mood::AnswersTwice => {
                if !self.reader.buffer().is_empty() {
                    self.note(|record| record.out_of_step = true);
                }
                self.say(&format!("{yes}\r\n{yes}"))?;
            }
            Mood::Errs if yes.starts_with("354") => self.say("250 2.0.0 fine")?,
            Mood::Errs => self.say("354 go on")?,
            Mood::Babbles => self.say("?!")?,
            Mood::Sulks => {
                std::io::copy(&mut self.reader, &mut std::io::sink()).ok();
                return None;
            }
        }
        Some(is_yes(mood))
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        if self.leaving {
            return None;
        }
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok()?;
        Some(line.strip_suffix(b"\r\n")?.to_vec())
    }

    fn say(&mut self, reply: &str) -> Option<()> {
        self.stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .ok()
    }

    fn promised(&self, command: String) {
        self.note(|record| record.promised.push(command));
    }

    fn offended(&self, what: String) {
        self.note(|record| record.offences.push(what));
    }

    fn note<T>(&self, note: impl FnOnce(&mut Record) -> T) -> T {
        note(
            lock(self.book)
                .records
                .entry(self.client.clone())
                .or_default(),
        )
    }
}

fn is_yes(mood: Mood) -> bool {
    use Mood::{AnswersAndCloses, AnswersTwice, Honest, Late};
    matches!(mood, Honest | Late | AnswersAndCloses | AnswersTwice)
}

fn address(line: &str) -> String {
    super::between(line, "<", ">")
        .unwrap_or_default()
        .to_owned()
}
