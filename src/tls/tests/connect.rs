use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;

use super::super::certificate::read_certificates;
use super::*;

/// `openssl s_server` as a backend.
struct OpenSsl {
    child: Child,
    address: String,
    /// Kept open, so that the server may go on printing.
    _printed: BufReader<ChildStdout>,
}

impl OpenSsl {
    fn serve(cert: &Path, key: &Path, options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .arg(cert)
            .arg("-key")
            .arg(key)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl must be installed");
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        let address = printed
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned))
            .expect("openssl s_server must start");
        OpenSsl {
            child,
            address,
            _printed: printed,
        }
    }

    async fn connected(&self, mode: BackendTls) -> Result<TlsDetails, ConnectError> {
        let client = ClientTls::new(mode, None).unwrap();
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let connected = client.connect("old.example.org", stream).await;
        connected.map(|(_, details)| details)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(arguments: &str, dir: &Path) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl must be installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {error}");
}

/// One handshake in memory with a backend that shows the certificates of `world`.
async fn connect(
    client: &ClientTls,
    world: &World,
    name: &str,
) -> Result<TlsDetails, ConnectError> {
    let server = world.server();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = async {
        if let Ok((mut stream, _)) = server.accept(near).await {
            let _ = stream.write_all(b"220 \r\n").await;
            let _ = stream.flush().await;
        }
    };
    let connecting = async {
        let (mut stream, details) = client.connect(name, far).await?;
        stream.read_exact(&mut [0; 6]).await.unwrap();
        Ok(details)
    };
    tokio::join!(serving, connecting).1
}

fn verify(ca: &Path) -> ClientTls {
    ClientTls::new(BackendTls::Verify, Some(ca)).unwrap()
}

