//! The server behind all proxies: takes every message, checks it and enters it in the
//! ledger. It says no more than it must and answers what was pipelined together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ledger::Ledger;

const GREETING: &[u8] = b"220 sink.test ESMTP\r\n";
const KEYWORDS: &[u8] = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n250 8BITMIME\r\n";
const END: &[u8] = b"\r\n.\r\n";

/// Octets to make room for, between commands and inside a body.
const COMMANDS: usize = 2 << 10;
const BODY: usize = 256 << 10;

pub struct Sink {
    pub address: SocketAddr,
    pub ledger: Arc<Ledger>,
}

impl Sink {
    /// Listens for ever.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = Arc::new(Ledger::default());
        let entered = Arc::clone(&ledger);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let ledger = Arc::clone(&entered);
                // A proxy may break off; whether that lost something shows in the ledger.
                tokio::spawn(async move { drop(serve(stream, &ledger).await) });
            }
        });
        Self { address, ledger }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, ledger: &Ledger) -> io::Result<()> {
    let mut heard = BytesMut::new();
    let mut replies = GREETING.to_vec();
    loop {
        while let Some(end) = memmem::find(&heard, b"\r\n") {
            let line = heard.split_to(end + 2);
            let verb = line[..line.len().min(4)].to_ascii_uppercase();
            let reply: &[u8] = match verb.as_slice() {
                b"EHLO" => KEYWORDS,
                b"DATA" => {
                    replies.extend(b"354 go ahead\r\n");
                    flush(&mut stream, &mut replies).await?;
                    let message = body(&mut stream, &mut heard).await?;
                    if ledger.arrive(&message) {
                        b"250 taken\r\n"
                    } else {
                        b"554 not what was sent\r\n"
                    }
                }
                b"QUIT" => {
                    replies.extend(b"221 bye\r\n");
                    return flush(&mut stream, &mut replies).await;
                }
                b"HELO" | b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" => b"250 fine\r\n",
                _ => b"500 what?\r\n",
            };
            replies.extend(reply);
        }
        flush(&mut stream, &mut replies).await?;
        read(&mut stream, &mut heard, COMMANDS).await?;
    }
}

/// The next message, without its final dot.
async fn body(stream: &mut (impl AsyncRead + Unpin), heard: &mut BytesMut) -> io::Result<BytesMut> {
    let mut searched = 0;
    loop {
        if let Some(at) = memmem::find(&heard[searched..], END) {
            let message = heard.split_to(searched + at + 2);
            heard.advance(b".\r\n".len());
            return Ok(message);
        }
        searched = heard.len().saturating_sub(END.len() - 1);
        read(stream, heard, BODY).await?;
    }
}

async fn flush(stream: &mut (impl AsyncWrite + Unpin), replies: &mut Vec<u8>) -> io::Result<()> {
    if !replies.is_empty() {
        stream.write_all(replies).await?;
        replies.clear();
    }
    Ok(())
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    heard: &mut BytesMut,
    room: usize,
) -> io::Result<()> {
    heard.reserve(room);
    match stream.read_buf(heard).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
