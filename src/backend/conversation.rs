//! One SMTP dialogue with the guarded server, Portcullis being the client.
//!
//! Only printed values go out; replies are read with bounds of lines, length
//! and time. Whatever does not parse is a lost backend, never a guess.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Introduction;
use super::address::Protocol;
use crate::smtp::command::{AuthLine, Command};
use crate::smtp::ehlo::Keywords;
use crate::smtp::reply::{Reply, ReplyParser};
use crate::tls::{Stream, TlsDetails, read_some, within};

/// Octets of a usual command line.
const LINE: usize = 64;

/// How long the goodbye may take. Nobody waits for it.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);

/// How long RSET may take: a client waits for its answer meanwhile, and a server
/// that cannot forget is better left.
const RSET_PATIENCE: Duration = Duration::from_secs(10);

/// The backend is gone for this session.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The connection broke or was closed.
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    /// It closed the connection where a reply was due.
    #[error("connection closed")]
    Closed,
    /// No reply in time.
    #[error("no reply in time")]
    TimedOut,
    /// Something came that is no SMTP reply.
    #[error("unintelligible reply: {0}")]
    Nonsense(#[from] crate::smtp::reply::ReplyError),
    /// More came than was asked for; whose reply is it?
    #[error("unasked-for octets behind a reply")]
    Unasked,
}

/// A dialogue with one backend.
pub struct Conversation {
    stream: Box<dyn Stream>,
    input: BytesMut,
    parser: ReplyParser,
    protocol: Protocol,
    patience: Duration,
    /// More came behind the final reply than was asked for: good for that
    /// reply, and for nothing more.
    spoilt: bool,
    /// What has been sent as a group and not been answered yet.
    due: VecDeque<Command>,
    /// What the backend offers here.
    pub keywords: Arc<Keywords>,
    /// How it learnt of the client.
    pub introduction: Introduction,
    /// Whether it can be told who has signed in. Before it knew of the client it
    /// said so; to clients it may not.
    pub takes_login: bool,
    /// The backend's side of TLS, if any.
    pub tls: Option<TlsDetails>,
    /// What is given back when the connection is gone.
    held: Option<Box<dyn Send + Sync>>,
}

