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

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    Arrived, Clamd, EICAR_NAME, Options, Portcullis, Postfix, Pymilter, Rspamd, Smtp, Spamd,
    attachment, deliver_in_chunks, dot_stuffed, eicar, gtube, heard, letter, spam, torture,
    wait_for, zipped,
};

/// A loaded machine may take its time.
const PATIENT: (&str, &str) = ("SCAN_TIMEOUT", "5min");

/// Every scanner that looks at bodies, and a Postfix.
struct House {
    postfix: Postfix,
    spamd: Spamd,
    clamd: Clamd,
    rspamd: Rspamd,
}

impl House {
    fn new(rspamd_rules: &str) -> Self {
        Self {
            postfix: Postfix::start(Options::default()),
            spamd: Spamd::start(&[]),
            clamd: Clamd::start(""),
            rspamd: Rspamd::start(rspamd_rules),
        }
    }

    fn guard(&self, settings: &[(&str, &str)]) -> Portcullis {
        let (spamd, clamd) = (self.spamd.address.to_string(), self.clamd.socket.display());
        let (clamd, rspamd) = (format!("unix:{clamd}"), self.rspamd.address);
        let rspamd = format!("http://{rspamd}");
        let mut all = vec![
            PATIENT,
            ("SPAMASSASSIN", spamd.as_str()),
            ("CLAMAV", clamd.as_str()),
            ("RSPAMD", rspamd.as_str()),
        ];
        all.extend_from_slice(settings);
        Portcullis::before(&self.postfix, &all)
    }

    /// The message that holds `text`, once it is there.
    fn arrived_with(&self, text: &str) -> Vec<u8> {
        let found = wait_for(Duration::from_secs(60), || {
            let mut all = self.postfix.messages(0).into_iter();
            all.find(|message| place(message, text.as_bytes()).is_some())
        });
        found.unwrap_or_else(|| panic!("no {text} in\n{}", self.postfix.log()))
    }
}

/// What a score adds.
const MARKS: [&str; 3] = ["X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"];

fn place(octets: &[u8], part: &[u8]) -> Option<usize> {
    octets.windows(part.len()).position(|it| it == part)
}

/// One way of sending a message.
type Way = fn(&mut Smtp, &str, &str, &[u8]) -> String;

const WAYS: [Way; 3] = [
    |client, sender, recipient, message| client.deliver(sender, recipient, message),
    |client, sender, recipient, message| deliver_in_chunks(client, sender, recipient, message, 100),
    |client, sender, recipient, message| {
        deliver_in_chunks(client, sender, recipient, message, usize::MAX)
    },
];

/// Sends every bad message in every way, a good one behind each, in one session.
/// None of the bad ones may reach Postfix, and nothing of their envelopes the good.
#[track_caller]
fn refuses_all(postfix: &Postfix, portcullis: &Portcullis, bad: &[(&str, String, &str)]) {
    let mut client = Smtp::greeted(portcullis.mx);
    let mut sent = Vec::new();
    for (number, way) in WAYS.iter().enumerate() {
        for (name, message, expected) in bad {
            let address = format!("{name}-{number}");
            let (sender, recipient) = (format!("bad@{address}.test"), "bad@example.org");
            let reply = way(&mut client, &sender, recipient, message.as_bytes());
            assert!(reply.starts_with(expected), "{address}: {reply}");

            let good = letter(&format!("good-behind-{address}"));
            let (sender, recipient) = (
                format!("good@{address}.test"),
                format!("{address}@example.org"),
            );
            let reply = way(&mut client, &sender, &recipient, good.as_bytes());
            assert!(reply.starts_with("250"), "{address}: {reply}");
            sent.push((sender, recipient, good));
        }
    }
    client.ask("QUIT", "221");

    for (sender, recipient, good) in &sent {
        let arrived = Arrived::at(postfix, good.as_bytes());
        assert_eq!(arrived.sender, format!("<{sender}>"));
        assert_eq!(arrived.recipient, *recipient);
    }
    assert_eq!(postfix.messages(0).len(), sent.len());
    // One body each for the good ones; for each bad one its envelope and RSET.
    let [data, mail, reset] = heard(postfix, ["data", "mail", "rset"], sent.len());
    assert_eq!((data, mail), (sent.len(), 2 * sent.len()));
    assert!(reset >= sent.len(), "{reset}");
    let log = postfix.log();
    let accepted = log.lines().filter(|line| line.contains("/qmgr["));
    assert!(accepted.clone().all(|line| !line.contains("from=<bad@")));
    assert_eq!(log.matches(" message-id=").count(), sent.len(), "{log}");
}

