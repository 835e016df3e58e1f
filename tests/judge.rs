//! Content judged in the session, through the whole proxy: real scanners, a real
//! Postfix behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use support::{Clamd, Options, Portcullis, Postfix, Smtp, Spamd, eicar, gtube, letter};

#[test]
fn spam_is_refused_and_the_session_goes_on() {
    let (postfix, spamd) = (Postfix::start(Options::default()), Spamd::start(&[]));
    let address = spamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[("SPAMASSASSIN", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let spam = format!("{}{}\r\n", letter("spam"), gtube());
    let reply = client.deliver("a@sender.test", "b@example.org", spam.as_bytes());
    assert!(
        reply.starts_with("550 5.7.1 Message refused as spam"),
        "{reply}"
    );
    let reply = client.deliver("a@sender.test", "b@example.org", letter("ham").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    assert!(arrived.contains("X-Spam-Flag: NO"), "{arrived}");
}

#[test]
fn malware_is_refused() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[("CLAMAV", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let infected = format!("{}{}\r\n", letter("malware"), eicar());
    let reply = client.deliver("a@sender.test", "b@example.org", infected.as_bytes());
    assert!(reply.starts_with("554 5.7.1 Malware found: "), "{reply}");
    let reply = client.deliver("a@sender.test", "b@example.org", letter("clean").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    postfix.message();
}
