//! A whole dialogue with a filter that answers what it likes.
#![no_main]

use std::cell::RefCell;
use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use portcullis::policy::content::{Change, Word};
use portcullis::scan::{Message, Milter, MilterAddress};
use portcullis::settings::{Reader, Value};
use portcullis::spool::{self, Body, Spool};
use portcullis_fuzz::{assert_one_line, assert_reply_lines, steered};
use tokio::runtime::{Builder, Runtime};

const TRACE: &[u8] = b"Received: from c.test\r\n\tby mx.test; now\r\n";
const MESSAGE: &[u8] = b"Subject: a\r\n b\r\nTo : x@example.org\r\n\r\nbody\r\n.\r\n";

thread_local! {
    static WORLD: RefCell<(Runtime, Body)> = RefCell::new(world());
}

fn world() -> (Runtime, Body) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let settings = spool::Settings::read(&mut Reader::default()).unwrap();
    let body = runtime.block_on(async {
        let mut writer = Spool::new(&settings).unwrap().begin();
        writer.write(MESSAGE).await.unwrap();
        writer.finish().await.unwrap()
    });
    (runtime, body)
}

async fn content_of(body: &Body) -> Vec<u8> {
    let (mut reader, mut content) = (body.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    content
}

/// What a server of any laxity reads as the same lines.
fn assert_strict_lines(body: &[u8]) {
    let without = String::from_utf8_lossy(body).replace("\r\n", "");
    assert!(!without.contains(['\r', '\n', '\0']));
    assert!(body.is_empty() || body.ends_with(b"\r\n"));
}

fuzz_target!(|data: &[u8]| {
    let Some((steer, answers)) = steered(data) else {
        return;
    };
    WORLD.with_borrow(|(runtime, body)| {
        let recipients = ["x@example.org".to_owned(), "y@example.org".to_owned()];
        let message = Message {
            client: Some("192.0.2.1:25".parse().unwrap()),
            hello: "c.test",
            protocol: "ESMTP",
            user: None,
            tls: None,
            sender: "a@b.test",
            recipients: &recipients[..usize::from(steer % 2) + 1],
            id: "ID",
            hostname: "mx.test",
            trace: if steer & 2 == 0 { TRACE } else { b"" },
            hop: TRACE,
            body,
        };
        let address = MilterAddress::parse("inet:127.0.0.1:8891").unwrap();
        // The filter's answers are all there, and it never stops reading.
        let answers = Cursor::new(answers.to_vec());
        let connection = Box::new(tokio::io::join(answers, tokio::io::sink()));
        let milter = Milter::new(address, 0);
        match runtime.block_on(milter.scan_on(connection, &message)) {
            Ok((opinion, new_body)) => {
                let refused = match opinion.word {
                    Word::Clean => None,
                    Word::Quarantine(reason) => {
                        assert_one_line(&reason);
                        None
                    }
                    Word::Refuse { reply } => {
                        assert!(reply.as_ref().is_none_or(|reply| reply.is_permanent()));
                        reply
                    }
                    Word::Defer { reply } => {
                        assert!(reply.as_ref().is_none_or(|reply| reply.is_transient()));
                        assert!(reply.as_ref().is_none_or(|reply| reply.code() != 421));
                        reply
                    }
                    other => panic!("{other:?}"),
                };
                if let Some(reply) = refused {
                    assert!(opinion.changes.is_empty() && new_body.is_none());
                    assert_reply_lines(&reply.to_string(), 512);
                }
                for change in opinion.changes {
                    assert_eq!(Change::checked(change.clone()), Ok(change));
                }
                if let Some(body) = new_body {
                    assert_strict_lines(&runtime.block_on(content_of(&body)));
                }
            }
            Err(error) => assert_one_line(&error.to_string()),
        }
    });
});