fn infected() -> [(&'static str, String, &'static str); 3] {
    let found = "554 5.7.1 Malware found: ";
    [
        ("plain", letter("plain") + &eicar() + "\r\n", found),
        (
            "attached",
            attachment("attached", eicar().as_bytes()),
            found,
        ),
        (
            "zipped",
            attachment("zipped", &zipped(eicar().as_bytes())),
            found,
        ),
    ]
}

#[test]
fn spamd_has_spam_refused_and_the_session_goes_on() {
    let (postfix, spamd) = (Postfix::start(Options::default()), Spamd::start(&[]));
    let address = spamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("SPAMASSASSIN", &address)]);
    let bad = [("gtube", spam("gtube"), "550 5.7.1 Message refused as spam")];
    refuses_all(&postfix, &portcullis, &bad);
}

#[test]
fn clamd_has_malware_refused_and_the_session_goes_on() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let address = clamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("CLAMAV", &address)]);
    refuses_all(&postfix, &portcullis, &infected());
    let log = portcullis.log_with("scanned");
    assert!(
        log.contains(&format!("clamav infected {EICAR_NAME}")),
        "{log}"
    );
}

#[test]
fn rspamd_has_spam_refused_and_the_session_goes_on() {
    let (postfix, rspamd) = (Postfix::start(Options::default()), Rspamd::start(""));
    let address = format!("http://{}", rspamd.address);
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("RSPAMD", &address)]);
    refuses_all(
        &postfix,
        &portcullis,
        &[("gtube", spam("gtube"), "550 5.7.1 Gtube")],
    );
}

#[test]
fn all_scanners_together_refuse_what_any_of_them_finds() {
    let house = House::new("");
    let portcullis = house.guard(&[]);
    let mut bad = infected().to_vec();
    bad.push(("gtube", spam("gtube"), "550 5.7.1 "));
    // The graver finding decides.
    bad.push((
        "both",
        spam("both") + &eicar() + "\r\n",
        "554 5.7.1 Malware found: ",
    ));
    refuses_all(&house.postfix, &portcullis, &bad);
}

/// Whatever the scanners make of its octets.
#[test]
fn clean_passes_octet_for_octet_beside_the_added_fields() {
    let rules = "rspamd_config:register_symbol({ name = 'LOOKED', score = 0.5,\n\
        callback = function(task)\n\
        task:set_milter_reply({ add_headers = { ['X-Looked'] = 'yes' } }) return true end })";
    let house = House::new(rules);
    let portcullis = house.guard(&[("SPAM_TAG", "off"), ("SPAM_REJECT", "off")]);
    let mut client = Smtp::greeted(portcullis.mx);
    for size in [1, 16 << 10, 300 << 10] {
        for (number, way) in WAYS.iter().enumerate() {
            let subject = format!("torture-{size}-{number}");
            let sent = torture(&subject, size);
            let reply = way(&mut client, "a@sender.test", "b@example.org", &sent);
            assert!(reply.starts_with("250"), "{reply}\n{}", portcullis.log());
            let arrived = house.arrived_with(&format!("Subject: {subject}\r\n"));
            // rspamd's field stands at the end of the header section.
            let at = place(&arrived, b"\r\nX-Looked: yes\r\n").unwrap();
            let behind = at + "\r\nX-Looked: yes".len();
            let without = [&arrived[..at], &arrived[behind..]].concat();
            assert_eq!(Arrived::of(&without, &sent).names(), MARKS);
        }
    }
}

