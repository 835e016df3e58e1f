//! Commands that a client pipelines (RFC 2920) go to the backend together where it
//! offers that, and one by one where it does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::time::Duration;

use support::{Act, Options, Portcullis, Postfix, Scripted, Smtp, letter};

const GROUP: &[u8] = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n";

/// A backend that says nothing before it has heard the whole group.
fn patient(keywords: &'static str) -> Scripted {
    Scripted::start(&[
        ("EHLO", &[Act::Say(keywords)]),
        ("MAIL", &[Act::Silence]),
        ("RCPT", &[Act::Silence]),
        (
            "DATA",
            &[
                Act::Say("250 2.1.0 sender"),
                Act::Say("250 2.1.5 recipient"),
                Act::Say("354 go on"),
            ],
        ),
    ])
}

#[test]
fn a_group_goes_to_the_backend_together() {
    let backend = patient("250-scripted.test\r\n250 PIPELINING");
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.send(GROUP);
    assert!(client.reply().contains("sender"));
    assert!(client.reply().contains("recipient"));
    client.expect("354");
}

#[test]
fn a_backend_without_pipelining_hears_one_command_at_a_time() {
    let backend = patient("250 scripted.test");
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.send(GROUP);
    assert!(backend.transactions(1)[0].ends_with("MAIL FROM:<a@b.test>\r\n"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(backend.transactions(1)[0].ends_with("MAIL FROM:<a@b.test>\r\n"));
}

/// Postfix hangs up on who says nothing; the group goes to it once more.
#[test]
fn recipients_of_a_group_that_is_told_twice_are_counted_once() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_timeout = 2s",
        ..Options::default()
    });
    let limits = [("LIMIT_EXEMPT", ""), ("RCPT_RATE", "1/h burst 4")];
    let portcullis = Portcullis::before(&postfix, &limits);
    let mut client = Smtp::greeted(portcullis.mx);
    let message = letter("first");
    let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    std::thread::sleep(Duration::from_secs(4));
    let recipient = "RCPT TO:<b@example.org>\r\n";
    let group = format!(
        "MAIL FROM:<a@sender.test>\r\n{}DATA\r\n",
        recipient.repeat(3)
    );
    client.send(group.as_bytes());
    for code in ["250", "250", "250", "250", "354"] {
        client.expect(code);
    }
    client.send(b"text\r\n.\r\n");
    client.expect("250");
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<b@example.org>", "452");
}

#[test]
fn recipients_of_a_group_are_counted_once() {
    let backend = Scripted::start(&[("EHLO", &[Act::Say("250-scripted.test\r\n250 PIPELINING")])]);
    let portcullis = Portcullis::guarding(
        backend.address,
        &[("LIMIT_EXEMPT", ""), ("RCPT_RATE", "1/h burst 3")],
    );
    let mut client = Smtp::greeted(portcullis.mx);
    let recipients: String = (0..4)
        .map(|n| format!("RCPT TO:<x{n}@example.org>\r\n"))
        .collect();
    client.send(format!("MAIL FROM:<a@b.test>\r\n{recipients}").as_bytes());
    for code in ["250", "250", "250", "250", "452"] {
        client.expect(code);
    }
    // Refused once more, and not for having been asked twice.
    client.ask("RCPT TO:<x3@example.org>", "452");
    let told = &backend.transactions(1)[0];
    assert_eq!(told.matches("RCPT TO").count(), 3, "{told}");
}
