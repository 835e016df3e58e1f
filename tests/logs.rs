//! The log as an admin reads it: every refusal is in it, no secret is, and no
//! client writes into it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use support::{Act, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{between, letter, run, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Refuses one mailbox, and names it in the refusal as many servers do.
const REFUSES_CARL: (&str, &[Act]) = (
    "RCPT TO:<carl",
    &[Act::Say(
        "550 5.1.1 <carl@example.org>: no such user, 127.9.8.7",
    )],
);

/// The id that a reply carries in brackets.
#[track_caller]
fn session_id(reply: &str) -> String {
    let id = reply
        .rsplit_once('[')
        .and_then(|(_, id)| id.split_once(']'));
    let (id, _) = id.unwrap_or_else(|| panic!("no session id in `{reply}`"));
    assert_eq!(id.len(), 12, "`{reply}`");
    id.to_owned()
}

/// The lines of one session that say `message`.
fn of_session(log: &[Value], id: &str, message: &str) -> Vec<Value> {
    let its = |line: &&Value| line["session"] == id && line["message"] == message;
    log.iter().filter(its).cloned().collect()
}

/// Waits until the session has left its last line.
#[track_caller]
fn log_of(portcullis: &Portcullis, id: &str) -> Vec<Value> {
    let ended = wait_for(Duration::from_secs(10), || {
        // The line being written at this moment is no JSON yet.
        let log = portcullis.log();
        let line = log.lines().find(|line| {
            line.contains(id) && line.contains("\"message\":\"session\"") && line.ends_with('}')
        });
        line.map(drop)
    });
    assert!(ended.is_some(), "no end of {id} in\n{}", portcullis.log());
    portcullis.log_lines()
}

#[test]
fn every_refusal_is_logged_with_its_reason_and_the_id_that_the_client_heard() {
    let backend = Scripted::start(&[REFUSES_CARL]);
    let portcullis = Portcullis::guarding(backend.address, &[("ERROR_MAX", "5")]);
    let mut client = Smtp::connect(portcullis.mx);
    let id = session_id(&client.expect("220"));
    let dialog = [
        ("MAIL FROM:<ann@sender.test>", "503 5.5.1", "sequence"),
        ("EHLO client.test", "250", ""),
        ("FROB", "500 5.5.2", "unknown-verb"),
        ("XCLIENT ADDR=192.0.2.1", "502 5.5.1", "forbidden-verb"),
        ("VRFY bob", "502 5.5.1", "verb-disabled"),
        ("AUTH PLAIN", "538 5.7.11", "auth-needs-tls"),
        ("MAIL FROM:<ann@sender.test>", "250", ""),
        ("RCPT TO:<victim@foreign.test>", "550 5.7.1", "relay-denied"),
        ("RCPT TO:<carl@example.org>", "550 5.1.1", "backend"),
        ("DATA", "503 5.5.1", "sequence"),
        ("FROB", "421 4.7.0", "errors"),
    ];
    for (line, code, reason) in dialog {
        let reply = client.ask(line, code);
        if !reason.is_empty() {
            assert_eq!(session_id(&reply), id);
        }
    }
    assert_eq!(client.rest(), "");

    let log = log_of(&portcullis, &id);
    let logged: Vec<_> = of_session(&log, &id, "refused")
        .iter()
        .map(|line| {
            (
                line["reason"].clone(),
                line["reply"].as_str().unwrap()[..3].to_owned(),
            )
        })
        .collect();
    let heard: Vec<_> = dialog
        .iter()
        .filter(|(_, _, reason)| !reason.is_empty())
        .map(|(_, code, reason)| (Value::from(*reason), code[..3].to_owned()))
        .collect();
    assert_eq!(logged, heard);
    let session = &of_session(&log, &id, "session")[0];
    assert_eq!(session["refusals"], heard.len());
    assert_eq!(session["helo"], "client.test");
}

