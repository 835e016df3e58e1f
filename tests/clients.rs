//! Real clients on one side, a real Postfix on the other, the program between them:
//! every message arrives exactly as it was sent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{Authority, Finished, Options, Portcullis, Postfix, Smtp};
use support::{first_difference, letter, run, torture};

const PATIENCE: Duration = Duration::from_secs(60);
const USERS: &[(&str, &str)] = &[("ann", "secret")];

fn house() -> (Postfix, Portcullis) {
    let postfix = Postfix::start(Options {
        users: USERS,
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[]);
    (postfix, portcullis)
}

/// swaks sends one message with `subject`, with more arguments as given.
#[track_caller]
fn swaks(server: SocketAddr, subject: &str, more: &[&str]) -> Finished {
    let server = server.to_string();
    let subject = format!("Subject: {subject}");
    let mut arguments = vec!["--server", &server, "--from", "ann@sender.test"];
    arguments.extend(["--to", "bob@example.org", "--header", &subject]);
    arguments.extend(more);
    run("swaks", &arguments, b"", PATIENCE)
}

/// curl sends the message it is given on standard input.
#[track_caller]
fn curl(url: &str, message: &[u8], more: &[&str]) -> Finished {
    let mut arguments = vec!["--silent", "--show-error", "--url", url];
    arguments.extend([
        "--mail-from",
        "ann@sender.test",
        "--mail-rcpt",
        "bob@example.org",
    ]);
    arguments.extend(["--upload-file", "-"]);
    arguments.extend(more);
    run("curl", &arguments, message, PATIENCE)
}

#[track_caller]
fn assert_arrived_unchanged(postfix: &Postfix, sent: &[u8]) {
    let arrived = postfix.message();
    // Trace headers are put before a message, never into it (RFC 5321 4.4).
    let body = &arrived[arrived.len().saturating_sub(sent.len())..];
    assert_eq!(first_difference(sent, body), None);
}

#[track_caller]
fn assert_subject_arrived(postfix: &Postfix, subject: &str) {
    let arrived = String::from_utf8_lossy(&postfix.message()).into_owned();
    assert!(
        arrived.contains(&format!("Subject: {subject}\r\n")),
        "{arrived}"
    );
}

#[test]
fn swaks_delivers_in_plain() {
    let (postfix, portcullis) = house();
    swaks(portcullis.mx, "plain", &[]).assert_success();
    assert_subject_arrived(&postfix, "plain");
}

#[test]
fn swaks_delivers_with_starttls() {
    let (postfix, portcullis) = house();
    let sent = swaks(portcullis.mx, "starttls", &["--tls"]).assert_success();
    assert!(sent.output().contains("TLS started"), "{}", sent.output());
    assert_subject_arrived(&postfix, "starttls");
}

#[test]
fn swaks_delivers_with_implicit_tls() {
    let (postfix, portcullis) = house();
    swaks(portcullis.tls, "implicit", &["--tls-on-connect"]).assert_success();
    assert_subject_arrived(&postfix, "implicit");
}

#[test]
fn swaks_delivers_pipelined() {
    let (postfix, portcullis) = house();
    swaks(portcullis.mx, "pipelined", &["--pipeline"]).assert_success();
    assert_subject_arrived(&postfix, "pipelined");
}

#[test]
fn swaks_delivers_to_many_recipients_at_once() {
    let (postfix, portcullis) = house();
    let to = "a@example.org,b@example.org,c@example.org";
    swaks(portcullis.mx, "many", &["--to", to, "--pipeline"]).assert_success();
    assert_eq!(postfix.messages(3).len(), 3);
    assert_eq!(postfix.taken(), 1);
}

#[test]
fn users_authenticate_on_submission_and_on_mx_inside_tls() {
    let (postfix, portcullis) = house();
    for (server, tls) in [
        (portcullis.submission, "--tls"),
        (portcullis.mx, "--tls"),
        (portcullis.tls, "--tls-on-connect"),
    ] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let login = [
                "--auth",
                mechanism,
                "--auth-user",
                "ann",
                "--auth-password",
                "secret",
            ];
            swaks(server, "auth", &[&[tls], login.as_slice()].concat()).assert_success();
        }
    }
    let log = postfix.log();
    for mechanism in ["PLAIN", "LOGIN"] {
        let user = format!("sasl_method={mechanism}, sasl_username=ann");
        assert_eq!(log.matches(&user).count(), 3, "{log}");
    }
    let log = portcullis.log();
    // `secret` itself, and what AUTH PLAIN and AUTH LOGIN make of it.
    for secret in ["secret", "AGFubgBzZWNyZXQ", "c2VjcmV0"] {
        assert!(!log.contains(secret), "a password is in the log:\n{log}");
    }
}

#[test]
fn a_wrong_password_is_refused_by_the_backends_own_word() {
    let (postfix, portcullis) = house();
    let login = [
        "--auth",
        "PLAIN",
        "--auth-user",
        "ann",
        "--auth-password",
        "wrong",
    ];
    let sent = swaks(
        portcullis.submission,
        "auth",
        &[&["--tls"], login.as_slice()].concat(),
    );
    assert!(!sent.success());
    assert!(sent.output().contains("535 5.7.8"), "{}", sent.output());
    assert_eq!(postfix.taken(), 0);
}

