//! rspamd's client against a peer that does what no real rspamd does, or does
//! it seldom. What a real one says is tested from outside.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::policy::content::Word;
use crate::spool;
use crate::tls::TlsDetails;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the peer does once a whole request has come.
#[derive(Clone)]
enum Act {
    /// Sends this and keeps the connection.
    Send(String),
    /// Sends this and closes.
    SendAndClose(String),
    /// Sends this again and again.
    Flood(String),
    /// Answers as soon as the header section has come, and reads on.
    Early(String),
    /// Closes with RST.
    Reset,
    /// Says nothing and waits until the client leaves.
    Hang,
}

#[derive(Default)]
struct Seen {
    /// The requests of each connection.
    connections: Mutex<Vec<Vec<String>>>,
    /// Connections that the client has ended.
    ended: tokio::sync::Notify,
}

impl Seen {
    fn hear(&self, request: String) {
        let mut connections = self.connections.lock().unwrap();
        connections.last_mut().unwrap().push(request);
    }
}

struct Peer {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Peer {
    /// A peer with the acts of its first connection, its second, and so on.
    async fn start(acts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let heard = Arc::clone(&seen);
        tokio::spawn(async move {
            for acts in acts {
                let (stream, _) = listener.accept().await.unwrap();
                heard.connections.lock().unwrap().push(Vec::new());
                talk(stream, acts, &heard).await;
            }
        });
        Self { address, seen }
    }

    fn client(&self) -> Rspamd {
        let address = format!("http://{}", self.address);
        Rspamd::new(RspamdAddress::parse(&address).unwrap(), None)
    }

    /// How many requests came on each connection.
    fn requests(&self) -> Vec<usize> {
        let connections = self.seen.connections.lock().unwrap();
        connections.iter().map(Vec::len).collect()
    }