#[test]
fn a_refused_message_is_logged_with_its_envelope_and_reply() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::connect(portcullis.mx);
    let id = session_id(&client.expect("220"));
    client.ask("EHLO client.test", "250");
    client.open_data("ann@sender.test", "bob@example.org");
    client.send(b"one\ntwo\r\n.\r\n");
    assert_eq!(session_id(&client.expect("554 5.6.0")), id);
    client.ask("QUIT", "221");

    let log = log_of(&portcullis, &id);
    assert_eq!(of_session(&log, &id, "refused")[0]["reason"], "bare-lf");
    let message = &of_session(&log, &id, "message")[0];
    assert_eq!(message["from"], "ann@sender.test");
    assert_eq!(message["to"], "bob@example.org");
    assert_eq!(message["outcome"], "refused");
}

/// Postfix refuses one sender at MAIL and another at DATA.
const REFUSES_SENDERS: &str = "\
smtpd_delay_reject = no
smtpd_sender_restrictions = check_sender_access inline:{mallory@sender.test=REJECT}
smtpd_data_restrictions = check_sender_access inline:{dave@sender.test=REJECT}";

/// A session's lines about mail, with what tells people whose it was.
fn about_mail(log: &[Value], id: &str) -> Vec<String> {
    let said = log.iter().filter(|line| line["session"] == id);
    let said = said.filter(|line| {
        ["refused", "message"]
            .iter()
            .any(|it| line["message"] == *it)
    });
    said.map(|line| {
        let field = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        let what = match line["message"] == "refused" {
            true => format!("{} {}", field("at"), field("reason")),
            false => format!("{} {}", field("outcome"), line["octets"]),
        };
        let reply = field("reply");
        let code = reply.get(..3).unwrap_or(&reply);
        format!("{what} {} {} {code}", field("from"), field("to"))
    })
    .collect()
}

#[test]
fn whose_mail_was_refused_and_why_is_logged_wherever_it_was_refused() {
    let postfix = Postfix::start(Options {
        extra: REFUSES_SENDERS,
        ..Options::default()
    });
    let nobody = support::free_address().to_string();
    let scanned = [("CLAMAV", nobody.as_str()), ("SCAN_FAIL", "open")];
    for scanners in [&[][..], &scanned] {
        let settings = [&[("RCPT_MAX", "1"), ("MAX_SIZE", "1000")], scanners].concat();
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::connect(portcullis.mx);
        let id = session_id(&client.expect("220"));
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<ann@sender.test> SIZE=1001", "552");
        client.ask("MAIL FROM:<mallory@sender.test>", "554");
        client.ask("RCPT TO:<bob@example.org>", "554");
        client.ask("MAIL FROM:<dave@sender.test>", "250");
        client.ask("RCPT TO:<bob@example.org>", "250");
        client.ask("RCPT TO:<carl@example.org>", "452");
        client.say("DATA");
        if !scanners.is_empty() {
            client.expect("354");
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
        }
        client.expect("554");
        client.ask("DATA", "503");
        client.ask("QUIT", "221");
        let octets = if scanners.is_empty() { 0 } else { 17 };
        let dave = "dave@sender.test bob@example.org 554";
        assert_eq!(
            about_mail(&log_of(&portcullis, &id), &id),
            [
                "MAIL too-large ann@sender.test - 552",
                "MAIL backend mallory@sender.test - 554",
                "RCPT backend mallory@sender.test bob@example.org 554",
                "RCPT recipients dave@sender.test carl@example.org 452",
                &format!("refused by the backend {octets} {dave}"),
                "DATA backend dave@sender.test - 554",
                "DATA sequence - - 503",
            ]
        );
        let metrics = portcullis.metrics();
        let counted = "portcullis_messages_total{outcome=\"refused by the backend\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
    }
}

