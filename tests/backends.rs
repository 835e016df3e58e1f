//! How the program and a real Postfix get on: introduction of the client in every
//! way there is, TLS as `BACKEND_TLS` says, several servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use support::{
    Act, Authority, Certificate, Daemon, Learns, Options, Portcullis, Postfix, Scripted, Smtp,
    free_address, letter,
};

/// The client's address in these tests; the proxy's is 127.0.0.1.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// Delivers one letter from [`CLIENT`]; the reply to the final dot.
fn deliver(server: SocketAddr, subject: &str) -> String {
    let mut client = Smtp::connect_from(CLIENT, server);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.deliver(
        "ann@sender.test",
        "bob@example.org",
        letter(subject).as_bytes(),
    )
}

/// The reply to MAIL, for backends that must not be used.
fn refused_at_mail(server: SocketAddr) -> String {
    let mut client = Smtp::greeted(server);
    let reply = client.ask("MAIL FROM:<ann@sender.test>", "451");
    // The session is still good.
    client.ask("NOOP", "250");
    client.ask("QUIT", "221");
    reply
}

fn with_tls(certificate: &support::Certificate) -> Postfix {
    Postfix::start(Options {
        certificate: Some(certificate),
        ..Options::default()
    })
}

#[test]
fn xclient_tells_postfix_address_and_name_of_the_client() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    assert!(deliver(portcullis.mx, "xclient").starts_with("250"));
    let log = postfix.log();
    assert!(log.contains("client=unknown[127.0.0.7]"), "{log}");
    let arrived = String::from_utf8_lossy(&postfix.message()).into_owned();
    assert!(
        arrived.contains("from client.test (unknown [127.0.0.7])"),
        "{arrived}"
    );
    // Transparent: no header of ours beside Postfix's own.
    assert!(!arrived.contains("Portcullis"), "{arrived}");
    portcullis.log_with("\"client_info\":\"xclient\"");
}

#[test]
fn proxy_headers_tell_postfix_the_address_of_the_client() {
    for version in ["proxy-v1", "proxy-v2"] {
        let postfix = Postfix::start(Options {
            learns: Learns::ByProxyHeader,
            ..Options::default()
        });
        let portcullis = Portcullis::before(&postfix, &[("CLIENT_INFO", version)]);
        assert!(deliver(portcullis.mx, version).starts_with("250"));
        let log = postfix.log();
        assert!(
            log.contains("client=unknown[127.0.0.7]"),
            "{version}: {log}"
        );
    }
}

/// A message by DATA, or in chunks cut so; the reply to its end.
fn deliver_raw(client: &mut Smtp, message: &str, cuts: Option<&[usize]>) -> String {
    let Some(cuts) = cuts else {
        return client.deliver("a@sender.test", "b@example.org", message.as_bytes());
    };
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<b@example.org>", "250");
    let mut rest = message;
    for cut in cuts {
        let (chunk, behind) = rest.split_at(*cut);
        client.say(&format!("BDAT {}", chunk.len()));
        client.send(chunk.as_bytes());
        client.expect("250");
        rest = behind;
    }
    client.say(&format!("BDAT {} LAST", rest.len()));
    client.send(rest.as_bytes());
    client.reply()
}

