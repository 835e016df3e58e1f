//! What macros tell, and of what they are silent.

use super::*;
use crate::spool::{Body, Settings, Spool};
use crate::tls::TlsDetails;

const ASKED: [&str; 16] = [
    "j",
    "i",
    "_",
    "{daemon_name}",
    "{client_addr}",
    "{client_name}",
    "{client_port}",
    "{tls_version}",
    "{cipher}",
    "{auth_type}",
    "{auth_authen}",
    "{mail_addr}",
    "{mail_host}",
    "{rcpt_addr}",
    "{rcpt_host}",
    "{cert_subject}",
];

async fn empty() -> Body {
    let spool = Spool::new(&Settings::default()).unwrap();
    spool.begin().finish().await.unwrap()
}

fn message<'a>(body: &'a Body, recipients: &'a [String]) -> Message<'a> {
    Message {
        client: Some("[::ffff:192.0.2.7]:4711".parse().unwrap()),
        hello: "client.example",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "",
        recipients,
        id: "abc",
        hostname: "mx.example.org",
        trace: b"",
        hop: b"",
        body,
    }
}

fn told(message: &Message<'_>, recipient: Option<&str>) -> Vec<(&'static str, String)> {
    values(&ASKED, message, recipient)
}

#[tokio::test]
async fn tells_all_that_is_known() {
    let tls = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: None,
        resumed: false,
    };
    let (body, recipients) = (empty().await, ["b@example.org".to_owned()]);
    let message = Message {
        user: Some("alice"),
        protocol: "ESMTPSA",
        tls: Some(&tls),
        sender: "\"a@x\"@example.com",
        ..message(&body, &recipients)
    };
    let expected = [
        ("j", "mx.example.org"),
        ("i", "abc"),
        ("_", "[192.0.2.7]"),
        ("{daemon_name}", "mx.example.org"),
        ("{client_addr}", "192.0.2.7"),
        ("{client_name}", "[192.0.2.7]"),
        ("{client_port}", "4711"),
        ("{tls_version}", "TLSv1.3"),
        ("{cipher}", "TLS_AES_256_GCM_SHA384"),
        ("{auth_type}", "unknown"),
        ("{auth_authen}", "alice"),
        ("{mail_addr}", "\"a@x\"@example.com"),
        ("{mail_host}", "example.com"),
        ("{rcpt_addr}", "b@example.org"),
        ("{rcpt_host}", "example.org"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(told(&message, Some("b@example.org")), expected);
}

#[tokio::test]
async fn never_tells_of_a_sign_in_or_tls_that_was_not() {
    let body = empty().await;
    let told = told(&message(&body, &[]), None);
    let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
    for absent in [
        "{auth_type}",
        "{auth_authen}",
        "{tls_version}",
        "{cipher}",
        "{rcpt_addr}",
    ] {
        assert!(!names.contains(&absent), "{absent}");
    }
    assert!(told.contains(&("{mail_addr}", String::new())));
}

#[tokio::test]
async fn a_sign_in_without_a_name_shows_still() {
    let body = empty().await;
    let message = Message {
        protocol: "ESMTPA",
        ..message(&body, &[])
    };
    let told = values(&["{auth_type}", "{auth_authen}"], &message, None);
    assert_eq!(told, [("{auth_type}", "unknown".to_owned())]);
}

#[tokio::test]
async fn an_unknown_client_has_no_address() {
    let body = empty().await;
    let message = Message {
        client: None,
        ..message(&body, &[])
    };
    assert_eq!(client_name(&message), "unknown");
    let told = values(
        &["_", "{client_addr}", "{client_name}", "{client_port}"],
        &message,
        None,
    );
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn an_ipv6_address_stands_alone_and_is_marked_as_a_name() {
    let body = empty().await;
    let message = Message {
        client: Some("[2001:db8::7]:25".parse().unwrap()),
        ..message(&body, &[])
    };
    let told = values(&["{client_addr}", "{client_name}"], &message, None);
    let values: Vec<_> = told.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["2001:db8::7", "[IPv6:2001:db8::7]"]);
}