/// spamd is not shown them: one of its few children would be there for nobody else
/// meanwhile.
#[test]
fn twenty_megabytes_pass_octet_for_octet() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let (rspamd, pymilter) = (Rspamd::start(""), Pymilter::start(&[]));
    let spamd = Spamd::start(&[]);
    let (spamd_address, clamd_address) = (spamd.address.to_string(), clamd.address.to_string());
    let rspamd = format!("http://{}", rspamd.address);
    let milter = format!("inet:{}", pymilter.address);
    let settings = [
        PATIENT,
        ("SPAMASSASSIN", spamd_address.as_str()),
        ("CLAMAV", &clamd_address),
        ("RSPAMD", &rspamd),
        ("MILTERS", &milter),
        ("SPAM_REJECT", "off"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    client.wait_up_to(Duration::from_secs(300));
    let sent = torture("large", 20 << 20);
    let began = Instant::now();
    let reply = client.deliver("a@sender.test", "b@example.org", &sent);
    println!("20 MiB delivered in {:?}", began.elapsed());
    assert!(reply.starts_with("250"), "{reply}\n{}", portcullis.log());
    let arrived = Arrived::at(&postfix, &sent);
    assert_eq!(
        arrived.names(),
        [&MARKS[..], &["X-Portcullis-Scan"]].concat()
    );
    assert_eq!(
        arrived.added[3],
        "X-Portcullis-Scan: spamassassin=unscanned"
    );

    // Far behind, and found all the same.
    let infected = [&sent, eicar().as_bytes(), b"\r\n"].concat();
    let reply = deliver_in_chunks(
        &mut client,
        "a@sender.test",
        "b@example.org",
        &infected,
        1 << 20,
    );
    assert!(reply.starts_with("554 5.7.1 Malware found"), "{reply}");
    assert_eq!(postfix.messages(0).len(), 1);
}

/// What a session knows of its client and of the transaction, and nothing from before
/// STARTTLS or of a recipient that was refused.
#[test]
fn a_filter_is_told_the_facts_of_the_session() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let pymilter = Pymilter::start(&["symbols"]);
    let milter = format!("inet:{}", pymilter.address);
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("MILTERS", &milter)]);
    let mut client = Smtp::connect_from(Ipv4Addr::new(127, 0, 0, 7), portcullis.mx);
    client.expect("220");
    for in_tls in [false, true] {
        let hello = if in_tls {
            client.ask("EHLO clear.test", "250");
            client.start_tls();
            client.ask("EHLO inside.test", "250");
            client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", "235");
            "inside.test"
        } else {
            client.ask("HELO outside.test", "250");
            "outside.test"
        };
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        client.ask("RCPT TO:<bob@example.org>", "250");
        client.ask("RCPT TO:<dan@@example.org>", "5");
        client.ask("RCPT TO:<carol@example.org>", "250");
        client.ask("DATA", "354");
        client.send(&dot_stuffed(letter(hello).as_bytes()));
        client.expect("250");

        let told = pymilter.told();
        let asked = told.iter().rposition(|(name, _)| name == "negotiate");
        let told = &told[asked.unwrap()..];
        let of = |name: &str| -> Vec<_> {
            let these = told.iter().filter(|(other, _)| other == name);
            these.map(|(_, data)| data).collect()
        };
        let (connect, eoh, eom) = (of("connect")[0], &of("eoh")[0][0], &of("eom")[0][0]);
        assert_eq!(connect[0], "[127.0.0.7]");
        assert_eq!(connect[1], json!(["127.0.0.7", client.address().port()]));
        assert_eq!(of("hello"), [&json!([hello])]);
        assert_eq!(of("envfrom"), [&json!(["<ann@sender.test>"])]);
        let both = ["<bob@example.org>", "<carol@example.org>"].map(|path| json!([path]));
        assert_eq!(of("envrcpt"), both.each_ref());
        assert_eq!(eoh["r"], if in_tls { "ESMTPSA" } else { "SMTP" });
        let known = |name: &str| eom.get(name).and_then(|value| value.as_str());
        assert_eq!(known("{tls_version}"), in_tls.then_some("TLSv1.3"));
        assert_eq!(known("{auth_authen}"), in_tls.then_some("ann"));
        assert_eq!(known("{cipher}").is_some(), in_tls, "{eom}");
        let id = known("i").unwrap();
        let log = portcullis.log_with(id);
        let mut scanned = log.lines().filter(|line| line.contains("\"scanned\""));
        assert!(scanned.any(|line| line.contains(id)), "{id} in {log}");
    }
}

