//! A client that tries streams out, many sessions at once, and writes down what was
//! said in each of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::meant::Transcript;
use super::streams::Stream;

/// Sessions at once with each server.
const CROWD: usize = 6;

/// A reply that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One session as a client.
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    transcript: Transcript,
}

impl Client {
    pub async fn greeted(server: SocketAddr, name: String) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        let mut client = Self {
            reader: BufReader::new(reader),
            writer,
            transcript: Transcript {
                name,
                ..Transcript::default()
            },
        };
        client.reply().await;
        let hello = format!("EHLO {}\r\n", client.transcript.name);
        client.send(hello.as_bytes()).await;
        client.reply().await;
        client
    }

    /// Sends a stream in a transaction of its own; `None` when the session is over.
    pub async fn try_out(&mut self, stream: &Stream, number: usize) -> Option<()> {
        let mail = format!("MAIL FROM:<u{number}@sender.test>\r\n");
        self.send(mail.as_bytes()).await;
        self.send(b"RCPT TO:<bob@example.org>\r\n").await;
        if let Stream::Body(_) = stream {
            self.send(b"DATA\r\n").await;
            while !self.reply().await?.starts_with("354") {}
        } else {
            self.reply().await?;
            self.reply().await?;
        }
        let mut writes = stream.writes().iter();
        if let Some(first) = writes.next() {
            self.send(first).await;
        }
        for write in writes {
            // So that it is another read of the program's, too.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.send(write).await;
        }
        if let Stream::Chunks(_) = stream {
            self.writer.shutdown().await.ok();
            while self.reply().await.is_some() {}
            return None;
        }
        // Not known to the program, so that its answer tells where it stands.
        self.send(b"HELP\r\n").await;
        while !self.reply().await?.contains("HELP is disabled") {}
        Some(())
    }

    /// What meets a closed connection was not heard, and counts as not sent.
    async fn send(&mut self, octets: &[u8]) {
        self.transcript.sent.extend_from_slice(octets);
        self.writer.write_all(octets).await.ok();
    }

    async fn reply(&mut self) -> Option<&str> {
        let mut reply = String::new();
        loop {
            let read = self.reader.read_line(&mut reply);
            match timeout(PATIENCE, read).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return None,
                Err(_) => {
                    let sent = self.transcript.sent.escape_ascii();
                    panic!(
                        "no reply in time; heard {:?} to {sent}",
                        self.transcript.replies
                    )
                }
            }
            let last = reply.lines().last().unwrap_or_default();
            if last.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        self.transcript.replies.push(reply.trim_end().to_owned());
        self.transcript.replies.last().map(String::as_str)
    }
}

/// Tries all streams out on one server; what was said in the sessions.
pub async fn try_all(server: SocketAddr, streams: Arc<Vec<Stream>>) -> Vec<Transcript> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (next, streams) = (Arc::clone(&next), Arc::clone(&streams));
        crowd.spawn(async move {
            let mut transcripts = Vec::new();
            let mut session: Option<Client> = None;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(stream) = streams.get(number) else {
                    break;
                };
                let mut client = match session.take() {
                    Some(client) => client,
                    None => Client::greeted(server, format!("s{number}.test")).await,
                };
                let open = client.try_out(stream, number).await;
                // Short sessions are read more easily when they fail.
                match open.filter(|()| client.transcript.replies.len() < 60) {
                    Some(()) => session = Some(client),
                    None => transcripts.push(client.transcript),
                }
            }
            transcripts.extend(session.map(|client| client.transcript));
            transcripts
        });
    }
    crowd.join_all().await.concat()
}
