//! Messages for scanners that are asked by the library, without a session.

use portcullis::scan::{self, Message, MilterAddress, MilterList, Scanners};
use portcullis::spool::{Body, Settings, Spool};

/// A body in the spool.
pub async fn hold(content: impl AsRef<[u8]>) -> Body {
    let mut writer = Spool::new(&Settings::default()).unwrap().begin();
    writer.write(content.as_ref()).await.unwrap();
    writer.finish().await.unwrap()
}

/// All of it.
pub async fn content_of(body: &Body) -> Vec<u8> {
    let (mut reader, mut content) = (body.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    content
}

/// No scanners but these filters, to be asked in this order.
pub fn milters(addresses: Vec<MilterAddress>) -> Scanners {
    Scanners::new(&scan::Settings {
        milters: MilterList(addresses),
        ..scan::Settings::default()
    })
}

/// From a client in clear text that has not signed in.
pub fn message<'a>(body: &'a Body, recipients: &'a [String], trace: &'a [u8]) -> Message<'a> {
    Message {
        client: Some("192.0.2.1:4711".parse().unwrap()),
        hello: "client.example",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "alice@example.com",
        recipients,
        id: "7f3a",
        hostname: "mx.example.org",
        trace,
        hop: trace,
        body,
    }
}
