//! One certificate with its key: read from files or made, checked, described.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::TlsError;
use super::files::{Found, Origin, Pair, PemFile};

/// One certificate as the log should show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCertificate {
    /// The PEM file it came from; none if it was made in memory.
    pub file: Option<PathBuf>,
    /// The DNS names it covers, lower case, as the certificate states them.
    pub names: Vec<String>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl LoadedCertificate {
    /// What people and metrics call it: its file.
    pub fn label(&self) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => "self-signed".to_owned(),
        }
    }

    /// Whether it will be valid only later.
    pub fn is_early(&self, now: SystemTime) -> bool {
        self.not_before > now
    }

    /// Whether clients that check will take it, as far as its dates go.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// A certificate that passed every check.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// As in [`Origin`].
    pub(super) folder: Option<String>,
    pub(super) summary: LoadedCertificate,
}

/// Where it comes from, and what is wrong.
pub(super) type Unusable = (Origin, Vec<TlsError>);

impl Found {
    pub(super) fn load(self, provider: &CryptoProvider) -> Result<Certificate, Unusable> {
        match self {
            Self::Pair(pair) => pair.load(provider),
            Self::Broken { origin, problems } => Err((origin, problems)),
        }
    }
}

impl Pair {
    pub(super) fn load(self, provider: &CryptoProvider) -> Result<Certificate, Unusable> {
        let origin = Origin {
            folder: self.folder.clone(),
            chain: self.chain.path.clone(),
        };
        let loaded = match (self.chain.certificates(), self.key.key(provider)) {
            (Ok(chain), Ok(key)) => self
                .check(CertifiedKey::new(chain, key))
                .map_err(|problem| vec![problem]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        };
        loaded.map_err(|problems| (origin, problems))
    }

    /// Whether the two belong together and have not expired.
    fn check(self, certified: CertifiedKey) -> Result<Certificate, TlsError> {
        let bad = |reason| TlsError::BadCertificate {
            path: self.chain.path.clone(),
            reason,
        };
        let described = describe(&certified.cert).map_err(bad)?;
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::KeyMismatch {
                    cert: self.chain.path,
                    key: self.key.path,
                });
            }
            Err(error) => return Err(bad(error.to_string())),
        }
        if described.not_after < SystemTime::now() {
            return Err(TlsError::Expired {
                path: self.chain.path,
                not_after: described.not_after,
            });
        }
        Ok(Certificate {
            key: Arc::new(certified),
            folder: self.folder,
            summary: LoadedCertificate {
                file: Some(self.chain.path),
                ..described
            },
        })
    }
}

/// Every certificate of a PEM file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    PemFile::read(path)?.certificates()
}

impl PemFile {
    /// Every certificate of the file, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bad = |reason| TlsError::BadCertificate {
            path: self.path.clone(),
            reason,
        };
        let chain = CertificateDer::pem_slice_iter(&self.content)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(error.to_string()))?;
        if chain.is_empty() {
            return Err(bad("no CERTIFICATE section in PEM form".to_owned()));
        }
        Ok(chain)
    }

    fn key(&self, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, TlsError> {
        let bad = |reason| TlsError::BadKey {
            path: self.path.clone(),
            reason,
        };
        let key = PrivateKeyDer::from_pem_slice(&self.content).map_err(|error| {
            bad(match error {
                pem::Error::NoItemsFound => {
                    "no PRIVATE KEY section in PEM form (an encrypted one cannot be read)"
                        .to_owned()
                }
                other => other.to_string(),
            })
        })?;
        provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| bad(error.to_string()))
    }
}

/// The first certificate, whatever file it is from.
pub(super) fn describe(chain: &[CertificateDer<'_>]) -> Result<LoadedCertificate, String> {
    let leaf = chain.first().ok_or("the chain is empty")?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let moment = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    let alternative = leaf
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    Ok(LoadedCertificate {
        file: None,
        names,
        not_before: moment(leaf.validity().not_before),
        not_after: moment(leaf.validity().not_after),
    })
}

pub(super) fn self_signed(
    hostname: &str,
    provider: &CryptoProvider,
) -> Result<Certificate, TlsError> {
    let failed = |reason: String| TlsError::SelfSigned {
        hostname: hostname.to_owned(),
        reason,
    };
    let making = |error: rcgen::Error| failed(error.to_string());
    let mut parameters = rcgen::CertificateParams::new([hostname.to_owned()]).map_err(making)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, hostname);
    // P-256: an RSA handshake costs the server about four times as much.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(making)?;
    let chain = vec![parameters.self_signed(&key).map_err(making)?.der().clone()];
    let summary = describe(&chain).map_err(failed)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| failed(e.to_owned()))?;
    let certified =
        CertifiedKey::from_der(chain, key, provider).map_err(|e| failed(e.to_string()))?;
    Ok(Certificate {
        key: Arc::new(certified),
        folder: None,
        summary,
    })
}