/// Our trace stands before the message, and bears our name.
#[test]
fn no_first_line_continues_our_trace_or_loses_the_header_section_to_it() {
    let postfix = Postfix::start(Options {
        learns: Learns::Nothing,
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    let mut sent = 0;
    for cuts in [None, Some([].as_slice()), Some(&[1]), Some(&[20, 30])] {
        for (front, is_header) in [
            ("", true),
            ("From 49102f Mon Sep 17 00:00:00 2001\r\n", true),
            (">From bob Mon Sep 17 00:00:00 2001\r\n", true),
            ("\tfrom elsewhere ([10.0.0.1]) by us\r\n", false),
            ("  by mx.example.org\r\n", false),
            ("Dear Bob\r\n", false),
        ] {
            // Postfix takes no mbox separator in a chunk; and of a line that is cut
            // nobody knows what it will be.
            let is_led = front.contains("From ");
            let cut = cuts.is_some_and(|cuts| !cuts.is_empty());
            if cut && (is_led || front.starts_with('D')) {
                continue;
            }
            let is_header = is_header && !(is_led && cuts.is_some());
            sent += 1;
            let subject = format!("number-{sent}-");
            let message = format!("{front}{}", letter(&subject));
            let reply = deliver_raw(&mut client, &message, cuts);
            assert!(reply.starts_with("250"), "{front:?}: {reply}");
            let arrived = postfix.messages(sent);
            let mut arrived = arrived.iter().map(|octets| String::from_utf8_lossy(octets));
            let arrived = arrived.find(|text| text.contains(&subject)).unwrap();
            let (header, body) = arrived.split_once("\r\n\r\n").unwrap();
            assert!(
                header.contains("(Portcullis)") && !header.contains("elsewhere"),
                "{arrived}"
            );
            assert_eq!(header.contains(&subject), is_header, "{arrived}");
            assert!(is_header || body.starts_with(front), "{arrived}");
        }
    }
}

#[test]
fn a_trace_header_tells_of_the_client_where_nothing_better_does() {
    let postfix = Postfix::start(Options {
        learns: Learns::Nothing,
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::connect_from(CLIENT, portcullis.mx);
    let greeting = client.expect("220");
    let id = support::between(&greeting, "[", "]").unwrap().to_owned();
    client.ask("EHLO client.test", "250");
    client.start_tls();
    client.ask("EHLO client.test", "250");
    client.deliver(
        "ann@sender.test",
        "bob@example.org",
        letter("one").as_bytes(),
    );
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("RCPT TO:<eve@example.org>", "250");
    client.ask("DATA", "354");
    client.send(b"Subject: two\r\n\r\n.\r\n");
    client.expect("250");

    // The second goes to two.
    let arrived: Vec<String> = postfix
        .messages(3)
        .iter()
        .map(|message| String::from_utf8_lossy(message).into_owned())
        .collect();
    let one = arrived
        .iter()
        .find(|text| text.contains("Subject: one"))
        .unwrap();
    let two = arrived
        .iter()
        .find(|text| text.contains("Subject: two"))
        .unwrap();
    assert!(
        one.contains("Received: from client.test ([127.0.0.7])"),
        "{one}"
    );
    assert!(
        one.contains("by mx.portcullis.test (Portcullis) with ESMTPS"),
        "{one}"
    );
    assert!(one.contains(&format!("id {id}.1")), "{one}");
    assert!(one.contains("(using TLSv1.3 with cipher TLS_"), "{one}");
    assert!(one.contains("for <bob@example.org>;"), "{one}");
    // Recipients must not learn of each other.
    let field = support::between(two, "(Portcullis)", "Subject: two").unwrap();
    assert!(field.contains(&format!("id {id}.2")), "{two}");
    assert!(!field.contains("for <"), "{two}");
}

#[test]
fn client_info_none_adds_nothing() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("CLIENT_INFO", "none")]);
    assert!(deliver(portcullis.mx, "none").starts_with("250"));
    assert!(postfix.log().contains("[127.0.0.1]"));
    let arrived = String::from_utf8_lossy(&postfix.message()).into_owned();
    assert!(
        !arrived.contains("Portcullis") && !arrived.contains("127.0.0.7"),
        "{arrived}"
    );
}

#[test]
fn xclient_that_is_demanded_and_not_offered_lets_nothing_through() {
    let postfix = Postfix::start(Options {
        learns: Learns::Nothing,
        ..Options::default()
    });
    let portcullis = Portcullis::guarding(postfix.address, &[("CLIENT_INFO", "xclient")]);
    assert!(portcullis.log_with("XCLIENT").contains("ERROR"));
    // Whoever watches learns of it before a client does.
    let backend = format!("smtp://{}", postfix.address);
    let up = format!("portcullis_backend_up{{backend=\"{backend}\"}}");
    let unmet = || {
        assert_eq!(portcullis.metric(&up), 0.0);
        let (status, ready) = portcullis.ready();
        assert_eq!(status, 503, "{ready}");
        assert!(ready.to_string().contains(&format!("{backend} is down")));
    };
    unmet();
    refused_at_mail(portcullis.mx);
    unmet();
    // What it offers is known all the same.
    portcullis.wait_for_keywords();
    assert_eq!(postfix.taken(), 0);
}

/// Postfix's own `smtp-sink` offers so.
#[test]
fn xclient_without_addr_tells_nobody_of_the_client() {
    for offer in [
        "250-scripted.test\r\n250 XCLIENT NAME HELO",
        "250-scripted.test\r\n250 XCLIENT",
    ] {
        let backend = Scripted::start(&[("EHLO", &[Act::Say(offer)])]);
        let portcullis = Portcullis::guarding(backend.address, &[("MODE", "monitor")]);
        portcullis.log_with("\"client_info\":\"received\"");
        assert!(deliver(portcullis.mx, "nameless").starts_with("250"));
        let heard = backend.transactions(1).remove(0);
        assert!(!heard.contains("XCLIENT"), "{heard}");
        assert!(
            heard.contains("Received: from client.test ([127.0.0.7])"),
            "{heard}"
        );
        // It takes everybody for the proxy, so the guard stays.
        let mut client = Smtp::greeted(portcullis.mx);
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        client.ask("RCPT TO:<victim@foreign.test>", "550 5.7.1");

        let portcullis = Portcullis::guarding(backend.address, &[("CLIENT_INFO", "xclient")]);
        refused_at_mail(portcullis.mx);
        assert!(portcullis.log_with("no XCLIENT ADDR").contains("ERROR"));
    }
}

#[test]
fn a_trusted_balancer_is_believed_and_must_speak_first() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    drop(portcullis);
    let portcullis = Portcullis::guarding(postfix.address, &[("PROXY_TRUSTED", "127.0.0.9")]);
    portcullis.log_with("backend probed");
    let balancer = Ipv4Addr::new(127, 0, 0, 9);

    let mut client = Smtp::connect_from(balancer, portcullis.mx);
    client.send(b"PROXY TCP4 127.0.0.77 127.0.0.1 4000 25\r\n");
    client.expect("220");
    client.ask("EHLO far.test", "250");
    client.deliver(
        "ann@sender.test",
        "bob@example.org",
        letter("v1").as_bytes(),
    );
    assert!(postfix.log().contains("client=unknown[127.0.0.77]"));

    // Before TLS on the implicit TLS listener, version 2, and IPv6.
    let mut client = Smtp::connect_from(balancer, portcullis.tls);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
    header.extend(
        "2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend(
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend([0x0f, 0xa0, 0x00, 0x19]);
    client.send(&header);
    client.hand_shake();
    client.expect("220");
    client.ask("EHLO far.test", "250");
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    // This Postfix is set to IPv4 and cannot be told: then it must take the client
    // for a stranger, and not for the proxy from which it would take mail.
    client.ask("RCPT TO:<bob@example.org>", "554 5.7.1");
    assert!(postfix.log().contains("from unknown[unknown]"));

    // A balancer without a header is closed; nobody else's header is parsed.
    let mut client = Smtp::connect_from(balancer, portcullis.mx);
    client.send(b"EHLO liar.test\r\n");
    assert_eq!(client.rest(), "");
    let mut client = Smtp::connect_from(CLIENT, portcullis.mx);
    client.expect("220");
    client.ask("PROXY TCP4 127.0.0.99 192.0.2.1 4000 25", "500");
    client.ask("EHLO liar.test", "250");
    client.deliver(
        "ann@sender.test",
        "bob@example.org",
        letter("no").as_bytes(),
    );
    let log = postfix.log();
    assert!(!log.contains("127.0.0.99"), "{log}");
    assert!(log.contains("client=unknown[127.0.0.7]"), "{log}");
}

/// `PROXY UNKNOWN` hides the client: it must not relay as if it were the balancer.
#[test]
fn a_client_that_the_balancer_does_not_name_is_in_no_relay_network() {
    let postfix = Postfix::start(Options::default());
    let settings = [
        ("PROXY_TRUSTED", "127.0.0.9"),
        ("RELAY_NETS", "127.0.0.0/8"),
    ];
    let portcullis = Portcullis::guarding(postfix.address, &settings);
    let balancer = Ipv4Addr::new(127, 0, 0, 9);
    for (header, code) in [
        ("PROXY UNKNOWN\r\n", "550 5.7.1"),
        ("PROXY TCP4 127.0.0.77 127.0.0.1 4000 25\r\n", "250"),
    ] {
        let mut client = Smtp::connect_from(balancer, portcullis.mx);
        client.send(header.as_bytes());
        client.expect("220");
        client.ask("EHLO far.test", "250");
        client.ask("MAIL FROM:<ann@sender.test>", "250");
        client.ask("RCPT TO:<victim@foreign.test>", code);
    }
}

/// Nor may it relay by the address of the balancer or the proxy where the backend
/// decides, though that trusts both.
#[test]
fn a_client_that_the_balancer_does_not_name_is_a_stranger_to_the_backend() {
    let (signature, balancer) = (b"\r\n\r\n\0\r\nQUIT\n", Ipv4Addr::new(127, 0, 0, 9));
    let unnamed = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        [signature, [0x20, 0, 0, 0].as_slice()].concat(),
        [signature, [0x21, 0, 0, 0].as_slice()].concat(),
    ];
    for (learns, client_info) in [
        (Learns::ByXclient, "auto"),
        (Learns::ByProxyHeader, "proxy-v1"),
        (Learns::ByProxyHeader, "proxy-v2"),
    ] {
        let postfix = Postfix::start(Options {
            learns,
            extra: "mynetworks = 127.0.0.1, 127.0.0.9\n\
                    smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
            ..Options::default()
        });
        for (setting, code) in [
            (("MODE", "monitor"), "550 5.7.1"),
            (("RELAY", "backend"), "554 5.7.1"),
        ] {
            let trusted = ("PROXY_TRUSTED", "127.0.0.9");
            let settings = [trusted, ("CLIENT_INFO", client_info), setting];
            let portcullis = Portcullis::guarding(postfix.address, &settings);
            portcullis.log_with("backend probed");
            for header in &unnamed {
                let mut client = Smtp::connect_from(balancer, portcullis.mx);
                client.send(header);
                client.expect("220");
                client.ask("EHLO far.test", "250");
                client.ask("MAIL FROM:<ann@sender.test>", "250");
                client.ask("RCPT TO:<victim@foreign.test>", code);
                client.ask("RSET", "250");
                let message = letter("unnamed");
                let reply =
                    client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
                assert!(reply.starts_with("250"), "{client_info}: {reply}");
            }
        }
        let log = postfix.log();
        for known in ["client=unknown[127.0.0.9]", "client=unknown[127.0.0.1]"] {
            assert!(!log.contains(known), "{client_info}: {log}");
        }
        for message in postfix.messages(6) {
            let message = String::from_utf8_lossy(&message).into_owned();
            let trace = "Received: from far.test ([127.0.0.9])";
            assert!(message.contains(trace), "{client_info}: {message}");
        }
    }
}

