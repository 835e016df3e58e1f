//! TLS with clients, seen from outside: OpenSSL and hand-made clients before the
//! real listeners.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use support::{Authority, Finished, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{Certificate, letter, run, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// `openssl s_client` sends one line inside TLS and stays until we close.
#[track_caller]
fn openssl(server: SocketAddr, more: &[&str]) -> Finished {
    let server = server.to_string();
    let mut arguments = vec!["s_client", "-ign_eof", "-connect", &server];
    arguments.extend(more);
    run("openssl", &arguments, b"QUIT\r\n", PATIENCE)
}

/// Both ways into TLS, with what OpenSSL needs to take them.
fn ways_in(portcullis: &Portcullis) -> [(SocketAddr, &'static [&'static str]); 2] {
    [
        (portcullis.tls, &[]),
        (portcullis.mx, &["-starttls", "smtp"]),
    ]
}

#[track_caller]
fn assert_shaken(finished: &Finished) {
    let output = finished.output();
    assert!(
        output.contains("Cipher is TLS_") || output.contains("Cipher is ECDHE-"),
        "{output}"
    );
    assert!(output.contains("221 2.0.0"), "no SMTP inside TLS: {output}");
}

#[track_caller]
fn assert_alert(finished: &Finished, alert: &str) {
    let output = finished.output();
    assert!(!finished.success() && output.contains(alert), "{output}");
    assert!(!output.contains("221 2.0.0"), "{output}");
}

/// The log is written behind the conversation, so it may need a moment.
#[track_caller]
fn assert_logged(portcullis: &Portcullis, text: &str, count: usize) {
    let logged = || portcullis.log().matches(text).count();
    wait_for(PATIENCE, || (logged() >= count).then_some(()));
    assert_eq!(logged(), count, "`{text}` in\n{}", portcullis.log());
}

#[test]
fn refuses_other_protocols_than_smtp() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    for (server, how) in ways_in(&portcullis) {
        // ALPACA: a browser lured here asks for h2 or http/1.1.
        for protocols in ["h2", "h2,http/1.1", "imap"] {
            let refused = openssl(server, &[how, &["-alpn", protocols]].concat());
            assert_alert(&refused, "no application protocol");
        }
        for protocols in ["smtp", "h2,smtp"] {
            let taken = openssl(server, &[how, &["-alpn", protocols]].concat());
            assert_shaken(&taken);
            assert!(
                taken.stdout.contains("ALPN protocol: smtp"),
                "{}",
                taken.stdout
            );
        }
    }
    assert_logged(&portcullis, "another protocol than smtp", 6);
}

#[test]
fn accepts_tls_1_2_and_1_3_and_logs_which() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    for (server, how) in ways_in(&portcullis) {
        assert_shaken(&openssl(server, &[how, &["-tls1_2"]].concat()));
        assert_shaken(&openssl(server, &[how, &["-tls1_3"]].concat()));
    }
    for version in ["TLSv1.2", "TLSv1.3"] {
        let field = format!("\"tls\":\"{version}\",\"cipher\":\"TLS_");
        assert_logged(&portcullis, &field, 2);
    }
}

#[test]
fn tls_min_1_3_refuses_1_2() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("TLS_MIN", "1.3")]);
    for (server, how) in ways_in(&portcullis) {
        let old = openssl(server, &[how, &["-tls1_2"]].concat());
        assert_alert(&old, "alert protocol version");
        assert_shaken(&openssl(server, &[how, &["-tls1_3"]].concat()));
    }
}

#[test]
fn chooses_the_cipher_suite_whatever_order_the_client_likes() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let tls12 = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384";
    let tls13 = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";
    for (server, how) in ways_in(&portcullis) {
        let old = openssl(server, &[how, &["-tls1_2", "-cipher", tls12]].concat());
        let chosen = "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384";
        assert!(old.stdout.contains(chosen), "{}", old.stdout);
        let new = openssl(
            server,
            &[how, &["-tls1_3", "-ciphersuites", tls13]].concat(),
        );
        let chosen = "Cipher is TLS_AES_256_GCM_SHA384";
        assert!(new.stdout.contains(chosen), "{}", new.stdout);
    }
}

#[test]
fn resumes_sessions() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.pem");
    let file = file.to_str().unwrap();
    for (server, how) in ways_in(&portcullis) {
        for version in ["-tls1_2", "-tls1_3"] {
            let first = openssl(server, &[how, &[version, "-sess_out", file]].concat());
            assert!(first.stdout.contains("\nNew, TLSv1."), "{}", first.stdout);
            let second = openssl(server, &[how, &[version, "-sess_in", file]].concat());
            assert_shaken(&second);
            assert!(
                second.stdout.contains("\nReused, TLSv1."),
                "{}",
                second.stdout
            );
        }
    }
}

fn put(certificate: &Certificate, folder: &Path, name: &str) {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    fs::copy(&certificate.chain, folder.join("fullchain.pem")).unwrap();
    fs::copy(&certificate.key, folder.join("privkey.pem")).unwrap();
}

