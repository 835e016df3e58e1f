//! rspamd, asked over its HTTP protocol: `POST /checkv2` with the envelope in
//! request header fields and the message as the body.
//!
//! A few connections are kept for the next message. rspamd may close one at
//! any moment, so a question that breaks on a kept connection is asked once
//! more on a new one; a scan changes nothing and may be repeated. Of several
//! clients that exist for this protocol none streams a message.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Message, ScanError};
use crate::policy::content::Opinion;
use crate::reach;
use crate::settings::{HostPort, Secret, Value};
use crate::smtp::path::Domain;
use excerpt::Excerpt;

mod answer;
mod excerpt;
#[cfg(test)]
mod tests;

/// Connections kept for the next message.
const IDLE_MAX: usize = 8;

/// How long they are kept.
const IDLE_TIME: Duration = Duration::from_secs(15);

/// Longest answer, octets: what rspamd says by itself and of the hosts and
/// addresses that a message names, and [`ECHO_MAX`] of the message.
const ANSWER_MAX: u64 = 8 * 1024 * 1024;

/// Most octets of an answer for one of the message: rspamd repeats parts of it,
/// and may write an octet as `\u0000`.
const ECHO_MAX: u64 = 6;

/// Longest answer to a ping, octets.
const PONG_MAX: u64 = 1024;

/// Pieces of a message that may wait for the connection.
const AHEAD: usize = 2;

/// Where rspamd listens: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RspamdAddress(HostPort);

impl Value for RspamdAddress {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("does not begin with http://")?;
        HostPort::parse(rest.strip_suffix('/').unwrap_or(rest), None).map(Self)
    }
}

impl fmt::Display for RspamdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The client of one rspamd.
#[derive(Debug)]
pub struct Rspamd {
    address: RspamdAddress,
    password: Option<Secret>,
    /// The longest unused first. Never held over an await.
    idle: Mutex<VecDeque<Connection>>,
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Upload>,
    used: Instant,
    /// Ends with the connection, whatever the peer does.
    _driver: AbortOnDropHandle<()>,
}

impl Rspamd {
    /// The rspamd that listens at `address`. Connects to nothing yet.
    pub fn new(address: RspamdAddress, password: Option<Secret>) -> Self {
        Self {
            address,
            password,
            idle: Mutex::default(),
        }
    }

    /// What rspamd says of the message: its score and its action are opinions
    /// of their own.
    ///
    /// # Errors
    /// When rspamd cannot be reached, breaks off or is unintelligible.
    pub async fn scan(&self, message: &Message<'_>) -> Result<Vec<Opinion>, ScanError> {
        let answer = match self.kept() {
            None => self.check(self.connect().await?, message).await?,
            Some(connection) => match self.check(connection, message).await {
                Err(ScanError::Io(_)) => self.check(self.connect().await?, message).await?,
                answer => answer?,
            },
        };
        if answer.is_cut() {
            tracing::warn!(
                id = message.id,
                "part of rspamd's answer is too long and left out"
            );
        }
        answer::opinions(&answer.into_answer())
    }

    /// Reads a whole answer to a message. No I/O.
    ///
    /// # Errors
    /// When it is unintelligible.
    pub fn opinions(answer: &[u8]) -> Result<Vec<Opinion>, ScanError> {
        let mut excerpt = Excerpt::default();
        excerpt.take(answer);
        answer::opinions(&excerpt.into_answer())
    }

