//! What is delivered of a message that was judged: marks, no forged marks, and the
//! changes that scanners and milters ask for; and milters that refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use support::{
    Arrived, Opendkim, Options, Portcullis, Postfix, Pymilter, Rspamd, Smtp, Spamd, fields,
    first_difference, free_address, heard, letter, spam,
};

/// A loaded machine may take its time.
const PATIENT: (&str, &str) = ("SCAN_TIMEOUT", "5min");

#[test]
fn spam_is_marked_and_forged_marks_are_gone() {
    let postfix = Postfix::start(Options::default());
    let spamd = Spamd::start(&["body WATCHES /cheap watches/", "score WATCHES 9"]);
    let address = spamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("SPAMASSASSIN", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    for (subject, text, flag) in [
        ("marked", "Buy cheap watches\r\n", "YES"),
        ("unmarked", "", "NO"),
    ] {
        let genuine = letter(subject) + text;
        let forged = format!(
            "X-Spam-Flag: NO\r\n\
             x-spam-status: No, score=-99.9 required=5.0\r\n\ttests=NOTHING\r\n\
             X-SPAM-SCORE : -99.9\r\n\
             X-Spam-Level:\r\n\
             X-Portcullis-Scan: forged\r\n{genuine}"
        );
        let reply = client.deliver("a@sender.test", "b@example.org", forged.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        let arrived = Arrived::at(&postfix, genuine.as_bytes());
        let names = ["X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"];
        assert_eq!(arrived.names(), names);
        assert_eq!(arrived.added[0], format!("X-Spam-Flag: {flag}"));
        let status = &arrived.added[2];
        assert_eq!(status.contains("WATCHES"), flag == "YES", "{status}");
        assert!(status.contains("required=5.0"), "{status}");
    }
}

#[test]
fn changes_that_rspamd_asks_for_are_made() {
    let rules = r#"
rspamd_config:register_symbol({ name = 'CHANGES', type = 'prefilter', callback = function(task)
  task:set_milter_reply({
    add_headers = { ['X-Rcpt'] = (task:get_recipients('smtp') or {})[1].addr },
    remove_headers = { ['X-Gone'] = 0 },
  })
  task:set_metric_subject('[spam] this letter')
  task:set_pre_result({ action = 'rewrite subject', message = 'test', module = 'test' })
end })"#;
    let (postfix, rspamd) = (Postfix::start(Options::default()), Rspamd::start(rules));
    let address = format!("http://{}", rspamd.address);
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("RSPAMD", &address)]);
    let sent = format!("X-Gone: 1\r\nX-Kept: 2\r\n{}", letter("rename-me"));
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    let header = fields(&arrived);
    for field in ["X-Spam-Flag: YES", "X-Kept: 2", "X-Rcpt: b@example.org"] {
        assert!(header.iter().any(|it| it == field), "{header:#?}");
    }
    let subjects: Vec<_> = header
        .iter()
        .filter(|it| it.starts_with("Subject:"))
        .collect();
    assert!(
        subjects.len() == 1 && subjects[0].contains("spam"),
        "{header:#?}"
    );
    assert!(!arrived.contains("X-Gone") && !arrived.contains("Subject: rename-me"));
    let (_, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(arrived.ends_with(&format!("\r\n\r\n{body}")), "{arrived}");
}

/// rspamd's proxy worker as its package sets it up, but that it scans by itself.
/// It says that it changes recipients, whatever it is offered.
#[test]
fn rspamd_can_be_asked_as_a_milter() {
    let address = free_address();
    let worker = format!(
        r#"worker "rspamd_proxy" {{
    bind_socket = "{address}";
    .include "/etc/rspamd/worker-proxy.inc"
    .include(priority=1,duplicate=merge) "$LOCAL_CONFDIR/local.d/worker-proxy.inc"
}}"#
    );
    let own = [
        ("rspamd.conf.local", worker.as_str()),
        (
            "local.d/worker-proxy.inc",
            "upstream \"local\" { self_scan = yes; }",
        ),
        (
            "local.d/milter_headers.conf",
            "extended_spam_headers = true; skip_local = false;",
        ),
    ];
    let rules = r#"
rspamd_config:register_symbol({ name = 'REDIRECT', type = 'prefilter', callback = function(task)
  if task:get_subject() == 'redirect' then
    task:set_milter_reply({ add_rcpt = { 'archive@example.org' } })
  end
end })"#;
    let (postfix, _rspamd) = (
        Postfix::start(Options::default()),
        Rspamd::with(rules, &own),
    );
    let portcullis = guard(&postfix, &[address]);
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = client.deliver("a@sender.test", "b@example.org", spam("gtube").as_bytes());
    assert!(reply.starts_with("554 5.7.1 Gtube pattern"), "{reply}");

    // More often than it takes to put a scanner out of service.
    for _ in 0..5 {
        let sent = letter("redirect");
        let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
        assert!(reply.starts_with("451 4.7.1"), "{reply}");
    }
    portcullis.log_with("wants to add a recipient, which was not offered");

    let sent = letter("clean");
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = String::from_utf8(postfix.message()).unwrap();
    let header = fields(&arrived);
    for name in ["X-Spamd-Result: default: False", "X-Rspamd-Queue-Id: "] {
        assert!(header.iter().any(|it| it.starts_with(name)), "{header:#?}");
    }
    let (_, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(arrived.ends_with(&format!("\r\n\r\n{body}")), "{arrived}");
    client.ask("QUIT", "221");
    assert_eq!(heard(&postfix, ["data", "mail"], 1), [1, 7]);
}

