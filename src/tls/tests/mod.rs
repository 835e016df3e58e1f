//! Real handshakes. Every certificate and key is made here, in a folder that
//! goes away with the test.

mod accept;
mod certs;
mod connect;
mod renew;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::verify::Anyone;
use super::*;

/// A folder with an authority and the certificates that it issued.
struct World {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
}

/// How long a certificate is valid.
#[derive(Clone, Copy)]
enum Validity {
    Ages,
    Over,
    Later,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("certs")).unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two worlds must not have authorities of one name.
        let name = dir.path().to_string_lossy().into_owned();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, certificate.pem()).unwrap();
        let issuer = Issuer::new(parameters, key);
        World { dir, issuer, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `certs/<folder>/fullchain.pem` and `privkey.pem`, issued for `names`.
    fn folder(&self, folder: &str, names: &[&str]) -> &Self {
        self.folder_valid(folder, names, Validity::Ages)
    }

    fn folder_valid(&self, folder: &str, names: &[&str], validity: Validity) -> &Self {
        let folder = self.path("certs").join(folder);
        fs::create_dir(&folder).unwrap();
        let (chain, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        self.issue(&chain, &key, names, validity);
        self
    }

    fn issue(&self, chain: &Path, key: &Path, names: &[&str], validity: Validity) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        match validity {
            Validity::Ages => {}
            Validity::Over => parameters.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Validity::Later => parameters.not_before = rcgen::date_time_ymd(4000, 1, 1),
        }
        let pair = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&pair, &self.issuer).unwrap();
        fs::write(chain, certificate.pem()).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            tls_cert: None,
            tls_key: None,
            tls_dir: self.path("certs"),
            tls_min: TlsMin::Tls12,
            ..Settings::default()
        }
    }

    fn server(&self) -> ServerTls {
        let server = ServerTls::new(&self.settings(), "mx.example.org");
        server.unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    fn server_since(&self, tls_min: TlsMin) -> ServerTls {
        let settings = Settings {
            tls_min,
            ..self.settings()
        };
        ServerTls::new(&settings, "mx.example.org").unwrap().0
    }
}

/// What a client that trusts anybody can be told to do.
fn anyone(versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone { provider }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

type Connected = Result<ClientStream<DuplexStream>, std::io::Error>;

/// One handshake in memory; after a good one the server's greeting travels,
/// and with it the session ticket.
async fn meet(
    server: &ServerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Result<TlsDetails, HandshakeError>, Connected) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = async {
        let (mut stream, details) = server.accept(near).await?;
        stream.write_all(b"220 \r\n").await?;
        stream.flush().await?;
        Ok(details)
    };
    let connecting = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
        let mut stream = connector.connect(name, far).await?;
        stream.read_exact(&mut [0; 6]).await?;
        Ok(stream)
    };
    tokio::join!(serving, connecting)
}
