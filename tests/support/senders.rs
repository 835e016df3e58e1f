//! Sending servers: each tries a message again, in a new session, until somebody says
//! 250 to it. Every attempt has a number of its own, which stands in what it sends, so
//! that what arrives can be laid beside what was answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::{Guest, Portcullis, connect_from, dot_stuffed, trusting_config, wait_for};

/// How a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Plain,
    StartTls,
    ImplicitTls,
    Pipelined,
    Chunks,
}

impl Way {
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::StartTls,
        Self::ImplicitTls,
        Self::Pipelined,
        Self::Chunks,
    ];
}

/// What an attempt to send a message came to.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub way: Way,
    /// The reply to the whole message was 250.
    pub acknowledged: bool,
    /// Else the answer, or what the socket said.
    pub failure: String,
}

impl Attempt {
    /// It was refused for good: this message would never be tried again.
    pub fn bounced(&self) -> bool {
        self.failure.starts_with('5') || self.failure.contains("heard `5")
    }
}

/// Where Portcullis is reached; it may be another process every time.
#[derive(Clone, Copy)]
pub struct Doors {
    pub mx: SocketAddr,
    pub tls: SocketAddr,
}

impl From<&Portcullis> for Doors {
    fn from(portcullis: &Portcullis) -> Self {
        Self {
            mx: portcullis.mx,
            tls: portcullis.tls,
        }
    }
}

/// Servers of every way of sending, at work until [`Self::finish`].
pub struct Senders {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    doors: Doors,
    config: Arc<ClientConfig>,
    pause: Duration,
    /// The place of an attempt is its number.
    attempts: Mutex<Vec<Attempt>>,
    acknowledged: AtomicUsize,
    /// The message that a server is at shall be its last.
    done: AtomicBool,
    /// Nobody will look at what becomes of it.
    abandoned: AtomicBool,
}

/// Servers that send in the same way.
const OF_EACH: usize = 2;

/// Messages of one session.
const OF_SESSION: usize = 5;

/// One in so many is `LARGE`.
const LARGE_IN: usize = 24;
const LARGE: usize = 1 << 20;

/// Waits between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that anything may take until mail flows again.
const PATIENCE: Duration = Duration::from_secs(120);

impl Senders {
    pub fn start(portcullis: &Portcullis) -> Self {
        Self::start_at_pace(portcullis, Duration::ZERO)
    }