    fn request(&self) -> String {
        self.seen.connections.lock().unwrap()[0][0].clone()
    }
}

async fn talk(mut stream: TcpStream, acts: Vec<Act>, seen: &Seen) {
    for act in acts {
        let is_early = matches!(act, Act::Early(_));
        let Some(request) = request(&mut stream, is_early).await else {
            return;
        };
        seen.hear(request);
        match act {
            Act::Send(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Act::SendAndClose(answer) => {
                let _ = stream.write_all(answer.as_bytes()).await;
                return;
            }
            Act::Early(answer) => {
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = vec![0; 65536];
                while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
                return;
            }
            Act::Flood(answer) => while stream.write_all(answer.as_bytes()).await.is_ok() {},
            Act::Reset => {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Act::Hang => {
                let mut octets = [0; 1];
                assert!(matches!(stream.read(&mut octets).await, Ok(0) | Err(_)));
                seen.ended.notify_one();
                return;
            }
        }
    }
    // The client decides how long the connection lives.
    let _ = stream.read(&mut [0; 1]).await;
}

/// One request, or only its header section.
async fn request(stream: &mut TcpStream, is_early: bool) -> Option<String> {
    let mut octets = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&octets).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if is_early || body.len() == length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut octets).await.ok()? == 0 {
            return None;
        }
    }
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn fine() -> String {
    http("200 OK", r#"{"score": 1.0, "action": "no action"}"#)
}

async fn body(content: &[u8]) -> spool::Body {
    let mut writer = spool::Spool::new(&spool::Settings::default())
        .unwrap()
        .begin();
    writer.write(content).await.unwrap();
    writer.finish().await.unwrap()
}

fn message<'a>(body: &'a spool::Body, recipients: &'a [String]) -> Message<'a> {
    Message {
        client: Some("192.0.2.7:4711".parse().unwrap()),
        hello: "mx.client.test",
        protocol: "ESMTPS",
        user: None,
        tls: None,
        sender: "a@b.test",
        recipients,
        id: "ID",
        hostname: "mx.our.test",
        trace: b"Received: x\r\n",
        hop: b"Received: x\r\n",
        body,
    }
}

async fn scan(client: &Rspamd) -> Result<Vec<Opinion>, ScanError> {
    let body = body(b"Subject: x\r\n\r\nhello\r\n").await;
    timeout(PATIENCE, client.scan(&message(&body, &[])))
        .await
        .unwrap()
}

/// The error of a client whose only connection answers so.
async fn error(act: Act) -> ScanError {
    let peer = Peer::start(vec![vec![act], vec![Act::Send(fine())]]).await;
    let error = scan(&peer.client()).await.unwrap_err();
    // On a connection that was not used before nothing is asked twice.
    assert_eq!(peer.requests(), [1]);
    error
}

fn is_scored(answer: &Result<Vec<Opinion>, ScanError>) -> bool {
    matches!(answer.as_deref(), Ok([opinion]) if matches!(opinion.word, Word::Score { .. }))
}

#[tokio::test]
async fn sends_the_envelope_and_the_whole_message() {
    let peer = Peer::start(vec![vec![Act::Send(fine())]]).await;
    let content = "x".repeat(300_000);
    let body = body(content.as_bytes()).await;
    let recipients = ["c@d.test".to_owned(), "postmaster".to_owned()];
    let tls = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: None,
        resumed: false,
    };
    let message = Message {
        sender: "jürgen@bücher.test",
        user: Some("me"),
        tls: Some(&tls),
        ..message(&body, &recipients)
    };
    let client = Rspamd {
        password: Some(Secret::parse("pass word").unwrap()),
        ..peer.client()
    };
    assert!(is_scored(&client.scan(&message).await));
    let request = peer.request();
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    let fields: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(fields[0], "POST /checkv2 HTTP/1.1");
    for field in [
        "ip: 192.0.2.7",
        "helo: mx.client.test",
        "from: <j%C3%BCrgen@xn--bcher-kva.test>",
        "rcpt: <c@d.test>",
        "rcpt: <postmaster@mx.our.test>",
        "user: me",
        "queue-id: ID",
        "mta-name: mx.our.test",
        "tls-version: TLSv1.3",
        "tls-cipher: TLS_AES_128_GCM_SHA256",
        "password: pass word",
    ] {
        assert!(fields.contains(&field), "{field} is not in {head}");
    }
    assert!(!head.contains("hostname:"));
    assert!(sent == format!("Received: x\r\n{content}"));
}

/// Its rules spare who has signed in, and know it by this field alone.
#[tokio::test]
async fn a_sign_in_without_a_name_is_told() {
    for (protocol, is_told) in [("ESMTPS", false), ("ESMTPSA", true)] {
        let peer = Peer::start(vec![vec![Act::Send(fine())]]).await;
        let body = body(b"x").await;
        let message = Message {
            protocol,
            ..message(&body, &[])
        };
        assert!(is_scored(&peer.client().scan(&message).await));
        let request = peer.request();
        assert_eq!(request.contains("user: unknown\r\n"), is_told, "{request}");
    }
}

#[tokio::test]
async fn no_value_can_bring_a_field_of_its_own() {
    let peer = Peer::start(vec![vec![Act::Send(fine())]]).await;
    let body = body(b"x").await;
    let message = Message {
        hello: "evil\r\nSettings: {}\r\n\r\n\0",
        sender: "",
        ..message(&body, &[])
    };
    assert!(is_scored(&peer.client().scan(&message).await));
    let request = peer.request();
    assert!(
        request.contains("helo: evil??Settings: {}?????\r\n"),
        "{request}"
    );
    assert!(request.contains("from: <>\r\n"));
}

#[tokio::test]
async fn nonsense_is_a_fault_of_protocol() {
    for (act, what) in [
        (Act::Send(http("200 OK", "garbage")), "no JSON"),
        (Act::Send(http("500 Oops", "{}")), "HTTP status 500"),
        (Act::Send(http("403 No", "{}")), "HTTP status 403"),
        (
            Act::SendAndClose("220 mail.test ESMTP\r\n".into()),
            "no HTTP",
        ),
        (
            Act::Flood(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(65536))),
            "no HTTP",
        ),
    ] {
        let error = error(act).await;
        assert!(
            matches!(error, ScanError::Protocol(_) | ScanError::Reported(_)),
            "{error:?}"
        );
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65536));
    let peer = Peer::start(vec![vec![Act::Send(head.to_owned() + &chunk.repeat(130))]]).await;
    match scan(&peer.client()).await.unwrap_err() {
        ScanError::Reported(why) => assert_eq!(why, "its answer is too long"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_broken_connection_is_a_fault_of_io() {
    for act in [
        Act::Reset,
        Act::SendAndClose(String::new()),
        Act::SendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".into()),
        Act::SendAndClose("HTTP/1.1 200 OK\r\nContent-".into()),
    ] {
        let error = error(act).await;
        assert!(matches!(error, ScanError::Io(_)), "{error:?}");
    }
}

#[tokio::test]
async fn hears_a_refusal_that_comes_before_the_message_is_over() {
    let early = http("413 Too Large", "");
    let peer = Peer::start(vec![vec![Act::Early(early)]]).await;
    let body = body(&vec![b'x'; 8 << 20]).await;
    let client = peer.client();
    let answer = timeout(PATIENCE, client.scan(&message(&body, &[])))
        .await
        .unwrap();
    assert!(matches!(answer, Err(ScanError::TooLarge)));
}

#[tokio::test]
async fn believes_no_verdict_on_what_was_not_seen() {
    let peer = Peer::start(vec![vec![Act::Early(fine())]]).await;
    let body = body(&vec![b'x'; 8 << 20]).await;
    let client = peer.client();
    let answer = timeout(PATIENCE, client.scan(&message(&body, &[])))
        .await
        .unwrap();
    assert!(matches!(answer, Err(ScanError::Protocol(_))), "{answer:?}");
}

#[tokio::test]
async fn keeps_a_connection_for_the_next_message() {
    let peer = Peer::start(vec![vec![Act::Send(fine()); 3]]).await;
    let client = peer.client();
    for _ in 0..3 {
        assert!(is_scored(&scan(&client).await));
    }
    assert_eq!(peer.requests(), [3]);
}

#[tokio::test]
async fn asks_once_more_when_a_kept_connection_breaks() {
    let peer = Peer::start(vec![
        vec![Act::Send(fine()), Act::Reset],
        vec![Act::Send(fine())],
    ])
    .await;
    let client = peer.client();
    assert!(is_scored(&scan(&client).await));
    assert!(is_scored(&scan(&client).await));
    assert_eq!(peer.requests(), [2, 1]);
}

#[tokio::test]
async fn asks_no_third_time() {
    let peer = Peer::start(vec![
        vec![Act::Send(fine()), Act::Reset],
        vec![Act::Reset],
        vec![Act::Send(fine())],
    ])
    .await;
    let client = peer.client();
    assert!(is_scored(&scan(&client).await));
    assert!(matches!(scan(&client).await, Err(ScanError::Io(_))));
    assert_eq!(peer.requests(), [2, 1]);
}

#[tokio::test]
async fn nonsense_on_a_kept_connection_is_not_asked_for_again() {
    let peer = Peer::start(vec![
        vec![Act::Send(fine()), Act::Send(http("500 Oops", "{}"))],
        vec![Act::Send(fine())],
    ])
    .await;
    let client = peer.client();
    assert!(is_scored(&scan(&client).await));
    assert!(matches!(scan(&client).await, Err(ScanError::Reported(_))));
    assert_eq!(peer.requests(), [2]);
}

#[tokio::test]
async fn leaves_a_hanging_peer_when_it_is_given_up() {
    let peer = Peer::start(vec![vec![Act::Hang]]).await;
    let client = peer.client();
    let body = body(b"x").await;
    let message = message(&body, &[]);
    let given_up = timeout(Duration::from_millis(200), client.scan(&message));
    assert!(given_up.await.is_err());
    timeout(PATIENCE, peer.seen.ended.notified()).await.unwrap();
}

#[tokio::test]
async fn asks_whether_it_is_there() {
    let peer = Peer::start(vec![vec![Act::Send(http("200 OK", "pong\r\n"))]]).await;
    assert_eq!(peer.client().ping().await.unwrap(), "pong");
    assert!(peer.request().starts_with("GET /ping HTTP/1.1\r\n"));
}

#[test]
fn reads_its_address() {
    for (text, canonical) in [
        ("http://127.0.0.1:11333", "127.0.0.1:11333"),
        ("http://rspamd:11333/", "rspamd:11333"),
        ("http://[::1]:80", "[::1]:80"),
    ] {
        let address = RspamdAddress::parse(text).unwrap();
        assert_eq!(address.to_string(), canonical);
    }
    for bad in [
        "rspamd:11333",
        "https://rspamd:11333",
        "http://rspamd",
        "http://rspamd:0",
        "http://:1",
        "http://::1:1",
        "http://a b:1",
        "http://[x]:1",
        "http://rspamd:1/path",
    ] {
        assert!(RspamdAddress::parse(bad).is_err(), "{bad}");
    }
}
