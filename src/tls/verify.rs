//! Whether the backend's certificate is believed.
//!
//! Nothing here is a compromise: [`Authorities`] check everything, [`Anyone`]
//! checks nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;
use super::certificate::{describe, read_certificates};

/// Those whose certificates are believed, as they were when they were read.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) verifier: Arc<dyn ServerCertVerifier>,
    /// Another number where others are believed.
    pub(super) fingerprint: u64,
}

impl Authorities {
    /// Those of the PEM file `ca`, or else the system's; blocking file reads.
    pub(super) fn read(ca: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let fingerprint = |certificates: &[CertificateDer<'_>]| {
            let mut hasher = DefaultHasher::new();
            certificates.hash(&mut hasher);
            hasher.finish()
        };
        if let Some(ca) = ca {
            let issued = Issued::by(ca, provider)?;
            return Ok(Self {
                fingerprint: fingerprint(&issued.named),
                verifier: Arc::new(issued),
            });
        }
        let found = rustls_native_certs::load_native_certs();
        let certificates = found.certs;
        match found.errors.first() {
            // Not those of Mozilla in their place: the admin may have chosen them.
            Some(error) if certificates.is_empty() => {
                let reason = format!("the system's authorities cannot be read: {error}");
                return Err(TlsError::Library(reason));
            }
            Some(error) => {
                tracing::warn!(%error, "some of the system's authorities cannot be read");
            }
            None => {}
        }
        Ok(Self {
            fingerprint: fingerprint(&certificates),
            verifier: system_roots(certificates, provider)?,
        })
    }
}

/// Believes what these roots of the system have issued, or Mozilla's as compiled in
/// on a system that has none, such as a container built from scratch.
fn system_roots(
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    issued_by(roots, provider)
}

fn issued_by(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsError::Library(error.to_string()))
}

/// Believes what the certificates of a PEM file have issued, and those
/// certificates themselves.
///
/// The second half is for old servers that made their own certificate: the
/// usual tool marks such a one as an authority, and the library takes no
/// authority's certificate for a server's. That the admin named exactly this
/// certificate is stronger than any issuer's word; its name and its dates
/// must still be right.
#[derive(Debug)]
struct Issued {
    named: Vec<CertificateDer<'static>>,
    by_chain: Arc<WebPkiServerVerifier>,
}

impl Issued {
    /// Reads the PEM file.
    fn by(ca: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let named = read_certificates(ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in &named {
            roots
                .add(certificate.clone())
                .map_err(|error| TlsError::BadCertificate {
                    path: ca.to_owned(),
                    reason: error.to_string(),
                })?;
        }
        let by_chain = issued_by(roots, provider)?;
        Ok(Issued { named, by_chain })
    }
}

/// Moments before 1970 as its first one.
fn unix(moment: SystemTime) -> UnixTime {
    let since_epoch = moment.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since_epoch.unwrap_or_default())
}

impl ServerCertVerifier for Issued {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.named.contains(certificate) {
            return self
                .by_chain
                .verify_server_cert(certificate, intermediates, name, ocsp, now);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let described = describe(std::slice::from_ref(certificate))
            .map_err(|_| CertificateError::BadEncoding)?;
        let time = now;
        let not_before = unix(described.not_before);
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time, not_before }.into());
        }
        let not_after = unix(described.not_after);
        if not_after < now {
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_chain.supported_verify_schemes()
    }
}

/// Accepts any certificate, and any signature made with it.
///
/// Whoever can stand between proxy and backend can also bring a certificate of
/// his own with a perfect signature, so checking the signature alone would
/// protect nothing; but it would shut out the servers this proxy is for, whose
/// X.509 v1 certificates and 1024 bit keys the library cannot check.
#[derive(Debug)]
pub(super) struct Anyone {
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self
            .provider
            .signature_verification_algorithms
            .supported_schemes();
        // The only ones that some servers of the TLS 1.2 era can make.
        schemes.extend([
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]);
        schemes
    }
}
