//! Looks at a server's certificate: whose it is, and whether it would be believed.
//!
//! Only for people who ask. Nothing but a goodbye may be said on a stream that
//! was opened here: its certificate is never insisted on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::describe;
use super::connect::server_name;
use super::verify::Authorities;
use super::{ClientStream, ConnectError, TlsDetails, TlsError, provider};

/// What a server presented.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The DNS names of its certificate, else its subject as a whole.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// The last moment at which it is valid, if it can be read.
    pub not_after: Option<SystemTime>,
    /// What the handshake agreed on.
    pub tls: TlsDetails,
    /// Why `BACKEND_TLS=verify` would refuse it; `None` when it would not.
    pub complaint: Option<String>,
}

/// Shakes hands as [`BackendTls::Verify`](super::BackendTls::Verify) would, but
/// goes on where that would stop.
#[derive(Debug)]
pub struct Inspector {
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Inspector {
    /// Believes the authorities of the PEM file `ca`, or else the system's;
    /// blocking file reads.
    ///
    /// # Errors
    /// The file `ca` cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>) -> Result<Self, TlsError> {
        let Authorities { verifier, .. } = Authorities::read(ca, provider())?;
        Ok(Self { verifier })
    }

    /// One whole handshake with the server called `name`. No deadline inside.
    ///
    /// # Errors
    /// When there is no TLS to be had, whatever the certificate.
    pub async fn inspect<S>(
        &self,
        name: &str,
        stream: S,
    ) -> Result<(ClientStream<S>, Presented), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let witness = Arc::new(Witness {
            verifier: Arc::clone(&self.verifier),
            complaint: Mutex::default(),
        });
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::Violation(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(server_name(name)?, stream).await?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let (names, issuer, not_after) = read(chain);
        let presented = Presented {
            names,
            issuer,
            not_after,
            tls: TlsDetails::of(connection, None),
            complaint: witness.complaint(),
        };
        Ok((stream, presented))
    }
}

/// Names, issuer and end of the first certificate.
fn read(chain: &[CertificateDer<'_>]) -> (Vec<String>, String, Option<SystemTime>) {
    let parsed = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let (subject, issuer) = match &parsed {
        Some((_, leaf)) => (leaf.subject().to_string(), leaf.issuer().to_string()),
        None => ("unreadable".to_owned(), "nobody knows".to_owned()),
    };
    let (mut names, not_after) = match describe(chain) {
        Ok(described) => (described.names, Some(described.not_after)),
        Err(_) => (Vec::new(), None),
    };
    if names.is_empty() {
        names.push(subject);
    }
    (names, issuer, not_after)
}

/// Lets everything pass and remembers the first thing that would not have.
#[derive(Debug)]
struct Witness {
    verifier: Arc<dyn ServerCertVerifier>,
    complaint: Mutex<Option<String>>,
}

impl Witness {
    fn complaint(&self) -> Option<String> {
        let complaint = self.complaint.lock();
        complaint.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear<T>(&self, judged: Result<T, Error>, pass: T) -> Result<T, Error> {
        if let Err(error) = judged {
            let what = match error {
                Error::InvalidCertificate(why) => why.to_string(),
                other => other.to_string(),
            };
            let complaint = self.complaint.lock();
            complaint
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(what);
        }
        Ok(pass)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self
            .verifier
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        self.hear(judged, ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let judged = self
            .verifier
            .verify_tls12_signature(message, certificate, signature);
        self.hear(judged, HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let judged = self
            .verifier
            .verify_tls13_signature(message, certificate, signature);
        self.hear(judged, HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
