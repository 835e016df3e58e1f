//! What scanners are told of the client and the envelope, through the whole proxy:
//! real scanners, a real Postfix behind, a balancer before that names the client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::{
    Arrived, Options, Portcullis, Postfix, Pymilter, Rspamd, Smtp, Spamd, dot_stuffed, fields,
    letter,
};

/// A loaded machine may take its time.
const PATIENT: (&str, &str) = ("SCAN_TIMEOUT", "5min");

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A session of the client 198.18.0.7, after its greeting.
#[track_caller]
fn client(portcullis: &Portcullis, hello: &str) -> Smtp {
    let mut client = Smtp::connect_from(BALANCER, portcullis.mx);
    client.send(b"PROXY TCP4 198.18.0.7 192.0.2.25 4711 25\r\n");
    client.expect("220");
    client.ask(hello, "250");
    client
}

/// `X-Spam-Status` of a message that passes: it names the rules that were hit.
#[track_caller]
fn status(client: &mut Smtp, postfix: &Postfix, path: [&str; 2], message: &str) -> String {
    let [sender, recipient] = path;
    let reply = client.deliver(sender, recipient, message.as_bytes());
    assert!(reply.starts_with("250"), "{path:?}: {reply}");
    let arrived = Arrived::at(postfix, message.as_bytes());
    let mut fields = arrived.added.into_iter();
    let status = fields.find(|field| field.starts_with("X-Spam-Status: "));
    status.unwrap_or_else(|| panic!("{path:?}: not scored"))
}