#[test]
fn submission_takes_no_mail_without_tls_and_none_without_auth() {
    let (postfix, portcullis) = house();
    let mut client = Smtp::connect(portcullis.submission);
    client.expect("220");
    let keywords = client.ask("EHLO client.test", "250");
    assert!(
        !keywords.contains("AUTH"),
        "AUTH offered in plain: {keywords}"
    );
    client.ask("MAIL FROM:<ann@sender.test>", "530 5.7.0");
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", "5");
    client.start_tls();
    client.ask("MAIL FROM:<ann@sender.test>", "530 5.7.0");
    assert_eq!(postfix.taken(), 0);
}

#[test]
fn auth_is_offered_inside_tls_only() {
    let (_postfix, portcullis) = house();
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    let plain = client.ask("EHLO client.test", "250");
    assert!(
        plain.contains("STARTTLS") && !plain.contains("AUTH"),
        "{plain}"
    );
    client.ask("STARTTLS", "220");
    client.hand_shake();
    let inside = client.ask("EHLO client.test", "250");
    assert!(
        inside.contains("AUTH") && !inside.contains("STARTTLS"),
        "{inside}"
    );
}

#[test]
fn curl_uploads_in_plain() {
    let (postfix, portcullis) = house();
    let message = torture("curl", 200_000);
    let url = format!("smtp://{}/client.test", portcullis.mx);
    curl(&url, &message, &[]).assert_success();
    assert_arrived_unchanged(&postfix, &message);
}

#[test]
fn curl_uploads_with_starttls_and_with_implicit_tls_and_likes_the_certificate() {
    let authority = Authority::new("Test CA");
    let certificate = authority.sign("mx.portcullis.test");
    let (chain, key) = (
        certificate.chain.to_str().unwrap(),
        certificate.key.to_str().unwrap(),
    );
    let ca = authority.file();
    for scheme in ["smtp", "smtps"] {
        let postfix = Postfix::start(Options::default());
        let settings = [("TLS_CERT", chain), ("TLS_KEY", key)];
        let portcullis = Portcullis::before(&postfix, &settings);
        let port = match scheme {
            "smtps" => portcullis.tls.port(),
            _ => portcullis.mx.port(),
        };
        let url = format!("{scheme}://mx.portcullis.test:{port}/client.test");
        let resolve = format!("mx.portcullis.test:{port}:127.0.0.1");
        let trust = [
            "--ssl-reqd",
            "--cacert",
            ca.to_str().unwrap(),
            "--resolve",
            &resolve,
        ];
        let message = torture("curl-tls", 200_000);
        curl(&url, &message, &trust).assert_success();
        assert_arrived_unchanged(&postfix, &message);
    }
}

#[test]
fn curl_authenticates_on_submission() {
    let (postfix, portcullis) = house();
    let url = format!("smtp://{}/client.test", portcullis.submission);
    let message = letter("curl-auth");
    let login = ["--ssl-reqd", "--insecure", "--user", "ann:secret"];
    curl(&url, message.as_bytes(), &login).assert_success();
    assert_arrived_unchanged(&postfix, message.as_bytes());
    assert!(postfix.log().contains("sasl_username=ann"));
}

#[test]
fn a_20_mb_message_arrives_byte_for_byte_through_tls() {
    let (postfix, portcullis) = house();
    let message = torture("big", 20 << 20);
    let url = format!("smtps://{}/client.test", portcullis.tls);
    curl(&url, &message, &["--insecure"]).assert_success();
    assert_arrived_unchanged(&postfix, &message);
}

#[test]
fn msmtp_delivers_in_plain_and_as_a_user_inside_tls() {
    let (postfix, portcullis) = house();
    let msmtp = |server: SocketAddr, more: &[&str]| {
        let port = format!("--port={}", server.port());
        let mut arguments = vec!["--host=127.0.0.1", &port, "--from=ann@sender.test"];
        arguments.extend(["--domain=client.test", "--tls-certcheck=off"]);
        arguments.extend(more);
        arguments.push("bob@example.org");
        // msmtp takes the local line ends of a Unix machine.
        let message = letter("msmtp").replace("\r\n", "\n");
        run("msmtp", &arguments, message.as_bytes(), PATIENCE).assert_success();
    };
    let login = ["--auth=plain", "--user=ann", "--passwordeval=echo secret"];
    msmtp(portcullis.mx, &["--tls=off"]);
    msmtp(portcullis.tls, &["--tls=on", "--tls-starttls=off"]);
    let starttls = ["--tls=on", "--tls-starttls=on"];
    msmtp(
        portcullis.submission,
        &[starttls.as_slice(), &login].concat(),
    );

    let expected = letter("msmtp");
    for message in postfix.messages(3) {
        let text = String::from_utf8(message).unwrap();
        assert!(text.ends_with(&expected), "{text}");
    }
    assert!(postfix.log().contains("sasl_username=ann"));
}