#[track_caller]
fn assert_untrusted(result: Result<TlsDetails, ConnectError>, reason: &str) {
    match result {
        Err(ConnectError::Untrusted(why)) => assert!(why.contains(reason), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn verify_accepts_the_right_authority_and_name() {
    let world = World::new();
    world.folder("a", &["mx.example.org", "192.0.2.1"]);
    let client = verify(&world.ca);
    let details = connect(&client, &world, "mx.example.org").await.unwrap();
    assert_eq!(details.sni.as_deref(), Some("mx.example.org"));
    let details = connect(&client, &world, "192.0.2.1").await.unwrap();
    assert_eq!(details.sni, None);
    assert!(connect(&client, &world, "mx.example.org.").await.is_ok());
}

#[tokio::test]
async fn verify_refuses_a_wrong_name_a_wrong_authority_and_a_certificate_at_the_wrong_time() {
    let world = World::new();
    world.folder("a", &["mx.example.org"]);
    let result = connect(&verify(&world.ca), &world, "other.example.org").await;
    assert_untrusted(result, "not valid for name");
    let stranger = World::new();
    let result = connect(&verify(&stranger.ca), &world, "mx.example.org").await;
    assert_untrusted(result, "UnknownIssuer");

    for (validity, reason) in [
        (Validity::Over, "expired"),
        (Validity::Later, "not valid yet"),
    ] {
        let (cert, key) = (world.path("mx.pem"), world.path("mx.key"));
        world.issue(&cert, &key, &["mx.example.org"], validity);
        let backend = OpenSsl::serve(&cert, &key, &[]);
        for ca in [&world.ca, &cert] {
            let stream = TcpStream::connect(&backend.address).await.unwrap();
            let result = verify(ca).connect("mx.example.org", stream).await;
            assert_untrusted(result.map(|(_, details)| details), reason);
        }
    }
}

#[tokio::test]
async fn verify_with_system_roots_refuses_a_private_authority() {
    let world = World::new();
    world.folder("a", &["mx.example.org"]);
    let client = ClientTls::new(BackendTls::Verify, None).unwrap();
    let result = connect(&client, &world, "mx.example.org").await;
    assert_untrusted(result, "UnknownIssuer");
}

/// The usual `openssl req -x509` marks its certificate as an authority's.
#[tokio::test]
async fn verify_accepts_the_very_certificate_that_the_admin_named() {
    let world = World::new();
    let dir = world.dir.path();
    for name in ["ours", "theirs"] {
        openssl(
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} \
                 -addext subjectAltName=DNS:mx.example.org -keyout {name}.key -out {name}.pem"
            ),
            dir,
        );
    }
    let (ours, theirs) = (world.path("ours.pem"), world.path("theirs.pem"));
    let backend = OpenSsl::serve(&ours, &world.path("ours.key"), &[]);
    for (ca, name, trusted) in [
        (&ours, "mx.example.org", true),
        (&ours, "other.example.org", false),
        (&theirs, "mx.example.org", false),
    ] {
        let stream = TcpStream::connect(&backend.address).await.unwrap();
        let result = verify(ca).connect(name, stream).await.map(|_| ());
        assert_eq!(result.is_ok(), trusted, "{name} gave {result:?}");
    }
}

/// A certificate is public: showing the right one proves nothing without its key.
#[tokio::test]
async fn verify_refuses_the_right_certificate_without_its_key() {
    let world = World::new();
    let (cert, key) = (world.path("a.pem"), world.path("a.key"));
    world.issue(&cert, &key, &["mx.example.org"], Validity::Ages);
    let other = KeyPair::generate().unwrap().serialize_der();
    let other = provider()
        .key_provider
        .load_private_key(other.try_into().unwrap())
        .unwrap();
    let chain = read_certificates(&cert).unwrap();
    let stolen = rustls::sign::SingleCertAndKey::from(CertifiedKey::new(chain, other));
    let stolen = Arc::new(stolen);
    for version in BOTH {
        let thief = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[*version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(stolen.clone());
        let thief = tokio_rustls::TlsAcceptor::from(Arc::new(thief));
        for ca in [&world.ca, &cert] {
            let (near, far) = tokio::io::duplex(16 * 1024);
            let client = verify(ca);
            let connecting = client.connect("mx.example.org", far);
            let (_, result) = tokio::join!(thief.accept(near), connecting);
            assert_untrusted(result.map(|(_, details)| details), "BadSignature");
        }
    }
}

#[tokio::test]
async fn the_unchecked_modes_accept_a_stranger() {
    let world = World::new();
    world.folder("a", &["elsewhere.example"]);
    for mode in [BackendTls::Opportunistic, BackendTls::Encrypt] {
        let client = ClientTls::new(mode, None).unwrap();
        let result = connect(&client, &world, "mx.example.org").await;
        assert!(result.is_ok(), "{mode:?} gave {result:?}");
    }
}

#[tokio::test]
async fn resumes_sessions_with_the_backend() {
    let world = World::new();
    world.folder("a", &["mx.example.org"]);
    let (client, server) = (verify(&world.ca), world.server());
    for resumed in [false, true] {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let serving = async {
            let (mut stream, _) = server.accept(near).await.unwrap();
            stream.write_all(b"220 \r\n").await.unwrap();
            stream.flush().await.unwrap();
        };
        let connecting = async {
            let (mut stream, details) = client.connect("mx.example.org", far).await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
            details
        };
        let (_, details) = tokio::join!(serving, connecting);
        assert_eq!(details.resumed, resumed);
    }
}

#[tokio::test]
async fn encrypt_speaks_with_servers_whose_certificates_are_of_another_age() {
    let world = World::new();
    let dir = world.dir.path();
    openssl(
        "req -x509 -newkey rsa:1024 -sha1 -nodes -days 30 -subj /CN=old -keyout short.key -out short.pem",
        dir,
    );
    openssl(
        "req -new -newkey rsa:2048 -nodes -subj /CN=old -keyout v1.key -out v1.csr",
        dir,
    );
    openssl(
        "x509 -req -in v1.csr -signkey v1.key -days 30 -out v1.pem",
        dir,
    );
    for name in ["short", "v1"] {
        let cert = world.path(&format!("{name}.pem"));
        let key = world.path(&format!("{name}.key"));
        for version in ["-tls1_2", "-tls1_3"] {
            let backend = OpenSsl::serve(&cert, &key, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
            let result = backend.connected(BackendTls::Encrypt).await;
            assert!(result.is_ok(), "{name} {version} gave {result:?}");
        }
    }
}

#[tokio::test]
async fn tells_a_backend_that_is_too_old() {
    let world = World::new();
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=old -keyout rsa.key -out rsa.pem",
        world.dir.path(),
    );
    let (cert, key) = (world.path("rsa.pem"), world.path("rsa.key"));
    let options: [&[&str]; 3] = [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-SHA"],
    ];
    for options in options {
        let backend = OpenSsl::serve(&cert, &key, options);
        let result = backend.connected(BackendTls::Opportunistic).await;
        assert!(
            matches!(result, Err(ConnectError::Unsupported(_))),
            "{options:?} gave {result:?}"
        );
    }
}

#[tokio::test]
async fn tells_a_backend_that_speaks_no_tls_from_a_lost_one() {
    let client = ClientTls::new(BackendTls::Opportunistic, None).unwrap();
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(b"454 TLS not available\r\n").await.unwrap();
    let result = client.connect("mx.example.org", near).await.map(|_| ());
    assert!(
        matches!(result, Err(ConnectError::Violation(_))),
        "{result:?}"
    );
    let (near, far) = tokio::io::duplex(4096);
    drop(far);
    let result = client.connect("mx.example.org", near).await.map(|_| ());
    assert!(matches!(result, Err(ConnectError::Lost(_))), "{result:?}");
}

#[tokio::test]
async fn refuses_a_name_that_is_none_and_a_ca_file_that_is_none() {
    let client = ClientTls::new(BackendTls::Encrypt, None).unwrap();
    let (near, _far) = tokio::io::duplex(64);
    let result = client.connect("not a name", near).await.map(|_| ());
    assert!(
        matches!(result, Err(ConnectError::BadName(_))),
        "{result:?}"
    );
    let world = World::new();
    let absent = ClientTls::new(BackendTls::Verify, Some(&world.path("absent"))).map(|_| ());
    assert!(matches!(absent, Err(TlsError::Unreadable { .. })));
    fs::write(world.path("empty"), "").unwrap();
    let empty = ClientTls::new(BackendTls::Verify, Some(&world.path("empty"))).map(|_| ());
    assert!(matches!(empty, Err(TlsError::BadCertificate { .. })));
}
