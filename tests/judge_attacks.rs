//! What an attacker tries on the judge, and what an honest sender must not
//! suffer from it: through the whole proxy, real scanners, a real Postfix.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use support::{
    Clamd, Opendkim, Options, Portcullis, Postfix, Pymilter, Smtp, Spamd, attachment, eicar, letter,
};

/// Says that the signature of a bank is good, in the name of our own filter.
const FORGED: &str = "Authentication-Results: mx.example.org; dkim=pass header.d=bank.test\r\n";

/// What arrives, if anything, of a forged result behind `front`.
fn arrives_behind_opendkim(front: &str) -> Option<String> {
    let (postfix, opendkim) = (Postfix::start(Options::default()), Opendkim::start());
    let milter = format!("inet:{}", opendkim.address);
    let portcullis = Portcullis::before(&postfix, &[("MILTERS", &milter)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let message = format!("{front}{FORGED}{}", letter("forged"));
    let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    if reply.starts_with('5') {
        return None;
    }
    assert!(reply.starts_with("250"), "{reply}");
    Some(String::from_utf8(postfix.message()).unwrap())
}

#[track_caller]
fn does_not_survive(front: &str) {
    if let Some(arrived) = arrives_behind_opendkim(front) {
        let (header, _) = arrived.split_once("\r\n\r\n").unwrap();
        let start: String = header.chars().take(1500).collect();
        assert!(!header.contains("bank.test"), "{start}");
    }
}

#[test]
fn a_forged_result_does_not_survive_a_filter_that_takes_it_out() {
    let arrived = arrives_behind_opendkim("").unwrap();
    assert!(!arrived.contains("bank.test"), "{arrived}");
    assert!(arrived.contains("Authentication-Results: mx.example.org"));
}

#[test]
fn an_mbox_separator_hides_no_field_from_a_filter() {
    does_not_survive("From bob Tue Nov 24 10:00:00 2026\r\n");
    does_not_survive(">>From bob Tue Nov 24 10:00:00 2026\r\n");
}

#[test]
fn a_field_with_a_long_name_hides_none_from_a_filter() {
    does_not_survive(&format!("X-{}: x\r\n", "a".repeat(1000)));
}

#[test]
fn a_decoy_with_a_folded_name_shifts_no_index() {
    does_not_survive("Authentication-Results\r\n : other.test; dkim=none\r\n");
}

/// A header section that is too long to be edited must not pass unedited.
#[test]
fn many_lines_save_no_body_that_a_filter_replaces() {
    let (postfix, filter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let milter = format!("inet:{}", filter.address);
    let portcullis = Portcullis::before(&postfix, &[("MILTERS", &milter)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let many = "A:\r\n".repeat(20_001);
    let message = format!("X-Do: replace\r\n{many}{}", letter("poison"));
    let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    let few = "A:\r\n".repeat(2_000);
    let message = format!("X-Do: replace\r\n{few}{}", letter("poison"));
    let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    assert!(!arrived.contains("Dear Bob"));
}

/// Postfix waits five minutes for the next command, and ten seconds under
/// stress; a body may take longer.
/// To a filter, as to Postfix, the body begins at the first line that is no field.
#[test]
fn what_a_filter_saw_as_the_body_is_neither_edited_nor_kept() {
    let body = "WDVPIVAlQEFQWzRc\r\nX-Portcullis-A: A\r\nUFpYNTQoUF4pN0ND\r\n";
    let (postfix, pymilter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let milter = format!("inet:{}", pymilter.address);
    let portcullis = Portcullis::before(&postfix, &[("MILTERS", &milter)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let front = "Subject: odd\r\nX-Portcullis-B: B\r\n";
    // An odd line in front is a body, too.
    let odd = format!("X{}: y\r\n{front}{body}", " ".repeat(998));
    let reply = client.deliver("a@sender.test", "b@example.org", odd.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    let (header, rest) = arrived.split_once("\r\n\r\n").unwrap();
    assert!(!header.contains("Subject: odd"), "{header}");
    assert_eq!(rest, odd, "{header}");
    for (count, (does, expected)) in [("nothing", body), ("replace", "new\r\n")]
        .iter()
        .enumerate()
    {
        let message = format!("X-Do: {does}\r\n{front}{body}");
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        let arrived = postfix.messages(count + 2);
        let arrived = arrived
            .iter()
            .map(|message| String::from_utf8_lossy(message));
        let arrived: Vec<_> = arrived
            .filter(|it| it.contains(&format!("X-Do: {does}")))
            .collect();
        let (header, rest) = arrived[0].split_once("\r\n\r\n").unwrap();
        assert!(!header.contains("X-Portcullis-"), "{header}");
        assert!(rest.starts_with(expected), "{rest:.80}");
        assert_eq!(rest.contains("WDVP"), *does == "nothing", "{does}");
    }
}

#[test]
fn a_backend_that_tires_of_waiting_for_a_slow_body_gets_it_all_the_same() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_timeout = 1s\n",
        ..Options::default()
    });
    let clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[("CLAMAV", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    // In one group, so that Postfix tires of nothing before the body.
    client.send(
        b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@example.org>\r\n\
          RCPT TO:<c@example.org>\r\nDATA\r\n",
    );
    for code in ["250", "250", "250", "354"] {
        client.expect(code);
    }
    std::thread::sleep(Duration::from_secs(3));
    client.send(letter("slow").as_bytes());
    let reply = client.ask(".", "");
    assert!(reply.starts_with("250"), "{reply}\n{}", portcullis.log());
    assert_eq!(postfix.messages(2).len(), 2);
}

/// Who keeps a message in the spool must go on sending it: what came fast at
/// first buys no hours.
#[test]
fn a_burst_buys_no_right_to_keep_the_spool_with_drops() {
    const GRACE: Duration = Duration::from_secs(1);
    let postfix = Postfix::start(Options::default());
    let clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(
        &postfix,
        &[
            ("CLAMAV", &address),
            ("DATA_RATE_GRACE", "1s"),
            ("TIMEOUT_DATA", "2s"),
        ],
    );
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data("a@sender.test", "b@example.org");
    client.send(&b"0123456789abcdef\r\n".repeat(20_000));
    let began = Instant::now();
    client.wait_up_to(Duration::from_millis(200));
    let reply = loop {
        // It may meet a closed connection; what was said before that is there.
        drop(client.try_send(b"x"));
        match client.try_reply_or_end() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            told => break told.unwrap(),
        }
        let stays = began.elapsed() < Duration::from_secs(10);
        assert!(stays, "kept its place\n{}", portcullis.log());
    };
    assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    // Sooner, it would prove nothing of the pace.
    assert!(began.elapsed() >= GRACE, "{:?}", began.elapsed());
}

/// Nor does what is no chunk at all, nor a message that is passed on at once and
/// holds the backend instead.
#[test]
fn commands_between_chunks_buy_no_right_to_keep_a_message_half_sent() {
    let postfix = Postfix::start(Options::default());
    let clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let bounds = [("DATA_RATE_GRACE", "1s"), ("TIMEOUT_DATA", "2s")];
    let judging = [bounds.as_slice(), &[("CLAMAV", address.as_str())]].concat();
    let all = ["NOOP\r\n", "BDAT 1\r\nx", "BDAT 0\r\n"];
    let drops = [all[0], all[1]];
    // Postfix refuses an empty chunk.
    for (settings, manners) in [(judging.as_slice(), all.as_slice()), (&bounds, &drops)] {
        for between in manners {
            let portcullis = Portcullis::before(&postfix, settings);
            let mut client = Smtp::greeted(portcullis.mx);
            client.ask("MAIL FROM:<a@sender.test>", "250");
            client.ask("RCPT TO:<b@example.org>", "250");
            client.say("BDAT 100000");
            client.send(&[b'x'; 100_000]);
            client.expect("250");
            let began = Instant::now();
            let reply = loop {
                std::thread::sleep(Duration::from_millis(700));
                // It may meet a closed connection; what was said before that is there.
                drop(client.try_send(between.as_bytes()));
                let reply = client.reply();
                if !reply.starts_with("250") || began.elapsed() > Duration::from_secs(20) {
                    break reply;
                }
            };
            assert!(reply.starts_with("421 4.4.2 "), "{between}: {reply}");
            assert!(began.elapsed() >= Duration::from_secs(1), "{between}");
        }
    }
}

#[test]
fn small_chunks_far_apart_buy_no_right_to_keep_the_spool() {
    let postfix = Postfix::start(Options::default());
    let clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(
        &postfix,
        &[
            ("CLAMAV", &address),
            ("DATA_RATE_GRACE", "1s"),
            ("TIMEOUT_DATA", "2s"),
        ],
    );
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<b@example.org>", "250");
    client.say("BDAT 100000");
    client.send(&[b'x'; 100_000]);
    client.expect("250");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        // It may meet a closed connection; what was said before that is there.
        drop(client.try_send(b"BDAT 1\r\nx"));
        let reply = client.reply();
        if reply.starts_with("421 4.4.2 ") {
            return;
        }
        assert!(reply.starts_with("250"), "{reply}");
    }
    panic!("kept its place\n{}", portcullis.log());
}

/// What is put before the message for spamd must not make a separator behind it
/// the end of the header section.
#[test]
fn an_mbox_separator_hides_no_subject_from_spamd() {
    let postfix = Postfix::start(Options::default());
    let spamd = Spamd::start(&["header BAIT Subject =~ /lottery/", "score BAIT 50"]);
    let address = spamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[("SPAMASSASSIN", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    for front in ["", "From bob Tue Nov 24 10:00:00 2026\r\n", ">From bob\r\n"] {
        let message = format!("{front}{}", letter("lottery"));
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("550 5.7.1 "), "{front:?}: {reply}");
    }
}

/// clamd looks for attachments in what begins like mail; Postfix is told of the
/// client by XCLIENT, so that no trace field of ours stands before the message.
#[test]
fn a_message_that_begins_unlike_mail_hides_no_malware_from_clamd() {
    let postfix = Postfix::start(Options::default());
    let clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[("CLAMAV", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    let attached = attachment("hidden", eicar().as_bytes());
    // RFC 5322 2.2 asks for no space behind the colon, and mail programs for none.
    let (header, body) = attached.split_once("\r\n\r\n").unwrap();
    let close = format!("{}\r\n\r\n{body}", header.replace(": ", ":"));
    for message in [
        format!("a: b\r\n{close}"),
        format!("a: b\r\n{attached}"),
        format!("From bob Tue Nov 24 10:00:00 2026\r\n{close}"),
        format!(">From bob\r\n{close}"),
    ] {
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("554 5.7.1 "), "{reply}: {message}");
    }
}
