//! Servers that read SMTP more or less strictly, and remember what they believe that
//! they were told. No real server reads as the laxest of them does; each laxity by
//! itself is one that real servers had.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const KEYWORDS: &str = "250-reader.test\r\n250-8BITMIME\r\n250-SIZE 50000000\r\n\
                        250-PIPELINING\r\n250 CHUNKING";

/// What a reader takes for the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laxity {
    /// CRLF and nothing else (RFC 5321 2.3.8).
    Strict,
    /// LF, a CR before it or not.
    BareLf,
    /// CR, LF and CRLF; and a NUL is as good as not there.
    Anything,
}

/// One message as a reader, or whoever meant it, sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The MAIL command, as a line.
    pub mail: String,
    /// The RCPT commands.
    pub rcpt: Vec<String>,
    /// Without transparency.
    pub content: Vec<u8>,
}

/// What a reader heard in all connections that began with the same EHLO.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Every line that it took for a command, but the EHLO.
    pub commands: Vec<String>,
    pub letters: Vec<Letter>,
}

/// A server that says yes to whatever it takes for a command that it knows.
pub struct Reader {
    pub address: SocketAddr,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    accounts: Mutex<HashMap<String, Account>>,
    open: AtomicUsize,
}

impl Reader {
    /// Inside a tokio runtime, as long as that lives.
    pub async fn start(laxity: Laxity) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::new(Book::default());
        let shared = Arc::clone(&book);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let book = Arc::clone(&shared);
                book.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let mut visit = Visit {
                        wire: BufReader::new(stream),
                        lines: Lines::new(laxity),
                        name: String::new(),
                        letter: None,
                        book: &book,
                    };
                    // Over by QUIT or by a cut: what counts is what it heard.
                    visit.converse().await;
                    drop(visit);
                    book.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, book }
    }

    /// What was heard of each name, once nobody speaks any more.
    pub async fn accounts(&self) -> HashMap<String, Account> {
        let mut quiet = 0;
        for _ in 0..6000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            quiet = match self.book.open.load(Ordering::SeqCst) {
                0 => quiet + 1,
                _ => 0,
            };
            if quiet > 10 {
                return self.book.accounts.lock().unwrap().clone();
            }
        }
        panic!("connections to a reader stay open");
    }
}

struct Visit<'a> {
    wire: BufReader<TcpStream>,
    lines: Lines,
    name: String,
    /// The transaction, if there is one.
    letter: Option<Letter>,
    book: &'a Book,
}

impl Visit<'_> {
    /// `None` when it is over.
    async fn converse(&mut self) -> Option<()> {
        self.say("220 reader.test").await?;
        loop {
            let line = self.line().await?;
            let text = line.escape_ascii().to_string();
            let verb: String = text.chars().take_while(|octet| *octet != ' ').collect();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    self.name = text.get(5..).unwrap_or_default().to_owned();
                    self.letter = None;
                    self.note(|_| {});
                    self.say(KEYWORDS).await?;
                    continue;
                }
                "MAIL" => {
                    self.letter = Some(Letter {
                        mail: text.clone(),
                        rcpt: Vec::new(),
                        content: Vec::new(),
                    });
                }
                "RCPT" => self.letter().rcpt.push(text.clone()),
                "DATA" => {
                    self.note(|account| account.commands.push(text));
                    self.say("354 go on").await?;
                    self.data().await?;
                    self.say("250 2.0.0 taken").await?;
                    continue;
                }
                "BDAT" => {
                    self.note(|account| account.commands.push(text.clone()));
                    self.chunk(&text).await?;
                    self.say("250 2.0.0 chunk").await?;
                    continue;
                }
                "RSET" => self.letter = None,
                "QUIT" => {
                    self.note(|account| account.commands.push(text));
                    return self.say("221 bye").await;
                }
                _ => {
                    self.note(|account| account.commands.push(text));
                    self.say("500 5.5.2 what").await?;
                    continue;
                }
            }
            self.note(|account| account.commands.push(text));
            self.say("250 2.0.0 fine").await?;
        }
    }

    /// Up to a line that is a lone dot to it (RFC 5321 4.5.2).
    async fn data(&mut self) -> Option<()> {
        loop {
            let line = self.line().await?;
            if line == b"." {
                break;
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            self.letter().content.extend_from_slice(line);
            self.letter().content.extend_from_slice(b"\r\n");
        }
        self.take();
        Some(())
    }

    /// RFC 3030 2. Octets are octets to all readers.
    async fn chunk(&mut self, command: &str) -> Option<()> {
        let mut words = command.split(' ').skip(1);
        let size: usize = words.next()?.parse().ok()?;
        if std::mem::take(&mut self.lines.after_cr) {
            // The command ended at its CR; its LF is still to come.
            self.wire.read_u8().await.ok()?;
        }
        let mut octets = vec![0; size];
        self.wire.read_exact(&mut octets).await.ok()?;
        self.letter().content.extend_from_slice(&octets);
        if words.next().is_some() {
            self.take();
        }
        Some(())
    }

    fn letter(&mut self) -> &mut Letter {
        self.letter.get_or_insert(Letter {
            mail: String::new(),
            rcpt: Vec::new(),
            content: Vec::new(),
        })
    }

    fn take(&mut self) {
        let letter = self.letter().clone();
        self.letter = None;
        self.note(|account| account.letters.push(letter));
    }

    fn note(&self, note: impl FnOnce(&mut Account)) {
        let mut accounts = self.book.accounts.lock().unwrap();
        note(accounts.entry(self.name.clone()).or_default());
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            let octet = self.wire.read_u8().await.ok()?;
            if let Some(line) = self.lines.push(octet) {
                return Some(line);
            }
        }
    }

    async fn say(&mut self, reply: &str) -> Option<()> {
        let reply = format!("{reply}\r\n");
        self.wire.get_mut().write_all(reply.as_bytes()).await.ok()
    }
}

/// Cuts lines off a stream, octet by octet.
struct Lines {
    laxity: Laxity,
    line: Vec<u8>,
    /// The CR before this octet was a line end already.
    after_cr: bool,
}

impl Lines {
    fn new(laxity: Laxity) -> Self {
        Self {
            laxity,
            line: Vec::new(),
            after_cr: false,
        }
    }

    /// The line that this octet ends, if it ends one.
    fn push(&mut self, octet: u8) -> Option<Vec<u8>> {
        if self.laxity == Laxity::Anything {
            if octet == 0 {
                return None;
            }
            let after_cr = std::mem::replace(&mut self.after_cr, octet == b'\r');
            return match octet {
                b'\n' if after_cr => None,
                b'\r' | b'\n' => Some(std::mem::take(&mut self.line)),
                _ => {
                    self.line.push(octet);
                    None
                }
            };
        }
        self.line.push(octet);
        let end: &[u8] = match self.laxity {
            Laxity::BareLf if !self.line.ends_with(b"\r\n") => b"\n",
            _ => b"\r\n",
        };
        let length = self.line.strip_suffix(end)?.len();
        self.line.truncate(length);
        Some(std::mem::take(&mut self.line))
    }
}