#[test]
fn a_message_in_chunks_that_never_ends_is_logged_with_its_envelope() {
    let postfix = Postfix::start(Options::default());
    let nobody = support::free_address().to_string();
    let scanned = [("CLAMAV", nobody.as_str()), ("SCAN_FAIL", "open")];
    for scanners in [&[][..], &scanned] {
        let settings = [&[("MAX_SIZE", "1000")], scanners].concat();
        let portcullis = Portcullis::before(&postfix, &settings);
        let logged_of = |chunks: &[(&str, &str)], last: Option<&str>| {
            let mut client = Smtp::connect(portcullis.mx);
            let id = session_id(&client.expect("220"));
            client.ask("EHLO client.test", "250");
            client.ask("MAIL FROM:<ann@sender.test>", "250");
            client.ask("RCPT TO:<bob@example.org>", "250");
            for (size, code) in chunks {
                client.say(&format!("BDAT {size}"));
                client.send("x".repeat(size.parse().unwrap()).as_bytes());
                client.expect(code);
            }
            if let Some(last) = last {
                client.say(last);
                client.reply();
            }
            drop(client);
            about_mail(&log_of(&portcullis, &id), &id)
        };
        let ann = "ann@sender.test bob@example.org";
        let too_large = |octets: u32| {
            let refused = "BDAT too-large ann@sender.test - 552".to_owned();
            vec![format!("refused {octets} {ann} 552"), refused]
        };
        assert_eq!(logged_of(&[("1001", "552")], None), too_large(1001));
        let two = [("600", "250"), ("500", "552")];
        assert_eq!(logged_of(&two, None), too_large(1100));
        // Not worth being read to its end.
        assert_eq!(logged_of(&[], Some("BDAT 9999999")), too_large(0));
        let gone = [format!("client gone 600 {ann} -")];
        for last in [None, Some("RSET"), Some("QUIT")] {
            assert_eq!(logged_of(&[("600", "250")], last), gone, "{last:?}");
        }
    }
}

#[test]
fn clients_closed_without_a_word_and_clients_without_room_are_logged() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("SESSIONS_MAX", "2")]);
    let admitted = || Smtp::admitted(portcullis.mx);
    let (mut first, _second) = (admitted(), admitted());
    let turned_away = session_id(&Smtp::connect(portcullis.mx).expect("421 4.7.0"));
    first.say("GET / HTTP/1.1");
    assert_eq!(first.rest(), "");

    let log = portcullis.log_with("foreign-protocol");
    let refusal = log.lines().find(|line| line.contains(&turned_away));
    let refusal: Value = serde_json::from_str(refusal.expect(&log)).unwrap();
    assert_eq!(refusal["message"], "refused");
    assert_eq!(refusal["reason"], "sessions-max");
}

#[test]
fn no_password_and_no_auth_line_is_in_the_log_even_at_trace() {
    const PASSWORD: &str = "correct-horse-7391";
    const WRONG: &str = "battery-staple-5528";
    let postfix = Postfix::start(Options {
        users: &[("ann", PASSWORD)],
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[("LOG_LEVEL", "trace")]);
    let servers = [
        (portcullis.submission.to_string(), "--tls"),
        (portcullis.tls.to_string(), "--tls-on-connect"),
    ];
    for (server, tls) in &servers {
        for mechanism in ["PLAIN", "LOGIN"] {
            for password in [PASSWORD, WRONG] {
                let mut arguments = vec!["--server", server, tls, "--auth", mechanism];
                arguments.extend(["--auth-user", "ann", "--auth-password", password]);
                arguments.extend(["--from", "ann@sender.test", "--to", "bob@example.org"]);
                let sent = run("swaks", &arguments, b"", PATIENCE);
                assert_eq!(sent.success(), password == PASSWORD, "{}", sent.output());
            }
        }
    }
    // Odd forms: in plain, malformed, as a challenge's answer that is no base64.
    let plain = |password| BASE64.encode(format!("\0ann\0{password}"));
    let mut client = Smtp::greeted(portcullis.mx);
    let id = session_id(&client.ask(&format!("AUTH PLAIN {}", plain(PASSWORD)), "538"));
    client.start_tls();
    client.ask(&format!("AUTH PLAIN {PASSWORD} {PASSWORD}"), "501");
    client.ask(&format!("AUTHPLAIN {PASSWORD}"), "500");
    client.ask(&format!("AUTH X-{PASSWORD} {}", plain(PASSWORD)), "5");
    client.ask("AUTH LOGIN", "334");
    client.ask(PASSWORD, "501");
    client.ask("QUIT", "221");

    log_of(&portcullis, &id);
    let log = portcullis.log();
    assert_eq!(log.matches("\"outcome\":\"delivered\"").count(), 4);
    for password in [PASSWORD, WRONG] {
        // LOGIN sends the password by itself, PLAIN behind two NUL and the name.
        let encoded = BASE64.encode(password);
        for secret in [password, &encoded, &plain(password)] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "`{secret}` is in the log");
        }
    }
    // The name that LOGIN sends: no line of an exchange is logged.
    assert!(!log.contains(&BASE64.encode("ann")));
}