    /// Its answer to `GET /ping`.
    ///
    /// # Errors
    /// When rspamd cannot be reached, breaks off or is unintelligible.
    pub async fn ping(&self) -> Result<String, ScanError> {
        let mut connection = self.connect().await?;
        let (_, upload) = Upload::of(0);
        let request = self.request(Method::GET, "/ping", HeaderMap::new(), upload)?;
        let response = connection.requests.send_request(request).await;
        let mut answer = Vec::new();
        let take = |octets: &[u8]| answer.extend_from_slice(octets);
        read(response.map_err(broken)?, PONG_MAX, take).await?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.trim().chars().filter(|c| !c.is_control()).collect())
    }

    /// One question and its answer; the connection is kept if it is still good.
    async fn check(
        &self,
        mut connection: Connection,
        message: &Message<'_>,
    ) -> Result<Excerpt, ScanError> {
        let front = front(message).await?;
        let ours = u64::try_from(front.len()).unwrap_or(u64::MAX);
        let whole = message.body.len().saturating_add(ours);
        let (pieces, upload) = Upload::of(whole);
        let fields = envelope_fields(message);
        let request = self.request(Method::POST, "/checkv2", fields, upload)?;
        let longest = ANSWER_MAX.saturating_add(whole.saturating_mul(ECHO_MAX));
        let answer = async {
            let response = connection.requests.send_request(request).await;
            let mut answer = Excerpt::default();
            let take = |octets: &[u8]| answer.take(octets);
            read(response.map_err(broken)?, longest, take).await?;
            Ok::<_, ScanError>(answer)
        };
        let handed_over = AtomicU64::new(0);
        let answer = tokio::select! {
            answer = answer => answer?,
            error = feed(front, message, pieces, &handed_over) => return Err(error.into()),
        };
        if handed_over.load(Ordering::Relaxed) < whole {
            let what = "judges what it has not seen all of";
            return Err(ScanError::Protocol(what.to_owned()));
        }
        self.keep(connection);
        Ok(answer)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        fields: HeaderMap,
        upload: Upload,
    ) -> Result<Request<Upload>, ScanError> {
        let mut request = Request::new(upload);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        *request.headers_mut() = fields;
        let headers = request.headers_mut();
        if let Some(host) = field_value(&self.address.to_string()) {
            headers.insert(HOST, host);
        }
        if let Some(password) = &self.password
            && let Some(mut value) = field_value(password.reveal())
        {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("password"), value);
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, ScanError> {
        let RspamdAddress(at) = &self.address;
        let stream = reach::tcp(at).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (requests, connection) = handshake.map_err(broken)?;
        let driver = tokio::spawn(async {
            // What breaks it is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Connection {
            requests,
            used: Instant::now(),
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// A connection from before that seems to be good.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|one| one.used.elapsed() < IDLE_TIME && one.requests.is_ready());
        idle.pop_back()
    }

    fn keep(&self, mut connection: Connection) {
        if connection.requests.is_closed() {
            return;
        }
        connection.used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(connection);
        if idle.len() > IDLE_MAX {
            idle.pop_front();
        }
    }
}

/// What rspamd is told of the envelope, in the words of its protocol. A
/// `Hostname` is left out: it would be the client's PTR name, which is not known.
fn envelope_fields(message: &Message<'_>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut tell = |name: &'static str, value: &str| {
        if let Some(value) = field_value(value) {
            fields.append(HeaderName::from_static(name), value);
        }
    };
    if let Some(client) = message.client {
        tell("ip", &client.ip().to_canonical().to_string());
    }
    tell("helo", message.hello);
    match message.sender {
        "" => tell("from", "<>"),
        sender => tell("from", &path(sender, message.hostname)),
    }
    for recipient in message.recipients {
        tell("rcpt", &path(recipient, message.hostname));
    }
    // Any value tells that the client has signed in, and nothing else does.
    let unknown = message.is_authenticated().then_some("unknown");
    if let Some(user) = message.user.or(unknown) {
        tell("user", user);
    }
    tell("queue-id", message.id);
    tell("mta-name", message.hostname);
    if let Some(tls) = message.tls {
        tell("tls-cipher", tls.cipher);
        tell("tls-version", tls.version);
    }
    fields
}

/// An address as a path that rspamd can read: one that it cannot read costs the
/// message 8 points (`BROKEN_HEADERS`). It wants a domain (`postmaster` has
/// none) and ASCII, so an internationalised domain goes as A-labels (RFC 5890),
/// and octets of a local part that are not ASCII are percent-encoded.
fn path(address: &str, hostname: &str) -> String {
    let (local_part, domain) = address.rsplit_once('@').unwrap_or((address, hostname));
    let domain = Some(domain)
        .filter(|domain| !domain.is_ascii())
        .and_then(|domain| Domain::parse(domain).ok())
        .and_then(|domain| domain.to_ascii_lowercase())
        .unwrap_or_else(|| percent_encoded(domain));
    format!("<{}@{domain}>", percent_encoded(local_part))
}

fn percent_encoded(text: &str) -> String {
    let encode = |octet: u8| match octet {
        0..0x80 => char::from(octet).to_string(),
        octet => format!("%{octet:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The text as the value of a field. A control character becomes `?`; what is
/// not ASCII (RFC 6531) goes as UTF-8, in which rspamd reads it.
fn field_value(text: &str) -> Option<HeaderValue> {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// What is shown before the message: our trace field; without one, where the message
/// has no header section, a hop. rspamd passes over empty lines in front, and would
/// take the body for the section.
async fn front<'a>(message: &Message<'a>) -> io::Result<&'a [u8]> {
    if !message.trace.is_empty() {
        return Ok(message.trace);
    }
    let first = message.body.reader().next().await?;
    Ok(match first {
        Some(octets) if octets.starts_with(b"\r") => message.hop,
        _ => message.trace,
    })
}

/// Hands the message over piece by piece, and counts the octets; returns only if
/// it cannot be read.
async fn feed(
    front: &[u8],
    message: &Message<'_>,
    pieces: mpsc::Sender<Bytes>,
    handed_over: &AtomicU64,
) -> io::Error {
    let mut reader = message.body.reader();
    let mut piece = Some(Bytes::copy_from_slice(front));
    while let Some(octets) = piece {
        // Nobody takes it: the answer, which is waited for elsewhere, came early.
        let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        if !octets.is_empty() && pieces.send(octets).await.is_err() {
            break;
        }
        handed_over.fetch_add(length, Ordering::Relaxed);
        piece = match reader.next().await {
            Ok(piece) => piece,
            Err(error) => return error,
        };
    }
    drop(pieces);
    std::future::pending().await
}

/// Hands over the body of a good answer piece by piece, `most` octets of it.
async fn read(
    response: Response<Incoming>,
    most: u64,
    mut take: impl FnMut(&[u8]),
) -> Result<(), ScanError> {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::PAYLOAD_TOO_LARGE => return Err(ScanError::TooLarge),
        status => {
            return Err(ScanError::Reported(format!(
                "HTTP status {}",
                status.as_u16()
            )));
        }
    }
    let mut body = response.into_body();
    let mut left = most;
    while let Some(frame) = body.frame().await {
        let Ok(octets) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        left = left
            .checked_sub(length)
            .ok_or_else(|| ScanError::Reported("its answer is too long".to_owned()))?;
        take(&octets);
    }
    Ok(())
}

fn broken(error: hyper::Error) -> ScanError {
    if error.is_parse() {
        ScanError::Protocol(format!("no HTTP: {error}"))
    } else {
        io::Error::other(error).into()
    }
}

/// A request body of known length whose pieces come through a channel.
#[derive(Debug)]
struct Upload {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Upload {
    fn of(length: u64) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let left = length;
        (sender, Self { pieces, left })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.left = self.left.saturating_sub(length);
                Some(Ok(Frame::data(piece)))
            }
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