impl Conversation {
    pub(super) fn new(stream: Box<dyn Stream>, protocol: Protocol, patience: Duration) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            parser: ReplyParser::default(),
            protocol,
            patience,
            spoilt: false,
            due: VecDeque::new(),
            keywords: Arc::default(),
            introduction: Introduction::None,
            takes_login: false,
            tls: None,
            held: None,
        }
    }

    /// Keeps something for as long as there is this connection.
    pub fn hold(&mut self, held: Box<dyn Send + Sync>) {
        self.held = Some(held);
    }

    /// Gives back the stream, for a TLS handshake. Octets behind the reply to
    /// STARTTLS would become part of what is believed to be protected
    /// (RFC 3207 5, response injection): they end it.
    pub(super) fn into_stream(self) -> Result<Box<dyn Stream>, Lost> {
        if self.input.is_empty() {
            Ok(self.stream)
        } else {
            Err(Lost::Unasked)
        }
    }

    /// Sends one command and awaits its reply.
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn exchange(&mut self, command: &Command) -> Result<Reply, Lost> {
        self.exchange_first(command, Vec::new()).await
    }

    /// Sends one command with the rest of its group (RFC 2920 3.1) and awaits the
    /// reply to the first; those to the rest are due, see
    /// [`has_sent`](Self::has_sent).
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn exchange_first(
        &mut self,
        command: &Command,
        rest: Vec<Command>,
    ) -> Result<Reply, Lost> {
        self.settle().await?;
        if let Some(said) = self.unasked().await? {
            return Ok(said);
        }
        let mut lines = String::with_capacity(LINE * (rest.len() + 1));
        for command in std::iter::once(command).chain(&rest) {
            self.print(command, &mut lines);
        }
        self.write(lines.as_bytes()).await?;
        self.due = rest.into();
        self.reply(self.patience_with(command)).await
    }

    /// Whether this command has been sent already and its reply is the next.
    pub fn has_sent(&self, command: &Command) -> bool {
        self.due.front() == Some(command)
    }

    /// The reply to the next command of the group that has been sent.
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn next_of_group(&mut self) -> Result<Reply, Lost> {
        let command = self.due.pop_front().ok_or(Lost::Unasked)?;
        self.reply(self.patience_with(&command)).await
    }

    /// Whether every command has had its reply.
    pub fn is_settled(&self) -> bool {
        self.due.is_empty()
    }

    /// Hears the replies to what has been sent for nothing, because something
    /// before it was refused. So must these be: what was taken would belong to a
    /// transaction that nobody knows of.
    async fn settle(&mut self) -> Result<(), Lost> {
        while !self.is_settled() {
            let reply = self.next_of_group().await?;
            let code = reply.code();
            let is_refused = matches!(code, 400..=599) && code != 421;
            if !is_refused {
                return Err(Lost::Unasked);
            }
        }
        Ok(())
    }

    fn print(&self, command: &Command, lines: &mut String) {
        // Writing to a String does not fail.
        let _ = match (command, self.protocol) {
            // RFC 2033 4.1
            (Command::Ehlo(name) | Command::Helo(name), Protocol::Lmtp) => {
                write!(lines, "LHLO {name}\r\n")
            }
            (command, _) => write!(lines, "{command}\r\n"),
        };
    }

    fn patience_with(&self, command: &Command) -> Duration {
        match command {
            Command::Rset => self.patience.min(RSET_PATIENCE),
            _ => self.patience,
        }
    }

    /// Sends one line of an AUTH dialogue and awaits the reply.
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn exchange_auth(&mut self, line: &AuthLine) -> Result<Reply, Lost> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply(self.patience).await
    }

    pub(super) async fn exchange_xclient(
        &mut self,
        command: &super::introduce::Xclient,
    ) -> Result<Reply, Lost> {
        self.write(format!("{command}\r\n").as_bytes()).await?;
        self.reply(self.patience).await
    }

    /// The reply after the end of a message: twice the usual patience
    /// (RFC 5321 4.5.3.2.6 asks for ten minutes).
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn final_reply(&mut self) -> Result<Reply, Lost> {
        let reply = timeout(self.patience.saturating_mul(2), self.next_reply())
            .await
            .map_err(|_| Lost::TimedOut)??;
        // It stands, whatever comes behind it: to doubt it would deliver twice.
        self.spoilt = !self.input.is_empty();
        Ok(reply)
    }

    /// What the backend has said while nobody was talking to it: a 421 is the
    /// answer to whatever comes next; anything else would be taken for the
    /// answer to it, and must not.
    async fn unasked(&mut self) -> Result<Option<Reply>, Lost> {
        if self.spoilt {
            return Err(Lost::Unasked);
        }
        let said = tokio::select! {
            biased;
            said = self.next_reply() => Some(said?),
            () = std::future::ready(()) => None,
        };
        match said {
            Some(reply) if reply.code() == 421 => Ok(Some(reply)),
            None if !self.has_begun_to_speak() => Ok(None),
            _ => Err(Lost::Unasked),
        }
    }

    /// Whether part of a reply is here, and its end is not.
    pub fn has_begun_to_speak(&self) -> bool {
        !self.input.is_empty() || !self.parser.is_at_rest()
    }

    /// Writes octets of a body, or whole printed commands.
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone or does not take them in time.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), Lost> {
        let write = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        within(self.patience, write)
            .await
            .map_err(|_| Lost::TimedOut)?
            .map_err(Lost::Io)
    }

    /// The reply to a chunk that is not the last.
    ///
    /// # Errors
    /// [`Lost`] when the backend is gone, late or unintelligible.
    pub async fn chunk_reply(&mut self) -> Result<Reply, Lost> {
        self.reply(self.patience).await
    }

    pub(super) async fn reply(&mut self, patience: Duration) -> Result<Reply, Lost> {
        let reply = timeout(patience, self.next_reply())
            .await
            .map_err(|_| Lost::TimedOut)??;
        // One reply was due; more may come only where more are, and the 421 of a
        // server that has had enough behind a refusal. That one stands: not to hear it
        // would make it a temporary failure, and a guess at a password none.
        let is_refused = matches!(reply.code(), 400..=599);
        if self.input.is_empty() || !self.is_settled() || (is_refused && self.hangs_up()) {
            Ok(reply)
        } else {
            Err(Lost::Unasked)
        }
    }

    /// Whether what lies there begins a 421, so far as it has come: the answer to
    /// whatever is said next.
    fn hangs_up(&self) -> bool {
        self.input.iter().zip(b"421").all(|(here, due)| here == due)
    }

    /// A reply that comes while a body is being sent. May be dropped and
    /// called again without loss.
    ///
    /// # Errors
    /// [`Lost`] when the backend closes or is unintelligible.
    pub async fn next_reply(&mut self) -> Result<Reply, Lost> {
        loop {
            if let Some(reply) = self.parser.feed(&mut self.input)? {
                return Ok(reply);
            }
            if read_some(&mut *self.stream, &mut self.input).await? == 0 {
                return Err(Lost::Closed);
            }
        }
    }

    /// Says goodbye, and waits a little for the answer. With replies due nobody
    /// knows whether it would be a command or part of a message: then it hangs up.
    pub async fn quit(mut self) {
        if !self.is_settled() {
            return;
        }
        let goodbye = async {
            self.write(b"QUIT\r\n").await?;
            self.reply(QUIT_PATIENCE).await
        };
        let _ = timeout(QUIT_PATIENCE, goodbye).await;
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("introduction", &self.introduction)
            .finish_non_exhaustive()
    }
}