/// RFC 6533 3: where SMTPUTF8 and DSN are both offered.
#[test]
fn postfix_takes_an_original_recipient_beyond_ascii() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test> SMTPUTF8", "250");
    let rcpt = "RCPT TO:<bob@example.org> NOTIFY=NEVER ORCPT=utf-8;jürgen@example.org";
    client.ask(rcpt, "250");
    client.ask("DATA", "354");
    client.send(b"Subject: x\r\n\r\n.\r\n");
    client.expect("250");
    assert_eq!(postfix.taken(), 1);
}

/// RFC 1870 4: what is announced must be taken.
#[test]
fn the_size_announced_is_what_proxy_and_backend_both_take() {
    let fallback = (25 << 20).to_string();
    for (limit, max_size, announced) in [
        ("50000", None, "50000"),
        ("50000", Some("1000"), "1000"),
        ("50000", Some("100K"), "50000"),
        // No limit there.
        ("0", Some("100K"), "102400"),
        ("0", None, &fallback),
    ] {
        let postfix = Postfix::start(Options {
            extra: &format!("message_size_limit = {limit}"),
            ..Options::default()
        });
        let settings: Vec<_> = max_size
            .map(|size| ("MAX_SIZE", size))
            .into_iter()
            .collect();
        let portcullis = Portcullis::before(&postfix, &settings);
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let offer = client.ask("EHLO client.test", "250");
        let size = offer.lines().find(|line| line.contains("SIZE"));
        let told = format!("SIZE {announced}");
        assert!(
            size.is_some_and(|line| line.ends_with(&told)),
            "{told}: {offer}"
        );
        let above = announced.parse::<u64>().unwrap() + 1;
        client.ask(
            &format!("MAIL FROM:<a@sender.test> SIZE={above}"),
            "552 5.3.4",
        );
    }
    // None is told of.
    let offer = Act::Say("250-old.test\r\n250 8BITMIME");
    let silent = Scripted::start(&[("EHLO", &[offer])]);
    let portcullis = Portcullis::guarding(silent.address, &[]);
    portcullis.log_with("backend probed");
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    let offer = client.ask("EHLO client.test", "250");
    assert!(offer.contains(&format!("SIZE {fallback}")), "{offer}");
}

