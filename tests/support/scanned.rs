//! Messages for scanners that are asked by the library, without a session.

use portcullis::scan::Message;
use portcullis::spool::{Body, Settings, Spool};

/// A body in the spool.
pub async fn hold(content: impl AsRef<[u8]>) -> Body {
    let mut writer = Spool::new(&Settings::default()).unwrap().begin();
    writer.write(content.as_ref()).await.unwrap();
    writer.finish().await.unwrap()
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