#[track_caller]
fn expect_all(client: &mut Smtp, codes: &[&str]) {
    for code in codes {
        client.expect(code);
    }
}

#[test]
fn pipelined_messages_are_judged_one_by_one() {
    let (postfix, spamd) = (Postfix::start(Options::default()), Spamd::start(&[]));
    let address = spamd.address.to_string();
    let portcullis = Portcullis::before(&postfix, &[PATIENT, ("SPAMASSASSIN", &address)]);
    let envelope =
        |name: &str| format!("MAIL FROM:<{name}@sender.test>\r\nRCPT TO:<{name}@example.org>\r\n");
    let mut client = Smtp::greeted(portcullis.mx);
    client.send(format!("{}DATA\r\n", envelope("one")).as_bytes());
    expect_all(&mut client, &["250", "250", "354"]);
    // RFC 2920 3.1: the end of a message need not be the last of a group.
    let mut group = dot_stuffed(spam("one").as_bytes());
    group.extend_from_slice(format!("{}DATA\r\n", envelope("two")).as_bytes());
    client.send(&group);
    expect_all(&mut client, &["550", "250", "250", "354"]);

    let mut group = dot_stuffed(letter("two").as_bytes());
    for (name, message) in [("three", spam("three")), ("four", letter("four"))] {
        group.extend_from_slice(envelope(name).as_bytes());
        let (first, second) = message.split_at(100);
        group.extend_from_slice(format!("BDAT {}\r\n{first}", first.len()).as_bytes());
        group.extend_from_slice(format!("BDAT {} LAST\r\n{second}", second.len()).as_bytes());
    }
    group.extend_from_slice(b"QUIT\r\n");
    client.send(&group);
    client.expect("250");
    expect_all(&mut client, &["250", "250", "250", "550"]);
    expect_all(&mut client, &["250", "250", "250", "250"]);
    client.expect("221");

    for name in ["two", "four"] {
        let arrived = Arrived::at(&postfix, letter(name).as_bytes());
        assert_eq!(arrived.sender, format!("<{name}@sender.test>"));
        assert_eq!(arrived.recipient, format!("{name}@example.org"));
    }
    assert_eq!(postfix.messages(0).len(), 2);
}

