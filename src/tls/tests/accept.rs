use std::process::{Command, Stdio};

use rustls::version::{TLS12, TLS13};

use super::*;

/// What came of `openssl s_client` with these options at our listener.
async fn openssl_client(
    server: &ServerTls,
    options: &'static [&'static str],
) -> Result<TlsDetails, HandshakeError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let client = tokio::task::spawn_blocking(move || {
        Command::new("openssl")
            .args(["s_client", "-connect", &target, "-brief"])
            .args(options)
            .stdin(Stdio::null())
            .output()
            .expect("openssl must be installed")
    });
    let (stream, _) = listener.accept().await.unwrap();
    let result = server.accept(stream).await.map(|(_, details)| details);
    client.await.unwrap();
    result
}

fn world() -> World {
    let world = World::new();
    world.folder("mx.example.org", &["mx.example.org"]);
    world
}

#[tokio::test]
async fn accepts_tls_1_2_and_1_3_and_names_what_was_agreed() {
    let server = world().server();
    for (version, name, cipher) in [
        (&TLS12, "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (&TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ] {
        let client = Arc::new(anyone(&[version], &[]));
        let (details, _) = meet(&server, &client, "mx.example.org").await;
        let expected = TlsDetails {
            version: name,
            cipher,
            sni: Some("mx.example.org".to_owned()),
            resumed: false,
        };
        assert_eq!(details.unwrap(), expected);
    }
}

#[tokio::test]
async fn speaks_with_openssl_in_both_versions() {
    let server = world().server();
    let details = openssl_client(&server, &["-tls1_2", "-noservername"]).await;
    let details = details.unwrap();
    assert_eq!((details.version, details.sni), ("TLSv1.2", None));
    let details = openssl_client(&server, &["-tls1_3", "-servername", "mx.example.org"]).await;
    let details = details.unwrap();
    assert_eq!(details.version, "TLSv1.3");
    assert_eq!(details.sni.as_deref(), Some("mx.example.org"));
}

#[tokio::test]
async fn refuses_tls_1_1_and_suites_without_aead() {
    let server = world().server();
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"].as_slice();
    let cbc = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"].as_slice();
    for options in [old, cbc] {
        let result = openssl_client(&server, options).await;
        assert!(
            matches!(result, Err(HandshakeError::Incompatible(_))),
            "{options:?} gave {result:?}"
        );
    }
}

#[tokio::test]
async fn tls_min_1_3_refuses_tls_1_2() {
    let server = world().server_since(TlsMin::Tls13);
    let client = Arc::new(anyone(&[&TLS12], &[]));
    let (result, _) = meet(&server, &client, "mx.example.org").await;
    assert!(
        matches!(result, Err(HandshakeError::Incompatible(_))),
        "{result:?}"
    );
    let client = Arc::new(anyone(&[&TLS13], &[]));
    let (result, _) = meet(&server, &client, "mx.example.org").await;
    assert!(result.is_ok(), "{result:?}");
}

/// ALPACA: a browser led to the mail port must not get through TLS.
#[tokio::test]
async fn refuses_clients_that_came_for_another_protocol() {
    let server = world().server();
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(anyone(&[version], &["h2", "http/1.1"]));
        let (result, connected) = meet(&server, &client, "mx.example.org").await;
        assert!(
            matches!(result, Err(HandshakeError::AlpnRefused)),
            "{result:?}"
        );
        let told = connected.unwrap_err().downcast::<rustls::Error>().unwrap();
        let alert = rustls::AlertDescription::NoApplicationProtocol;
        assert_eq!(told, rustls::Error::AlertReceived(alert));
    }
}

#[tokio::test]
async fn accepts_clients_that_ask_for_smtp_or_for_no_protocol() {
    let server = world().server();
    for alpn in [&["h2", "smtp"][..], &["smtp"], &[]] {
        let client = Arc::new(anyone(BOTH, alpn));
        let (result, _) = meet(&server, &client, "mx.example.org").await;
        assert!(result.is_ok(), "{alpn:?} gave {result:?}");
    }
}

#[tokio::test]
async fn resumes_sessions_in_both_versions() {
    let server = world().server();
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(anyone(&[version], &[]));
        let (first, _) = meet(&server, &client, "mx.example.org").await;
        assert!(!first.unwrap().resumed);
        let (second, _) = meet(&server, &client, "mx.example.org").await;
        assert!(second.unwrap().resumed, "{version:?}");
    }
}

/// What the server makes of these octets from a client that then leaves.
async fn hears(octets: &[u8]) -> HandshakeError {
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(octets).await.unwrap();
    drop(far);
    match world().server().accept(near).await {
        Ok((_, details)) => panic!("accepted {details:?}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn tells_a_client_without_tls_from_one_that_left() {
    for octets in ["EHLO client.example\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let error = hears(octets.as_bytes()).await;
        assert!(matches!(error, HandshakeError::NotTls), "{error:?}");
    }
    for octets in [&b""[..], b"\x16\x03\x01\x02"] {
        let error = hears(octets).await;
        assert!(matches!(error, HandshakeError::Gone(_)), "{error:?}");
    }
}

#[tokio::test]
async fn tells_the_alert_of_a_client_that_does_not_trust_the_certificate() {
    let (ours, theirs) = (world(), World::new());
    let client = ClientTls::new(BackendTls::Verify, Some(&theirs.ca)).unwrap();
    let server = ours.server();
    let (near, far) = tokio::io::duplex(4096);
    let (result, _) = tokio::join!(server.accept(near), client.connect("mx.example.org", far));
    match result {
        Err(HandshakeError::Alert(alert)) => assert_eq!(alert, "UnknownCA"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}