/// Its controller demands one of whoever is not in `secure_ip`.
#[test]
fn rspamd_is_told_the_password_that_it_demands() {
    let address = free_address();
    let worker = format!(
        r#"worker "controller" {{ bind_socket = "{address}"; password = "q1w2e3"; secure_ip = "192.0.2.99"; }}"#
    );
    let own = [("rspamd.conf.local", worker.as_str())];
    let (postfix, _rspamd) = (Postfix::start(Options::default()), Rspamd::with("", &own));
    let address = format!("http://{address}");
    for (password, expected) in [
        ("q1w2e3", "550 5.7.1 Gtube pattern"),
        ("q1w2e4", "451 4.7.1"),
    ] {
        let settings = [PATIENT, ("RSPAMD", &address), ("RSPAMD_PASSWORD", password)];
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::greeted(portcullis.mx);
        let reply = client.deliver("a@sender.test", "b@example.org", spam(password).as_bytes());
        assert!(reply.starts_with(expected), "{reply}\n{}", portcullis.log());
    }
}

/// Before `postfix`, with these milters.
fn guard(postfix: &Postfix, milters: &[std::net::SocketAddr]) -> Portcullis {
    let milters: Vec<_> = milters.iter().map(|it| format!("inet:{it}")).collect();
    Portcullis::before(postfix, &[PATIENT, ("MILTERS", &milters.join(", "))])
}

fn doing(what: &[&str], subject: &str) -> String {
    let fields = what.iter().map(|what| format!("X-Do: {what}\r\n"));
    fields.collect::<String>() + "X-Old: 1\r\nX-Old: 2\r\n" + &letter(subject)
}