#[test]
fn verify_takes_the_right_certificate_and_no_other() {
    let authority = Authority::new("Backend CA");
    let stranger = Authority::new("Stranger CA");
    let postfix = with_tls(&authority.sign("backend.test"));
    let file = |authority: &Authority| authority.file().to_str().unwrap().to_owned();
    let (right, wrong) = (file(&authority), file(&stranger));
    let settings = |ca: &str, name: &str| {
        [
            ("BACKEND_TLS", "verify".to_owned()),
            ("BACKEND_TLS_CA", ca.to_owned()),
            ("BACKEND_TLS_NAME", name.to_owned()),
        ]
    };
    let start = |ca: &str, name: &str| {
        let settings = settings(ca, name);
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Portcullis::guarding(postfix.address, &settings)
    };

    let handshakes = |portcullis: &Portcullis, how: &str| {
        let series = format!("portcullis_tls_handshakes_total{{side=\"backend\",{how}}}");
        portcullis.metric_or_zero(&series)
    };
    let (good, bad) = (
        r#"version="1.3",result="succeeded""#,
        r#"version="none",result="failed""#,
    );

    let portcullis = start(&right, "backend.test");
    assert!(deliver(portcullis.mx, "verified").starts_with("250"));
    // The client's, and the probe's before.
    assert!(handshakes(&portcullis, good) >= 2.0);
    assert_eq!(handshakes(&portcullis, bad), 0.0);
    assert!(postfix.log().contains("TLS connection established"));
    assert_eq!(postfix.taken(), 1);

    for portcullis in [start(&wrong, "backend.test"), start(&right, "other.test")] {
        let reply = refused_at_mail(portcullis.mx);
        assert!(reply.starts_with("451 4.7.5"), "{reply}");
        assert!(handshakes(&portcullis, bad) >= 2.0);
        assert_eq!(handshakes(&portcullis, good), 0.0);
    }
    assert_eq!(postfix.taken(), 1);
}