#[test]
fn shows_the_certificate_of_the_name_that_the_client_asks_for() {
    let authority = Authority::new("Test CA");
    let folder = tempfile::tempdir().unwrap();
    for name in ["mail.one.test", "mail.two.test"] {
        put(&authority.sign(name), folder.path(), name);
    }
    let default = authority.sign("mx.portcullis.test");
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("TLS_DIR", folder.path().to_str().unwrap()),
            ("TLS_CERT", default.chain.to_str().unwrap()),
            ("TLS_KEY", default.key.to_str().unwrap()),
        ],
    );
    let ca = authority.file();
    let trust = ["-CAfile", ca.to_str().unwrap(), "-verify_return_error"];
    for (server, how) in ways_in(&portcullis) {
        for (asked, shown) in [
            ("mail.one.test", "mail.one.test"),
            ("mail.two.test", "mail.two.test"),
            // Nobody's name, and no name at all: the pair that was named by itself.
            ("mail.three.test", "mx.portcullis.test"),
            ("", "mx.portcullis.test"),
        ] {
            let sni = match asked {
                "" => vec!["-noservername"],
                name => vec!["-servername", name],
            };
            let checks = ["-verify_hostname", shown];
            let spoken = openssl(server, &[how, &trust, &checks, &sni].concat());
            assert_shaken(&spoken);
            assert!(
                spoken.stdout.contains("Verify return code: 0 (ok)"),
                "{}",
                spoken.stdout
            );
        }
    }
}

// CVE-2011-0411: commands that were put behind STARTTLS in the clear were carried
// out inside TLS, in the client's name (RFC 3207 4.2).
#[test]
fn octets_behind_starttls_end_the_session() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    for behind in ["RSET\r\n", "MAIL FROM:<eve@evil.test>\r\n", "R"] {
        for listener in [portcullis.mx, portcullis.submission] {
            let mut client = Smtp::greeted(listener);
            client.send(format!("STARTTLS\r\n{behind}").as_bytes());
            client.expect("503 5.5.1");
            assert_eq!(client.rest(), "", "behind STARTTLS came {behind:?}");
        }
    }
    let heard = backend.heard().concat();
    assert!(
        !heard.contains("RSET") && !heard.contains("evil"),
        "{heard}"
    );
}

#[test]
fn clear_octets_in_place_of_the_handshake_are_never_carried_out() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("STARTTLS", "220");
    client.say("MAIL FROM:<eve@evil.test>");
    let rest = client.rest();
    assert!(!rest.contains("250"), "{rest}");

    // A client that came to the wrong door.
    let mut client = Smtp::connect(portcullis.tls);
    client.say("EHLO client.test");
    let rest = client.rest();
    assert!(!rest.contains("220") && !rest.contains("250"), "{rest}");
    portcullis.log_with("did not speak TLS");
    assert!(!backend.heard().concat().contains("evil"));
}

#[test]
fn hello_and_backend_are_forgotten_at_starttls() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    client.ask("EHLO before.test", "250");
    client.ask("MAIL FROM:<before@sender.test>", "250");
    client.ask("RCPT TO:<bob@example.org>", "250");
    client.ask("STARTTLS", "503 5.5.1");
    client.ask("RSET", "250");
    client.ask("STARTTLS", "220");
    client.hand_shake();
    // The old connection is left in good order, and at once.
    let left = wait_for(PATIENCE, || {
        let heard = backend.transactions(1);
        heard[0].ends_with("QUIT\r\n").then_some(())
    });
    assert!(left.is_some(), "{:#?}", backend.heard());
    for line in [
        "MAIL FROM:<x@sender.test>",
        "RCPT TO:<bob@example.org>",
        "DATA",
    ] {
        client.ask(line, "503 5.5.1");
    }
    client.ask("EHLO after.test", "250");
    client.ask("STARTTLS", "503 5.5.1");
    client.ask("RCPT TO:<bob@example.org>", "503 5.5.1");
    let reply = client.deliver(
        "after@sender.test",
        "bob@example.org",
        letter("x").as_bytes(),
    );
    assert!(reply.starts_with("250"), "{reply}");

    let transactions = backend.transactions(2);
    assert_eq!(transactions.len(), 2, "{transactions:#?}");
    let (before, after) = (&transactions[0], &transactions[1]);
    assert!(
        before.contains("EHLO before.test") && !before.contains("after"),
        "{before}"
    );
    assert!(
        after.contains("EHLO after.test") && !after.contains("before"),
        "{after}"
    );
}

#[test]
fn tls_require_takes_no_mail_in_the_clear() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("TLS_REQUIRE", "true")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "530 5.7.0");
    client.ask("NOOP", "250");
    assert!(!backend.heard().concat().contains("sender.test"));
    client.start_tls();
    let reply = client.deliver("ann@sender.test", "bob@example.org", letter("x").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn submission_shows_starttls_before_tls_and_auth_inside() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::connect(portcullis.submission);
    client.expect("220");
    let clear = client.ask("EHLO client.test", "250");
    assert!(
        clear.contains("STARTTLS") && !clear.contains("AUTH"),
        "{clear}"
    );
    client.ask("STARTTLS", "220");
    client.hand_shake();
    let inside = client.ask("EHLO client.test", "250");
    assert!(
        inside.contains("AUTH PLAIN LOGIN") && !inside.contains("STARTTLS"),
        "{inside}"
    );
}
