//! Certificates and TLS handshakes, towards the client and towards the backend.
//!
//! Every rustls type stays in this room: the rest of the house sees a stream
//! and [`TlsDetails`]. The room never sets a deadline and never logs; both are
//! its caller's. The aws-lc-rs provider is handed to every builder, so nothing
//! here depends on a process-wide default.

mod accept;
mod certificate;
mod certs;
mod chooser;
mod connect;
mod files;
mod inspect;
mod stream;
mod verify;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use crate::metrics::TlsVersion;
use crate::settings::{Value, choice};

pub use accept::{HandshakeError, Renewal, ServerStream, ServerTls};
pub use certificate::LoadedCertificate;
pub use certs::Loaded;
pub use connect::{BackendTls, CertificateName, ClientStream, ClientTls, ConnectError};
pub use files::CertificateFiles;
pub use inspect::{Inspector, Presented};
pub use stream::{Stream, read_some, within};

crate::settings::section! {
    /// The certificates that clients are shown, and how old their TLS may be.
    pub struct Settings {
        /// Certificate chain (PEM file), the proxy's own certificate first.
        /// Needs `TLS_KEY`.
        tls_cert: Option<PathBuf>, example "/etc/ssl/mx.pem";
        /// Private key of `TLS_CERT` (PEM file, not encrypted).
        tls_key: Option<PathBuf>, example "/etc/ssl/mx.key";
        /// Folder of `<name>/fullchain.pem` and `<name>/privkey.pem`, one per
        /// host name, chosen by SNI; only the default may be missing. With no
        /// certificate anywhere a self-signed one is made for `HOSTNAME`.
        tls_dir: PathBuf = "certs", example "/etc/letsencrypt/live";
        /// How often certificates are looked at for changes, which are then shown
        /// to new clients; one that is broken changes nothing. `0s`: on HUP only.
        tls_reload: Duration = "10s", example "1min";
        /// Oldest TLS version that clients may use: `1.2` or `1.3`.
        tls_min: TlsMin = "1.2", example "1.3";
    }
}

impl Settings {
    /// The key of the setting that is behind a problem.
    pub fn key_of(&self, problem: &TlsError) -> &'static str {
        let path = match problem {
            TlsError::HalfASetting { missing, .. } if *missing == "TLS_KEY" => return "tls_key",
            TlsError::HalfASetting { .. } => return "tls_cert",
            TlsError::SelfSigned { .. } => return "hostname",
            TlsError::Library(_) => return "tls_min",
            TlsError::NoneLeft => return "tls_dir",
            TlsError::HalfAPair { present: path, .. }
            | TlsError::KeyMismatch { key: path, .. }
            | TlsError::Unreadable { path, .. }
            | TlsError::BadCertificate { path, .. }
            | TlsError::BadKey { path, .. }
            | TlsError::Expired { path, .. }
            | TlsError::NotYetValid { path, .. } => path,
        };
        if self.tls_cert.as_ref() == Some(path) {
            "tls_cert"
        } else if self.tls_key.as_ref() == Some(path) {
            "tls_key"
        } else {
            "tls_dir"
        }
    }

    /// `TLS_DIR`, for people: they may not know from where the program looks.
    pub fn folder(&self) -> PathBuf {
        std::path::absolute(&self.tls_dir).unwrap_or_else(|_| self.tls_dir.clone())
    }
}

/// The oldest TLS version that is spoken with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMin {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

impl Value for TlsMin {
    fn parse(text: &str) -> Result<Self, String> {
        choice(text, &[("1.2", TlsMin::Tls12), ("1.3", TlsMin::Tls13)])
    }
}

/// What a finished handshake agreed on, for trace headers and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsDetails {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The host name that the client asked for; a valid DNS name, but the client's word.
    pub sni: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

impl TlsDetails {
    fn of(connection: &rustls::CommonState, sni: Option<String>) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let suite = connection.negotiated_cipher_suite().map(|s| s.suite());
        TlsDetails {
            version,
            cipher: suite.map_or("unknown", iana_name),
            sni,
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl TlsDetails {
    fn metric(&self) -> TlsVersion {
        match self.version {
            "TLSv1.3" => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        }
    }
}

/// rustls says `TLS13_` where IANA says `TLS_`; the names of TLS 1.2 agree.
fn iana_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// Why certificates or TLS settings cannot be used. Each one names its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of `TLS_CERT` and `TLS_KEY` is set.
    #[error("{given} is set but {missing} is not; a certificate needs both")]
    HalfASetting {
        /// The setting that is there.
        given: &'static str,
        /// The setting that is not.
        missing: &'static str,
    },
    /// One file of a pair under `TLS_DIR` is missing.
    #[error("{present} has no {missing} beside it", present = present.display())]
    HalfAPair {
        /// The file that is there.
        present: PathBuf,
        /// The name of the file that is not.
        missing: &'static str,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file holds no certificate that can be used.
    #[error("{path} holds no usable certificate: {reason}", path = path.display())]
    BadCertificate {
        /// The PEM file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no private key that can be used.
    #[error("{path} holds no usable private key: {reason}", path = path.display())]
    BadKey {
        /// The PEM file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key belongs to another certificate.
    #[error("the key {key} does not fit the certificate {cert}", key = key.display(), cert = cert.display())]
    KeyMismatch {
        /// The PEM file with the chain.
        cert: PathBuf,
        /// The PEM file with the key.
        key: PathBuf,
    },
    /// The certificate is no longer valid.
    #[error("the certificate {path} expired on {}", humantime::format_rfc3339_seconds(*not_after), path = path.display())]
    Expired {
        /// The PEM file.
        path: PathBuf,
        /// The last moment at which it was valid.
        not_after: SystemTime,
    },
    /// The certificate will be valid only later.
    #[error("the certificate {path} is not valid before {}", humantime::format_rfc3339_seconds(*not_before), path = path.display())]
    NotYetValid {
        /// The PEM file.
        path: PathBuf,
        /// The first moment at which it will be valid.
        not_before: SystemTime,
    },
    /// There were certificates, and now there are none.
    #[error("no certificate is left")]
    NoneLeft,
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate for {hostname}: {reason}")]
    SelfSigned {
        /// The name it was meant for.
        hostname: String,
        /// What went wrong.
        reason: String,
    },
    /// The TLS library refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Library(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        TlsError::Library(error.to_string())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The TLS library's own error inside the I/O error that a failed handshake
/// returns, or that I/O error when the connection itself failed.
fn unwrap_handshake(error: std::io::Error) -> Result<rustls::Error, std::io::Error> {
    error.downcast::<rustls::Error>()
}