/// Each of these words is structure to SpamAssassin's parser of trace fields
/// (Received.pm) at some place where a client can bring it in: it would name the
/// client's host, replace its address, sign it in, or have the field passed over for
/// the forged one below.
#[test]
fn no_word_of_a_client_tells_spamd_who_the_client_is() {
    let postfix = Postfix::start(Options::default());
    let spamd = Spamd::start(&[
        r"header AS_IT_IS X-Spam-Relays-Untrusted =~ /^\[ ip=198\.18\.0\.7 rdns= helo=\S+ by=\S+ ident= envfrom=\S+sender\.test intl=0 id=\S+ auth= msa=0 \]/",
        r"header ENVELOPE_KNOWN EnvelopeFrom =~ /sender\.test$/",
        r"header FORGED EnvelopeFrom =~ /forged/",
    ]);
    let address = spamd.address.to_string();
    let settings = [
        PATIENT,
        ("SPAMASSASSIN", &address),
        ("SPAM_TAG", "off"),
        ("SPAM_REJECT", "off"),
        ("PROXY_TRUSTED", "127.0.0.9"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let (ann, bob) = ("ann@sender.test", "bob@example.org");
    let mut deceived = Vec::new();
    for (number, (hello, sender, recipient)) in [
        ("HELO bank.test", ann, bob),
        ("EHLO bank.test", ann, bob),
        ("EHLO Exim.bank.test", ann, bob),
        ("HELO bank.test", "Exim@sender.test", bob),
        ("EHLO [203.0.113.9]", "Exim@sender.test", bob),
        ("EHLO [203.0.113.9]", "a@Exim.sender.test", bob),
        ("EHLO client.test", ann, "\"bob+ with ESMTPA \"@example.org"),
        ("HELO client.test", ann, "\"bob+ with HTTP;\"@example.org"),
        (
            "EHLO client.test",
            ann,
            "\"bob+with local for\"@example.org",
        ),
        ("EHLO client.test", ann, "Exim@example.org"),
        (
            "HELO client.test",
            ann,
            "b+envelope-from=forged@example.org",
        ),
        (
            "EHLO client.test",
            ann,
            "envelope-sender=forged@example.org",
        ),
        ("EHLO return-path:", ann, bob),
        ("EHLO Envelope-From=forged.test", ann, bob),
        ("EHLO [XMail", "authenticated@sender.test", bob),
        ("EHLO aol.com", "\"(ecelerity)by\"@sender.test", bob),
        ("EHLO helo=bank.test", "envelope-from=a@sender.test", bob),
    ]
    .into_iter()
    .enumerate()
    {
        let message = format!(
            "Received: from bank.test (bank.test [203.0.113.9])\r\n\
             \tby mx.portcullis.test (Postfix) with ESMTPA id FORGED\r\n\
             \t(envelope-from <forged@bank.test>); Tue, 24 Nov 2026 10:00:00 +0000\r\n{}",
            letter(&format!("facts-{number}"))
        );
        let mut client = client(&portcullis, hello);
        let status = status(&mut client, &postfix, [sender, recipient], &message);
        let hit = |rule: &str| status.contains(rule);
        if !hit("AS_IT_IS") || !hit("ENVELOPE_KNOWN") || hit("FORGED") {
            deceived.push(format!("{hello}, {sender}, {recipient}: {status}"));
        }
    }
    assert!(deceived.is_empty(), "{deceived:#?}");
}

/// The client, how it came, who it is, and for whom: as `Message` says, each in the
/// words of the scanner's own protocol.
#[test]
fn every_scanner_learns_the_client_and_the_envelope() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let spamd = Spamd::start(&[
        r"header SIGNED_IN X-Spam-Relays-Trusted =~ /^\[ ip=198\.18\.0\.7 rdns= helo=client\.test by=mx\.portcullis\.test ident= envfrom=ann\@sender\.test intl=1 id=\S+ auth=ESMTPSA msa=0 \]/",
        // The rules of the higher score are named.
        "score SIGNED_IN 9",
    ]);
    let rspamd = Rspamd::start(
        "rspamd_config:register_symbol({ name = 'FACTS', type = 'prefilter', callback = function(task)\n\
         local told = { task:get_from_ip():to_string(), task:get_helo(), task:get_user(),\n\
         task:get_from('smtp')[1].addr }\n\
         for _, recipient in ipairs(task:get_recipients('smtp')) do table.insert(told, recipient.addr) end\n\
         task:set_milter_reply({ add_headers = { ['X-Facts'] = table.concat(told, ' ') } })\n\
         end })",
    );
    let pymilter = Pymilter::start(&[]);
    let (spamd, rspamd) = (
        spamd.address.to_string(),
        format!("http://{}", rspamd.address),
    );
    let milter = format!("inet:{}", pymilter.address);
    let settings = [
        PATIENT,
        ("SPAMASSASSIN", spamd.as_str()),
        ("RSPAMD", &rspamd),
        ("MILTERS", &milter),
        ("SPAM_TAG", "off"),
        ("SPAM_REJECT", "off"),
        ("PROXY_TRUSTED", "127.0.0.9"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = client(&portcullis, "EHLO client.test");
    client.start_tls();
    let said = STANDARD.encode("\0ann\0secret");
    client.ask(&format!("AUTH PLAIN {said}"), "235");
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("RCPT TO:<carol@example.org>", "250");
    client.ask("DATA", "354");
    client.send(&dot_stuffed(letter("facts").as_bytes()));
    client.expect("250");

    let arrived = String::from_utf8(postfix.messages(2).remove(0)).unwrap();
    let header = fields(&arrived);
    let facts =
        "X-Facts: 198.18.0.7 client.test ann ann@sender.test bob@example.org carol@example.org";
    assert!(header.iter().any(|field| field == facts), "{header:#?}");
    let is_status = |field: &&String| field.starts_with("X-Spam-Status: ");
    let status = header.iter().find(is_status).unwrap();
    assert!(status.contains("SIGNED_IN"), "{status}");

    let told = pymilter.told();
    let of = |name: &str| -> Vec<_> {
        let these = told.iter().filter(|(other, _)| other == name);
        these.map(|(_, data)| data.clone()).collect()
    };
    assert_eq!(of("connect")[0][1], json!(["198.18.0.7", 4711]));
    assert_eq!(of("hello"), [json!(["client.test"])]);
    assert_eq!(of("envfrom"), [json!(["<ann@sender.test>"])]);
    let both = [json!(["<bob@example.org>"]), json!(["<carol@example.org>"])];
    assert_eq!(of("envrcpt"), both);
    let macros = &of("eom")[0][0];
    for (name, value) in [
        ("j", "mx.portcullis.test"),
        ("{client_addr}", "198.18.0.7"),
        ("{client_port}", "4711"),
        ("{tls_version}", "TLSv1.3"),
        ("{auth_authen}", "ann"),
        ("{mail_addr}", "ann@sender.test"),
        ("{rcpt_addr}", "carol@example.org"),
    ] {
        assert_eq!(macros[name], value, "{name} in {macros}");
    }
    // It is the one of our own log.
    let id = macros["i"].as_str().unwrap();
    let scanned = portcullis.log_with("\"scanned\"");
    assert!(scanned.contains(id), "no {id} in {scanned}");
}

#[test]
fn spamds_report_is_added_and_its_user_is_named() {
    let postfix = Postfix::start(Options::default());
    let spamd = Spamd::start(&["body NOON /Dear Bob/", "describe NOON Somebody is dear"]);
    let address = spamd.address.to_string();
    let settings = [
        PATIENT,
        ("SPAMASSASSIN", address.as_str()),
        ("SPAMASSASSIN_REPORT", "true"),
        ("SPAMASSASSIN_USER", "portcullis"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    // A report of the sender's own does not stay.
    let sent = letter("report");
    let forged = format!("X-Spam-Report: * 0.0 FORGED\r\n{sent}");
    let reply = client.deliver("ann@sender.test", "bob@example.org", forged.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    let reports: Vec<_> = arrived
        .added
        .iter()
        .filter(|field| field.starts_with("X-Spam-Report: "))
        .collect();
    assert_eq!(reports.len(), 1, "{arrived:#?}");
    let report = reports[0];
    assert!(report.contains("NOON") && report.contains("Somebody is dear"));
    assert!(!report.contains("FORGED"), "{report}");
    let log = spamd.daemon.log();
    assert!(log.contains("for portcullis:"), "{log}");
}