/// HAProxy speaks TLS from the first octet there, before a server that does not.
fn in_tls(server: SocketAddr, certificate: &Certificate) -> (Daemon, SocketAddr) {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let pem = [&certificate.chain, &certificate.key].map(|file| fs::read_to_string(file).unwrap());
    fs::write(folder.path().join("pem"), pem.concat()).unwrap();
    let file = folder.path().join("haproxy.cfg");
    let config = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         listen tls\n bind {address} ssl crt {}/pem\n server one {server}\n",
        folder.path().display()
    );
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    (Daemon::start(command, folder, address), address)
}

/// RFC 8689 4.2.1: the next hop must be known and encrypted.
#[test]
fn requiretls_is_offered_only_where_the_backends_certificate_is_verified() {
    let offer = Act::Say("250-scripted.test\r\n250-8BITMIME\r\n250 REQUIRETLS");
    let backend = Scripted::start(&[("EHLO", &[offer])]);
    let authority = Authority::new("Backend CA");
    let (_haproxy, encrypted) = in_tls(backend.address, &authority.sign("backend.test"));
    let (plain, encrypted) = (backend.address.to_string(), format!("smtps://{encrypted}"));
    let ca = authority.file().to_str().unwrap().to_owned();
    for (address, mode, offered) in [
        (&plain, "opportunistic", false),
        (&encrypted, "encrypt", false),
        (&encrypted, "verify", true),
    ] {
        let portcullis = Portcullis::start(&[
            ("BACKEND", address),
            ("DOMAINS", "example.org"),
            ("BACKEND_TLS", mode),
            ("BACKEND_TLS_CA", &ca),
            ("BACKEND_TLS_NAME", "backend.test"),
        ]);
        portcullis.log_with("backend probed");
        let mut client = Smtp::connect_tls(portcullis.tls);
        client.expect("220");
        let offer = client.ask("EHLO client.test", "250");
        assert_eq!(offer.contains("REQUIRETLS"), offered, "{mode}: {offer}");
        let code = if offered { "250" } else { "555 5.5.4" };
        client.ask("MAIL FROM:<ann@sender.test> REQUIRETLS", code);
    }
    let heard = backend.transactions(1);
    assert!(heard[0].contains("MAIL FROM:<ann@sender.test> REQUIRETLS"));
    assert_eq!(heard.len(), 1, "{heard:?}");
}