/// What a hostile client sends to have a line of its own in the log.
const FORGERIES: &[&str] = &[
    "EHLO x\",\"forged\":\"yes",
    "EHLO x\x1b[2J\x07",
    "EHLO x\x0bforged=yes",
    "EHLO client.test",
    "MAIL FROM:<ann@sender.test> SMTPUTF8",
    "MAIL FROM:<ann@sender.test>",
    r#"RCPT TO:<"\",\"forged\":\"yes"@foreign.test>"#,
    "RCPT TO:<\"a forged=yes \x1b[2J\"@foreign.test>",
    "RCPT TO:<\"b\u{85}\u{2028}\u{202e}forged=yes\"@foreign.test>",
    "RCPT TO:<b\u{85}\u{2028}forged=yes@foreign.test>",
    "FROB\x1b]0;forged\x07",
    "QUIT",
];

#[test]
fn no_client_forges_a_log_line() {
    let backend = Scripted::start(&[
        (
            "EHLO",
            &[Act::Say(
                "250-scripted.test\r\n250-8BITMIME\r\n250 SMTPUTF8",
            )],
        ),
        REFUSES_CARL,
    ]);
    for format in ["json", "text"] {
        let portcullis = Portcullis::guarding(
            backend.address,
            &[("LOG_FORMAT", format), ("LOG_LEVEL", "trace")],
        );
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        for line in FORGERIES {
            client.say(line);
            client.reply();
        }
        portcullis.log_with("relay-denied");
        let log = portcullis.log_with("quit");
        let hidden = |octet: char| octet != '\n' && (octet.is_control() || octet == '\u{2028}');
        assert!(!log.contains(hidden), "{log:?}");
        match format {
            "json" => {
                for line in portcullis.log_lines() {
                    assert!(line.get("forged").is_none(), "{line}");
                }
            }
            _ => {
                for line in log.lines() {
                    assert!(
                        line.starts_with("20") && line[10..].starts_with('T'),
                        "{line}"
                    );
                    // A forged field would stand outside of quotes.
                    assert_eq!(outside_quotes(line).find("forged"), None, "{line}");
                }
            }
        }
    }
}

/// The text of a log line without its quoted values.
fn outside_quotes(line: &str) -> String {
    let line = line.replace(r"\\", "").replace(r#"\""#, "");
    line.split('"').step_by(2).collect()
}

#[test]
fn text_format_has_one_readable_line_for_each_event() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("LOG_FORMAT", "text")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    let reply = client.ask("RCPT TO:<victim@foreign.test>", "550");
    let id = session_id(&reply);
    let log = portcullis.log_with("relay-denied");
    let line = log
        .lines()
        .find(|line| line.contains("relay-denied"))
        .unwrap();
    for part in [
        " INFO ",
        " refused ",
        "reason=relay-denied",
        "to=victim@foreign.test",
    ] {
        assert!(line.contains(part), "no `{part}` in `{line}`");
    }
    assert_eq!(between(line, "session=", " "), Some(id.as_str()));
    assert!(!log.contains('\x1b'), "colours in a file");
}

