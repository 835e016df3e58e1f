//! The backend's side of TLS: connects, and tells an old server from a false one.
//!
//! It never checks half: a mode either verifies the certificate or promises
//! nothing about it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::metrics::{self, Side};
use crate::settings::{Value, choice};

use super::verify::{Anyone, Authorities};
use super::{TlsDetails, TlsError, provider, unwrap_handshake};

/// An encrypted connection to the backend.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// How the backend is spoken to (`BACKEND_TLS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendTls {
    /// STARTTLS is never used.
    Off,
    /// Encrypt when the backend offers it; its certificate is not checked.
    Opportunistic,
    /// Always encrypt; the certificate is not checked.
    Encrypt,
    /// Always encrypt, and the certificate must be valid for the backend's name.
    Verify,
}

impl Value for BackendTls {
    fn parse(text: &str) -> Result<Self, String> {
        choice(
            text,
            &[
                ("off", BackendTls::Off),
                ("opportunistic", BackendTls::Opportunistic),
                ("encrypt", BackendTls::Encrypt),
                ("verify", BackendTls::Verify),
            ],
        )
    }
}

/// Connects to backends over TLS. Cheap to clone; all clones share the store
/// of sessions to resume.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
    /// The fingerprint of the authorities, where certificates are checked.
    authorities: Option<u64>,
}

/// Why the backend's handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    BadName(String),
    /// The backend's TLS is too old or too odd: no version or cipher in common.
    #[error("the backend's TLS is too old or unsupported: {0}")]
    Unsupported(String),
    /// The backend's certificate did not verify.
    #[error("the backend's certificate did not verify: {0}")]
    Untrusted(String),
    /// The backend broke the TLS protocol, or spoke none.
    #[error("the backend broke the TLS protocol: {0}")]
    Violation(String),
    /// The connection ended before the handshake did.
    #[error("the connection to the backend was lost during the handshake: {0}")]
    Lost(io::Error),
}

impl ClientTls {
    /// Prepares to connect; blocking file reads. In [`BackendTls::Verify`] the
    /// roots are the system's, or only those of the PEM file `ca`. In every
    /// other mode no certificate is checked and `ca` is not read; `Off` is
    /// among them for backends whose address itself asks for TLS (`smtps://`).
    ///
    /// # Errors
    /// The file `ca` cannot be read or holds no certificate.
    pub fn new(mode: BackendTls, ca: Option<&Path>) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let (verifier, authorities): (Arc<dyn ServerCertVerifier>, _) = match mode {
            BackendTls::Verify => {
                let authorities = Authorities::read(ca, provider)?;
                (authorities.verifier, Some(authorities.fingerprint))
            }
            BackendTls::Off | BackendTls::Opportunistic | BackendTls::Encrypt => {
                (Arc::new(Anyone { provider }), None)
            }
        };
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // ALPN stays empty: an old server may refuse a hello that carries it.
        Ok(ClientTls {
            connector: TlsConnector::from(Arc::new(config)),
            authorities,
        })
    }

    /// Whether both believe the same certificates.
    pub fn believes_like(&self, other: &Self) -> bool {
        self.authorities == other.authorities
    }

    /// Runs one whole handshake with the backend called `name`, a host name or
    /// an IP address. Only a host name is sent as SNI (RFC 6066 3). No deadline
    /// inside: wrap it in a timeout.
    ///
    /// # Errors
    /// [`ConnectError`]; only `Lost` is worth a retry as it stands.
    pub async fn connect<S>(
        &self,
        name: &str,
        stream: S,
    ) -> Result<(ClientStream<S>, TlsDetails), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server = server_name(name)?;
        let sni = match &server {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let handshake = metrics::get().handshake(Side::Backend);
        let stream = match self.connector.connect(server, stream).await {
            Ok(stream) => stream,
            Err(error) => {
                handshake.failed();
                return Err(error.into());
            }
        };
        let (_, connection) = stream.get_ref();
        let details = TlsDetails::of(connection, sni);
        handshake.succeeded(details.metric());
        Ok((stream, details))
    }
}

/// `BACKEND_TLS_NAME`: a host name or an IP address, as a certificate carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(String);

impl CertificateName {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for CertificateName {
    fn parse(text: &str) -> Result<Self, String> {
        match server_name(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err("is no host name and no IP address".to_owned()),
        }
    }
}

/// The name that a certificate is checked for.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, ConnectError> {
    ServerName::try_from(name.trim_end_matches('.'))
        .map(|name| name.to_owned())
        .map_err(|_| ConnectError::BadName(name.to_owned()))
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        use rustls::Error;
        match unwrap_handshake(error) {
            Ok(Error::InvalidCertificate(why)) => ConnectError::Untrusted(why.to_string()),
            Ok(Error::PeerIncompatible(why)) => ConnectError::Unsupported(format!("{why:?}")),
            Ok(Error::AlertReceived(
                alert @ (AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity),
            )) => ConnectError::Unsupported(format!("alert {alert:?}")),
            Ok(other) => ConnectError::Violation(other.to_string()),
            Err(error) => ConnectError::Lost(error),
        }
    }
}