#[test]
fn too_large_to_scan_passes_and_says_so() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let address = clamd.address.to_string();
    let settings = [
        PATIENT,
        ("CLAMAV", address.as_str()),
        ("SCAN_MAX_SIZE", "10K"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let infected = letter("large") + &eicar() + "\r\n";
    let exact = 10 * 1024 - infected.len();
    let padded = |length: usize| infected.clone() + &"x".repeat(length - 2) + "\r\n";
    let reply = client.deliver("a@sender.test", "b@example.org", padded(exact).as_bytes());
    assert!(reply.starts_with("554"), "{reply}");

    // Some of them may be ours.
    let sent = padded(exact + 19);
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = Arrived::at(&postfix, sent.as_bytes());
    assert_eq!(arrived.added, ["X-Portcullis-Scan: clamav=unscanned"]);
    let log = portcullis.log_with("clamav unscanned");
    assert!(log.contains("above SCAN_MAX_SIZE"), "{log}");
    let counted = r#"portcullis_scans_total{scanner="clamav",result="unscanned"}"#;
    assert_eq!(portcullis.metric(counted), 1.0);
}

#[test]
fn too_large_for_spamassassin_is_seen_by_the_others() {
    let house = House::new("");
    let portcullis = house.guard(&[("SPAMASSASSIN_MAX_SIZE", "10K"), ("RSPAMD", "off")]);
    let mut client = Smtp::greeted(portcullis.mx);
    let padded = |text: &str, size: usize| {
        let message = letter("large") + text + "\r\n";
        let padding = "x".repeat(size - message.len() - 2);
        message + &padding + "\r\n"
    };
    let spam = padded(&gtube(), 10 * 1024);
    let reply = client.deliver("a@sender.test", "b@example.org", spam.as_bytes());
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    let infected = padded(&eicar(), 10 * 1024 + 1);
    let reply = client.deliver("a@sender.test", "b@example.org", infected.as_bytes());
    assert!(reply.starts_with("554 5.7.1 Malware"), "{reply}");

    let sent = padded(&gtube(), 10 * 1024 + 1);
    let reply = client.deliver("a@sender.test", "b@example.org", sent.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let arrived = house.arrived_with("Subject: large\r\n");
    let told = place(&arrived, b"X-Portcullis-Scan: spamassassin=unscanned\r\n");
    assert!(told.is_some());
}

#[test]
fn monitoring_marks_and_logs_and_refuses_nothing() {
    let house = House::new("");
    let portcullis = house.guard(&[("MODE", "monitor")]);
    let mut client = Smtp::greeted(portcullis.mx);
    for (name, message) in [
        ("gtube", spam("gtube")),
        ("eicar", letter("eicar") + &eicar() + "\r\n"),
    ] {
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{name}: {reply}");
    }
    let marked = Arrived::at(&house.postfix, spam("gtube").as_bytes());
    assert_eq!(marked.added[0], "X-Spam-Flag: YES");
    client.ask("QUIT", "221");
    portcullis.log_with("\"end\":\"quit\"");
    let lines = portcullis.log_lines();
    let would = |at: &str| {
        let lines = lines.iter().filter(|line| line["message"] == at);
        lines.filter(|line| line["would"] == "refuse").count()
    };
    assert_eq!((would("scanned"), would("let pass")), (2, 2), "{lines:#?}");
}

/// What scanners say of a message may be logged; whom it is for, as `LOG_ADDRESSES` says.
#[test]
fn lines_about_scans_name_nobody_whom_they_may_not_name() {
    let (postfix, clamd) = (Postfix::start(Options::default()), Clamd::start(""));
    let address = clamd.address.to_string();
    for (setting, shown) in [
        ("full", true),
        ("masked", false),
        ("hashed", false),
        ("none", false),
    ] {
        let settings = [
            PATIENT,
            ("CLAMAV", address.as_str()),
            ("LOG_ADDRESSES", setting),
        ];
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::greeted(portcullis.mx);
        let infected = letter("eicar") + &eicar() + "\r\n";
        for message in [infected, letter("clean")] {
            client.deliver(
                "secret.sender@sender.test",
                "secret.rcpt@example.org",
                message.as_bytes(),
            );
        }
        client.ask("QUIT", "221");
        let log = portcullis.log_with("\"end\":\"quit\"");
        let scanned = log.lines().filter(|line| line.contains("\"scanned\""));
        assert_eq!(scanned.count(), 2, "{log}");
        assert_eq!(log.contains("secret."), shown, "{setting}: {log}");
    }
}

#[test]
fn a_hundred_messages_at_once_get_each_its_own_verdict() {
    let house = House::new("");
    let portcullis = house.guard(&[("TIMEOUT_BACKEND_CONNECT", "2min")]);
    let began = Instant::now();
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let mx = portcullis.mx;
            std::thread::spawn(move || {
                let name = format!("number-{number}");
                let (message, expected) = match number % 4 {
                    0 => (spam(&name), "550 5.7.1"),
                    1 => (letter(&name) + &eicar() + "\r\n", "554 5.7.1"),
                    _ => (letter(&name), "250"),
                };
                let mut client = Smtp::greeted(mx);
                client.wait_up_to(Duration::from_secs(280));
                let way = WAYS[number % 3];
                let recipient = format!("{name}@example.org");
                let reply = way(&mut client, "a@sender.test", &recipient, message.as_bytes());
                assert!(reply.starts_with(expected), "{name}: {reply}");
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    println!("100 messages in {:?}", began.elapsed());
    for number in (0..100).filter(|number| number % 4 > 1) {
        let name = format!("number-{number}");
        let arrived = Arrived::at(&house.postfix, letter(&name).as_bytes());
        assert_eq!(arrived.recipient, format!("{name}@example.org"));
    }
    assert_eq!(house.postfix.messages(0).len(), 50);
}