/// A session with a delivery, a refusal of ours and one of the backend's; its log.
fn log_with_addresses(how: &str) -> String {
    let backend = Scripted::start(&[REFUSES_CARL]);
    let portcullis = Portcullis::guarding(
        backend.address,
        &[("LOG_ADDRESSES", how), ("LOG_LEVEL", "debug")],
    );
    let mut client = Smtp::connect_from(Ipv4Addr::new(127, 9, 8, 7), portcullis.mx);
    let id = session_id(&client.expect("220"));
    client.ask("EHLO [127.9.8.7]", "250");
    client.ask("MAIL FROM:<karla@sender.test> SIZE=99999999", "552");
    client.ask("MAIL FROM:<karla@sender.test>", "250");
    client.ask("RCPT TO:<victim@foreign.test>", "550");
    client.ask("RCPT TO:<carl@example.org>", "550");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("DATA", "354");
    client.send(format!("{}.\r\n", "Subject: x\r\n\r\nx\r\n").as_bytes());
    client.expect("250");
    client.ask("QUIT", "221");
    log_of(&portcullis, &id);
    portcullis.log()
}

#[test]
fn log_addresses_full_shows_client_and_mailboxes() {
    let log = log_with_addresses("full");
    for address in [
        "\"127.9.8.7:",
        "karla@sender.test",
        "victim@foreign.test",
        "bob@example.org",
    ] {
        assert!(log.contains(address), "no `{address}` in\n{log}");
    }
}

#[test]
fn log_addresses_masked_hashed_and_none_hide_client_and_mailboxes() {
    for how in ["masked", "hashed", "none"] {
        let log = log_with_addresses(how);
        for address in ["127.9.8.7", "karla", "victim", "carl", "bob"] {
            let line = log.lines().find(|line| line.contains(address));
            assert_eq!(line, None, "{how} shows `{address}`");
        }
        let shown = match how {
            "masked" => &["\"127.9.8.0/24\"", "k***@sender.test", "b***@example.org"][..],
            "none" => &["\"client\":\"-\"", "\"from\":\"-\"", "\"to\":\"-\""],
            _ => &[],
        };
        for text in shown {
            assert!(log.contains(text), "no `{text}` in\n{log}");
        }
    }
}

/// Postfix names the client when it has too many connections of it.
#[test]
fn what_a_backend_says_of_the_client_is_hidden_with_it() {
    let acts: &[(&str, &[Act])] = &[
        ("EHLO", &[Act::Say("250-x.test\r\n250 XCLIENT ADDR")]),
        (
            "XCLIENT",
            &[Act::Say(
                "421 4.7.0 x.test too many connections from 127.9.8.7",
            )],
        ),
    ];
    for (how, is_shown) in [("full", true), ("masked", false)] {
        let backend = Scripted::start(acts);
        let settings = [("CLIENT_INFO", "xclient"), ("LOG_ADDRESSES", how)];
        let portcullis = Portcullis::guarding(backend.address, &settings);
        let mut client = Smtp::connect_from([127, 9, 8, 7].into(), portcullis.mx);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client.ask("MAIL FROM:<a@sender.test>", "4");
        let log = portcullis.log_with("\"reason\":\"backend\"");
        assert_eq!(log.matches("421 4.7.0").count(), 2, "{log}");
        let shown = log.contains("too many connections from 127.9.8.7");
        assert_eq!(shown, is_shown, "{how}\n{log}");
        assert_eq!(log.contains("127.9.8.7"), is_shown, "{how}\n{log}");
    }
}

#[test]
fn log_addresses_masked_hides_the_name_of_a_user_and_his_mail() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[("LOG_ADDRESSES", "masked")]);
    let mut client = Smtp::connect_tls(portcullis.tls);
    let id = session_id(&client.expect("220"));
    client.ask("EHLO client.test", "250");
    let login = BASE64.encode("\0ann@portcullis.test\0secret");
    client.ask(&format!("AUTH PLAIN {login}"), "235");
    let reply = client.deliver(
        "karla@sender.test",
        "bob@example.org",
        letter("m").as_bytes(),
    );
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    let log = log_of(&portcullis, &id);
    let message = &of_session(&log, &id, "message")[0];
    assert_eq!(message["user"], "a***@portcullis.test");
    assert_eq!(message["from"], "k***@sender.test");
}