#[test]
fn encrypt_needs_starttls_and_opportunistic_does_not() {
    let plain = Postfix::start(Options::default());
    let portcullis = Portcullis::guarding(plain.address, &[("BACKEND_TLS", "encrypt")]);
    assert!(refused_at_mail(portcullis.mx).starts_with("451 4.7.5"));
    assert_eq!(plain.taken(), 0);
    let portcullis = Portcullis::before(&plain, &[]);
    assert!(deliver(portcullis.mx, "plain").starts_with("250"));
    portcullis.log_with("\"tls\":\"not offered\"");

    let authority = Authority::new("Nobody's CA");
    let tls = with_tls(&authority.sign("whoever.test"));
    for mode in ["opportunistic", "encrypt"] {
        let portcullis = Portcullis::before(&tls, &[("BACKEND_TLS", mode)]);
        assert!(deliver(portcullis.mx, mode).starts_with("250"));
    }
    for message in tls.messages(2) {
        let message = String::from_utf8(message).unwrap();
        assert!(message.contains("(using TLSv1."), "{message}");
    }

    let quiet = with_tls(&authority.sign("whoever.test"));
    let portcullis = Portcullis::before(&quiet, &[("BACKEND_TLS", "off")]);
    assert!(deliver(portcullis.mx, "off").starts_with("250"));
    assert!(!quiet.log().contains("TLS connection established"));
}

#[test]
fn smtps_backends_are_spoken_to_inside_tls_from_the_first_octet() {
    let authority = Authority::new("Backend CA");
    let certificate = authority.sign("backend.test");
    let postfix = with_tls(&certificate);
    let url = format!("smtps://{}", postfix.wrapped);
    let ca = authority.file().to_str().unwrap().to_owned();
    let portcullis = Portcullis::guarding(
        postfix.address,
        &[
            ("BACKEND", url.as_str()),
            ("BACKEND_TLS", "verify"),
            ("BACKEND_TLS_CA", &ca),
            ("BACKEND_TLS_NAME", "backend.test"),
        ],
    );
    assert!(deliver(portcullis.mx, "wrapped").starts_with("250"));
    assert!(postfix.log().contains("client=unknown[127.0.0.7]"));
}

#[test]
fn of_several_backends_a_dead_one_is_passed_over() {
    let postfix = Postfix::start(Options::default());
    let dead = support::free_address();
    let both = format!("{dead}, {}", postfix.address);
    let portcullis = Portcullis::guarding(postfix.address, &[("BACKEND", both.as_str())]);
    portcullis.log_with("backend probed");
    for number in 0..4 {
        assert!(deliver(portcullis.mx, &format!("number {number}")).starts_with("250"));
    }
    assert_eq!(postfix.taken(), 4);
}

#[test]
fn a_backend_may_listen_on_a_unix_socket() {
    let postfix = Postfix::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("smtp");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = postfix.address;
    // Carries octets between the socket and Postfix, and looks at none.
    std::thread::spawn(move || {
        for inner in listener.incoming().flatten() {
            let outer = std::net::TcpStream::connect(address).unwrap();
            let (mut from, mut to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                to.shutdown(std::net::Shutdown::Write)
            });
            let (mut from, mut to) = (outer, inner);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                to.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    let url = format!("unix:{}", path.display());
    let portcullis = Portcullis::before(&postfix, &[("BACKEND", url.as_str())]);
    assert!(deliver(portcullis.mx, "unix").starts_with("250"));
    assert!(postfix.log().contains("client=unknown[127.0.0.7]"));
}