/// Arguments: how to connect, the port, and what else to ask for. The message comes
/// on standard input.
const SMTPLIB: &str = r#"
import smtplib, ssl, sys
how, port, options = sys.argv[1], int(sys.argv[2]), sys.argv[3].split()
tls = ssl._create_unverified_context()
if how == "ssl":
    client = smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=tls)
else:
    client = smtplib.SMTP("127.0.0.1", port, timeout=30)
if how == "starttls":
    client.starttls(context=tls)
if "login" in options:
    client.login("ann", "secret")
client.ehlo_or_helo_if_needed()
parameters, recipient = [], "bob@example.org"
for keyword in ("8BITMIME", "SMTPUTF8"):
    if keyword in options:
        assert client.has_extn(keyword.lower()), keyword + " is not offered"
if "8BITMIME" in options:
    parameters.append("BODY=8BITMIME")
if "SMTPUTF8" in options:
    parameters.append("SMTPUTF8")
    recipient = "b\u00f6b@example.org"
refused = client.sendmail("ann@sender.test", [recipient], sys.stdin.buffer.read(), parameters)
assert not refused, refused
client.quit()
"#;

#[track_caller]
fn smtplib(how: &str, server: SocketAddr, options: &str, message: &[u8]) {
    let port = server.port().to_string();
    run(
        "python3",
        &["-c", SMTPLIB, how, &port, options],
        message,
        PATIENCE,
    )
    .assert_success();
}

#[test]
fn smtplib_delivers_8_bit_text_in_plain_with_starttls_and_over_ssl() {
    for how in ["plain", "starttls", "ssl"] {
        let (postfix, portcullis) = house();
        let server = if how == "ssl" {
            portcullis.tls
        } else {
            portcullis.mx
        };
        let message = torture("smtplib", 100_000);
        smtplib(how, server, "8BITMIME", &message);
        assert_arrived_unchanged(&postfix, &message);
    }
}

#[test]
fn smtplib_logs_in_on_submission() {
    let (postfix, portcullis) = house();
    smtplib(
        "starttls",
        portcullis.submission,
        "login",
        letter("login").as_bytes(),
    );
    assert_arrived_unchanged(&postfix, letter("login").as_bytes());
    assert!(postfix.log().contains("sasl_username=ann"));
}

#[test]
fn smtplib_delivers_to_an_address_in_utf8() {
    let (postfix, portcullis) = house();
    smtplib(
        "plain",
        portcullis.mx,
        "SMTPUTF8 8BITMIME",
        letter("utf8").as_bytes(),
    );
    assert_arrived_unchanged(&postfix, letter("utf8").as_bytes());
    assert!(postfix.log().contains("to=<b\u{f6}b@example.org>"));
}

#[test]
fn openssl_checks_the_certificate_behind_starttls() {
    let authority = Authority::new("Test CA");
    let certificate = authority.sign("mx.portcullis.test");
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(
        &postfix,
        &[
            ("TLS_CERT", certificate.chain.to_str().unwrap()),
            ("TLS_KEY", certificate.key.to_str().unwrap()),
        ],
    );
    let (server, ca) = (portcullis.mx.to_string(), authority.file());
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_client",
            "-starttls",
            "smtp",
            "-connect",
            &server,
            "-brief",
            version,
            "-CAfile",
            ca.to_str().unwrap(),
            "-verify_return_error",
            "-verify_hostname",
            "mx.portcullis.test",
        ];
        let spoken = run("openssl", &arguments, b"QUIT\r\n", PATIENCE).assert_success();
        assert!(
            spoken.output().contains("Verification: OK"),
            "{}",
            spoken.output()
        );
    }
}

#[test]
fn smtp_source_delivers_500_messages_over_20_sessions_at_once() {
    let (postfix, portcullis) = house();
    let server = portcullis.mx.to_string();
    // -d keeps a session for many messages; without it each has its own.
    for more in [&["-d"][..], &[]] {
        let mut arguments = vec!["-m", "500", "-s", "20", "-l", "4096"];
        arguments.extend(["-f", "ann@sender.test", "-t", "bob@example.org"]);
        arguments.extend(more);
        arguments.push(&server);
        run("smtp-source", &arguments, b"", PATIENCE).assert_success();
    }
    assert_eq!(postfix.messages(1000).len(), 1000);
}

#[test]
fn many_transactions_fit_into_one_session() {
    let (postfix, portcullis) = house();
    let mut client = Smtp::greeted(portcullis.mx);
    for round in 0..5 {
        client.ask("MAIL FROM:<given@up.test>", "250");
        client.ask("RSET", "250");
        let message = letter(&format!("round-{round}"));
        let reply = client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    client.ask("QUIT", "221");
    assert_eq!(postfix.messages(5).len(), 5);
}

#[test]
fn an_empty_message_and_one_without_header_arrive() {
    let (postfix, portcullis) = house();
    let mut client = Smtp::greeted(portcullis.mx);
    for message in ["", ".\r\n..\r\n"] {
        let reply = client.deliver("", "bob@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    let arrived = postfix.messages(2);
    assert!(
        arrived
            .iter()
            .any(|message| message.ends_with(b"\r\n.\r\n..\r\n"))
    );
}
