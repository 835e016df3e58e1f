//! Many clients in one process: what a flood, a crowd or a drip says and hears.
//!
//! Asynchronous, because a thousand threads would measure the machine's scheduler.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longest wait for one answer. Under load an accept queue that overflows costs the
/// client a second or three, then seven.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest life of a drip; all deadlines that are tried by one are much shorter.
const DRIP_MAX: Duration = Duration::from_secs(180);

/// Octets of a reply line mostly.
const BUFFER: usize = 512;

/// A connection from an address of one's choice out of 127.0.0.0/8.
pub async fn connect_from(source: Ipv4Addr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = within(socket.connect(server)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One client's side of an SMTP dialogue.
pub struct Guest<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guest<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::with_capacity(BUFFER, stream),
        }
    }

    /// The connection, for a handshake; nothing may have come yet that was not read.
    pub fn into_stream(self) -> S {
        assert_eq!(self.stream.buffer(), b"");
        self.stream.into_inner()
    }

    /// The last line of the next reply.
    pub async fn reply(&mut self) -> io::Result<String> {
        let reply = self.whole_reply().await?;
        Ok(reply.lines().last().unwrap_or_default().to_owned())
    }

    /// All lines of the next reply.
    pub async fn whole_reply(&mut self) -> io::Result<String> {
        let (mut reply, mut begin) = (String::new(), 0);
        loop {
            if within(self.stream.read_line(&mut reply)).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if reply.as_bytes().get(begin + 3) != Some(&b'-') {
                return Ok(reply);
            }
            begin = reply.len();
        }
    }

    /// One command and the last line of its reply.
    pub async fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Each command with its reply, which must begin with the code.
    pub async fn dialogue(&mut self, lines: &[(&str, &str)]) -> io::Result<()> {
        for (line, code) in lines {
            let reply = self.ask(line).await?;
            if !reply.starts_with(code) {
                return Err(io::Error::other(format!("`{line}`: heard `{reply}`")));
            }
        }
        Ok(())
    }

    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets).await?;
        self.stream.get_mut().flush().await
    }

    /// Sends one octet a second, these and then `x` for ever, until the other side
    /// closes; returns what it said meanwhile.
    ///
    /// # Panics
    /// When the other side does not close.
    pub async fn drip(&mut self, octets: &[u8]) -> String {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let dripping = async {
            for octet in octets.iter().chain(std::iter::repeat(&b'x')) {
                // The other side may have closed; the reader hears of it.
                let _ = writer.write_all(&[*octet]).await;
                let _ = writer.flush().await;
                sleep(Duration::from_secs(1)).await;
            }
        };
        let mut heard = Vec::new();
        let closed = timeout(DRIP_MAX, async {
            tokio::select! {
                // An error is an end, too: closed over unread octets, it is a reset.
                _ = reader.read_to_end(&mut heard) => {}
                () = dripping => {}
            }
        });
        let closed = closed.await;
        assert!(closed.is_ok(), "was not closed within {DRIP_MAX:?}");
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// What became of the connections of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toll {
    /// Greeted with 220.
    pub let_in: usize,
    /// Told 421.
    pub refused: usize,
    /// Reset before any word.
    pub reset: usize,
    /// Of those let in, how many had a recipient taken.
    pub served: usize,
}

/// What became of one.
enum Outcome {
    LetIn,
    Served,
    Refused,
    Reset,
}

/// `attempts` connections, `at_once` of them at a time, from `sources` in turn. Who is
/// let in goes on until the guarded server must have heard of it, then breaks off.
///
/// # Panics
/// When a connection ends in none of the ways that `Toll` knows.
pub async fn flood(
    server: SocketAddr,
    sources: &[Ipv4Addr],
    attempts: usize,
    at_once: usize,
) -> Toll {
    let places = Arc::new(Semaphore::new(at_once));
    let mut attackers = JoinSet::new();
    let mut toll = Toll::default();
    for source in sources.iter().cycle().take(attempts) {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let source = *source;
        attackers.spawn(async move {
            let outcome = attack(source, server).await;
            drop(place);
            outcome.unwrap_or_else(|error| panic!("{source}: {error}"))
        });
        while let Some(outcome) = attackers.try_join_next() {
            toll.count(outcome.unwrap());
        }
    }
    while let Some(outcome) = attackers.join_next().await {
        toll.count(outcome.unwrap());
    }
    toll
}

impl Toll {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::LetIn => self.let_in += 1,
            Outcome::Served => {
                self.let_in += 1;
                self.served += 1;
            }
            Outcome::Refused => self.refused += 1,
            Outcome::Reset => self.reset += 1,
        }
    }
}

impl std::ops::AddAssign for Toll {
    fn add_assign(&mut self, more: Self) {
        self.let_in += more.let_in;
        self.refused += more.refused;
        self.reset += more.reset;
        self.served += more.served;
    }
}

async fn attack(source: Ipv4Addr, server: SocketAddr) -> io::Result<Outcome> {
    let stream = match connect_from(source, server).await {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Outcome::Reset),
        other => other?,
    };
    let mut guest = Guest::new(stream);
    match guest.reply().await {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Outcome::Reset),
        Err(error) => Err(error),
        Ok(reply) if reply.starts_with("421") => Ok(Outcome::Refused),
        Ok(reply) if reply.starts_with("220") => {
            let lines = [
                ("EHLO abuser.test", "250"),
                ("MAIL FROM:<abuser@abuser.test>", "250"),
                ("RCPT TO:<bob@example.org>", "250"),
            ];
            // A ban that falls meanwhile refuses one of these.
            Ok(match guest.dialogue(&lines).await {
                Ok(()) => Outcome::Served,
                Err(_) => Outcome::LetIn,
            })
        }
        Ok(reply) => Err(io::Error::other(format!("greeted with `{reply}`"))),
    }
}

async fn within<T>(doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, doing).await?
}