#[test]
fn opendkim_has_its_result_put_in_front() {
    let (postfix, opendkim) = (Postfix::start(Options::default()), Opendkim::start());
    let portcullis = guard(&postfix, &[opendkim.address]);
    let mut client = Smtp::greeted(portcullis.mx);
    let signed = opendkim.signed_elsewhere(&letter("signed"));
    let broken = signed.replace("Dear Bob", "Dear Eve");
    for (sent, result) in [
        (signed.as_str(), "dkim=pass"),
        (&broken, "dkim=fail"),
        (&letter("unsigned"), "dkim=none"),
    ] {
        let reply = client.deliver("a@example.com", "b@example.org", sent.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        let arrived = Arrived::at(&postfix, sent.as_bytes());
        assert_eq!(arrived.names(), ["Authentication-Results"]);
        assert!(arrived.added[0].contains(result), "{arrived:?}");
    }
}

#[test]
fn a_milter_refuses_in_its_own_words_and_never_swallows() {
    let (postfix, pymilter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let portcullis = guard(&postfix, &[pymilter.address]);
    let mut client = Smtp::greeted(portcullis.mx);
    for (what, expected) in [
        ("reply", "554-5.7.1 100% certain\n554 5.7.1 of it"),
        ("reject", "550 5.7.1 Message refused by content filter"),
        ("discard", "554 5.7.1 Message refused by a content filter"),
    ] {
        let message = doing(&[what], what);
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with(expected), "{reply}");
    }
    // Of the envelope; the client hears of it behind its message.
    let message = letter("envelope");
    let reply = client.deliver("later@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("451 4.7.1"), "{reply}");
    let reply = client.deliver("a@sender.test", "worded@example.org", message.as_bytes());
    assert!(reply.starts_with("550 5.1.1 No such person"), "{reply}");

    let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    Arrived::at(&postfix, message.as_bytes());
    assert_eq!(heard(&postfix, ["data", "mail"], 1), [1, 6]);
}

#[test]
fn a_milters_changes_are_made() {
    let pymilter = Pymilter::start(&[]);
    let milter = format!("inet:{}", pymilter.address);
    // Both bodies in memory; and on disk.
    for buffer in ["256K", "1"] {
        let postfix = Postfix::start(Options::default());
        let settings = [PATIENT, ("MILTERS", &milter), ("SPOOL_BUFFER", buffer)];
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::greeted(portcullis.mx);
        let todo = ["add", "insert", "change", "delete", "replace"];
        let sent = doing(&todo, "to-be-changed");
        let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");

        let (header, _) = sent.split_once("\r\n\r\n").unwrap();
        let header = header
            .replace("Subject: to-be-changed", "Subject: changed")
            .replace("X-Old: 2\r\n", "");
        let body = "new\r\n".repeat(30_000);
        let expected = format!("X-First: here\r\n{header}\r\nX-Added: one\r\n\ttwo\r\n\r\n{body}");
        let arrived = postfix.message();
        let at = arrived.windows(8).position(|it| it == b"X-First:").unwrap();
        let difference = first_difference(expected.as_bytes(), &arrived[at..]);
        assert_eq!(difference, None, "SPOOL_BUFFER={buffer}");
    }
}

/// It is the filter's to say what is delivered, so the old body is no substitute.
#[test]
fn a_new_body_without_room_defers_the_message_and_blames_no_filter() {
    let (postfix, pymilter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let milter = format!("inet:{}", pymilter.address);
    let settings = [
        PATIENT,
        ("MILTERS", milter.as_str()),
        ("SPOOL_BUFFER", "16K"),
        ("SPOOL_DISK", "100K"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    // More often than a scanner may fail.
    for _ in 0..12 {
        let sent = doing(&["replace"], "no-room");
        let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
        assert!(reply.starts_with("451 4.7.1"), "{reply}");
    }
    let log = portcullis.log();
    assert!(
        log.contains("its new body cannot be held: no room"),
        "{log}"
    );

    let sent = letter("room");
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    assert!(Arrived::at(&postfix, sent.as_bytes()).added.is_empty());
    assert_eq!(heard(&postfix, ["data", "mail"], 1), [1, 13]);
}

#[test]
fn a_milters_quarantine_is_a_mark() {
    let (postfix, pymilter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let portcullis = guard(&postfix, &[pymilter.address]);
    let mut client = Smtp::greeted(portcullis.mx);
    let sent = doing(&["quarantine"], "odd");
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    let marks = [
        "X-Spam-Flag: YES",
        "X-Spam-Status: Yes, quarantine=milter-1",
    ];
    assert_eq!(arrived.added, marks);
}

/// Each sees what the sender sent, and the changes of all are made.
#[test]
fn milters_are_asked_in_order_until_one_refuses() {
    let (postfix, opendkim) = (Postfix::start(Options::default()), Opendkim::start());
    let pymilter = Pymilter::start(&[]);
    let portcullis = guard(&postfix, &[opendkim.address, pymilter.address]);
    let mut client = Smtp::greeted(portcullis.mx);
    let sent = doing(&["insert"], "both");
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    let mut names = arrived.names();
    names.sort_unstable();
    assert_eq!(names, ["Authentication-Results", "X-First"]);

    let portcullis = guard(&postfix, &[pymilter.address, opendkim.address]);
    let mut client = Smtp::greeted(portcullis.mx);
    let refused = doing(&["reject"], "refused");
    let reply = client.deliver("a@sender.test", "b@example.org", refused.as_bytes());
    assert!(reply.starts_with("550"), "{reply}");
    let log = portcullis.log_with("\"scanned\"");
    assert!(
        log.contains("milter-1 refuse") && !log.contains("milter-2"),
        "{log}"
    );
}

/// By the macros it learns who has signed in; what it signs must leave unchanged.
#[test]
fn opendkim_signs_for_a_client_that_has_signed_in() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let opendkim = Opendkim::start();
    let portcullis = guard(&postfix, &[opendkim.address]);
    let mut client = Smtp::connect(portcullis.submission);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.start_tls();
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", "235");
    let sent = letter("signed").replace("ann@sender.test", "ann@example.com");
    let reply = client.deliver("ann@example.com", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    assert_eq!(arrived.names(), ["DKIM-Signature"]);
    let arrived = String::from_utf8(postfix.message()).unwrap();
    let at = arrived.find("DKIM-Signature:").unwrap();
    assert!(opendkim.is_good_elsewhere(&arrived[at..]), "{arrived}");
}

/// A filter's words like to name the mailbox that they are about.
#[test]
fn words_of_a_milter_that_name_a_mailbox_stay_out_of_a_log_without_mailboxes() {
    let (postfix, pymilter) = (Postfix::start(Options::default()), Pymilter::start(&[]));
    let milter = format!("inet:{}", pymilter.address);
    for (addresses, mode, shown) in [
        ("full", "enforce", true),
        ("none", "enforce", false),
        ("masked", "monitor", false),
    ] {
        let settings = [
            PATIENT,
            ("MILTERS", milter.as_str()),
            ("LOG_ADDRESSES", addresses),
            ("MODE", mode),
        ];
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::greeted(portcullis.mx);
        client.ask("MAIL FROM:<a@sender.test>", "250");
        client.ask("RCPT TO:<b@example.org>", "250");
        client.ask("RCPT TO:<refused@example.org>", "250");
        client.ask("DATA", "354");
        client.send(&support::dot_stuffed(letter("named").as_bytes()));
        let reply = client.reply();
        if mode == "enforce" {
            assert!(reply.contains("refuses <refused@example.org>"), "{reply}");
        }
        client.ask("QUIT", "221");
        let log = portcullis.log_with("\"end\":\"quit\"");
        assert_eq!(log.contains("refused@"), shown, "{addresses}: {log}");
        assert!(log.contains("550 5.7.1"), "{log}");
    }
}