    /// With a pause behind every message.
    pub fn start_at_pace(portcullis: &Portcullis, pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            doors: portcullis.into(),
            config: Arc::new(trusting_config()),
            pause,
            attempts: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            done: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let mut servers = JoinSet::new();
                for way in Way::ALL.iter().cycle().take(Way::ALL.len() * OF_EACH) {
                    servers.spawn(Arc::clone(&own).send_messages(*way));
                }
                servers.join_all().await;
            });
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Waits until so many more messages have been acknowledged.
    #[track_caller]
    pub fn send_more(&self, count: usize) {
        let sent = || self.shared.acknowledged.load(Ordering::Relaxed);
        let goal = sent() + count;
        let reached = wait_for(PATIENCE, || (sent() >= goal).then_some(()));
        assert!(
            reached.is_some(),
            "{} messages short of {goal}; the last failures: {:#?}",
            goal - sent(),
            self.failures(10)
        );
    }

    /// The last answers that were no 250.
    pub fn failures(&self, count: usize) -> Vec<Attempt> {
        let attempts = self.shared.attempts.lock().unwrap();
        let failed = |attempt: &&Attempt| !attempt.failure.is_empty();
        attempts
            .iter()
            .rev()
            .filter(failed)
            .take(count)
            .cloned()
            .collect()
    }

    /// Lets every server send the message it is at; all attempts, by their numbers.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Attempt> {
        self.shared.done.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        let ended = wait_for(PATIENCE, || thread.is_finished().then_some(()));
        assert!(ended.is_some(), "hang: {:#?}", self.failures(10));
        thread.join().unwrap();
        let attempts = self.shared.attempts.lock().unwrap();
        attempts.clone()
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    async fn send_messages(self: Arc<Self>, way: Way) {
        let (mut session, mut sent) = (None, 0);
        while !self.done.load(Ordering::Relaxed) {
            let mut pause = FIRST_PAUSE;
            while self.attempt(way, &mut session).await.is_err() {
                session = None;
                if self.abandoned.load(Ordering::Relaxed) {
                    return;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            sleep(self.pause).await;
            sent += 1;
            if sent % OF_SESSION == 0
                && let Some(mut session) = session.take()
            {
                let _ = session.ask("QUIT").await;
            }
        }
    }

    /// One attempt, in this session if there is one. An error is written down, too.
    async fn attempt(&self, way: Way, session: &mut Option<Session>) -> io::Result<()> {
        let number = {
            let mut attempts = self.attempts.lock().unwrap();
            attempts.push(Attempt {
                way,
                acknowledged: false,
                failure: String::new(),
            });
            attempts.len() - 1
        };
        let outcome = async {
            let open = match session.take() {
                Some(open) => open,
                None => self.connect(way).await?,
            };
            send(session.insert(open), way, &sent_by_attempt(number)).await
        };
        let outcome = outcome.await;
        let mut attempts = self.attempts.lock().unwrap();
        match &outcome {
            Ok(()) => {
                attempts[number].acknowledged = true;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => attempts[number].failure = failure.to_string(),
        }
        outcome
    }

    async fn connect(&self, way: Way) -> io::Result<Session> {
        let ehlo: &[_] = &[("EHLO sender.test", "250")];
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let name = ServerName::try_from("mx.portcullis.test").unwrap();
        let door = match way {
            Way::ImplicitTls => self.doors.tls,
            _ => self.doors.mx,
        };
        let stream = connect_from(Ipv4Addr::LOCALHOST, door).await?;
        let mut session: Session = match way {
            Way::ImplicitTls => Guest::new(Box::new(connector.connect(name, stream).await?)),
            Way::StartTls => {
                let mut clear = Guest::new(stream);
                expect(clear.reply().await?, "220")?;
                clear.dialogue(ehlo).await?;
                clear.dialogue(&[("STARTTLS", "220")]).await?;
                let stream = connector.connect(name, clear.into_stream()).await?;
                let mut session: Session = Guest::new(Box::new(stream));
                session.dialogue(ehlo).await?;
                return Ok(session);
            }
            _ => Guest::new(Box::new(stream)),
        };
        expect(session.reply().await?, "220")?;
        session.send(b"EHLO sender.test\r\n").await?;
        let keywords = session.whole_reply().await?;
        if way == Way::Chunks && !keywords.contains("CHUNKING") {
            return Err(io::Error::other("CHUNKING is not offered"));
        }
        Ok(session)
    }
}

trait Octets: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Octets for T {}

type Session = Guest<Box<dyn Octets>>;

const MAIL: &str = "MAIL FROM:<ann@sender.test>";
const RCPT: &str = "RCPT TO:<bob@example.org>";

async fn send(session: &mut Session, way: Way, message: &[u8]) -> io::Result<()> {
    match way {
        Way::Pipelined => {
            let group = format!("{MAIL}\r\n{RCPT}\r\nDATA\r\n");
            session.send(group.as_bytes()).await?;
            for code in ["250", "250", "354"] {
                expect(session.reply().await?, code)?;
            }
            session.send(&dot_stuffed(message)).await?;
        }
        Way::Chunks => {
            session.dialogue(&[(MAIL, "250"), (RCPT, "250")]).await?;
            let (first, last) = message.split_at(message.len() / 2);
            let bdat = format!("BDAT {}\r\n", first.len());
            session.send(&[bdat.as_bytes(), first].concat()).await?;
            expect(session.reply().await?, "250")?;
            let bdat = format!("BDAT {} LAST\r\n", last.len());
            session.send(&[bdat.as_bytes(), last].concat()).await?;
        }
        Way::Plain | Way::StartTls | Way::ImplicitTls => {
            let envelope = [(MAIL, "250"), (RCPT, "250"), ("DATA", "354")];
            session.dialogue(&envelope).await?;
            session.send(&dot_stuffed(message)).await?;
        }
    }
    expect(session.reply().await?, "250")
}

fn expect(reply: String, code: &str) -> io::Result<()> {
    if reply.starts_with(code) {
        return Ok(());
    }
    Err(io::Error::other(reply))
}

/// What the attempt of this number sends.
pub fn sent_by_attempt(number: usize) -> Vec<u8> {
    let octets = match number % LARGE_IN {
        0 => LARGE,
        few => few * 300,
    };
    let mut text = format!(
        "From: Ann <ann@sender.test>\r\nTo: Bob <bob@example.org>\r\nSubject: attempt {number}\r\n\
         Date: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <{number}@sender.test>\r\n\r\n"
    );
    for line in 0.. {
        if text.len() >= octets {
            break;
        }
        let dots = ".".repeat(line % 3);
        text.push_str(&format!(
            "{dots}line {line} of attempt {number} {:60}|\r\n",
            ""
        ));
    }
    text.push_str("the end\r\n");
    text.into_bytes()
}
