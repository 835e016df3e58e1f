//! The proxy's own certificates: loads them, checks them, chooses one by SNI.
//!
//! It reports every problem it finds at once and never serves a certificate
//! that it had to complain about. It never writes a file: the self-signed
//! certificate that stands in when there is no other lives in memory only.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Settings, TlsError};

const CHAIN_FILE: &str = "fullchain.pem";
const KEY_FILE: &str = "privkey.pem";

/// The certificates that clients may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Read from files. The first one is the default: it is shown to clients
    /// that send no SNI or a name that none of them covers.
    FromFiles(Vec<LoadedCertificate>),
    /// There were no files, so this one was made for `HOSTNAME`. Worth a loud
    /// warning: no client can verify it, and it changes with every start.
    SelfSigned(LoadedCertificate),
}

/// One certificate as the log should show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCertificate {
    /// The PEM file it came from; none if it was made in memory.
    pub file: Option<PathBuf>,
    /// The DNS names it covers, lower case, as the certificate states them.
    pub names: Vec<String>,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl Loaded {
    /// All of them, the default first.
    pub fn certificates(&self) -> &[LoadedCertificate] {
        match self {
            Self::FromFiles(certificates) => certificates,
            Self::SelfSigned(certificate) => std::slice::from_ref(certificate),
        }
    }
}

impl LoadedCertificate {
    /// What people and metrics call it: its file.
    pub fn label(&self) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => "self-signed".to_owned(),
        }
    }
}

/// Loads what the settings name, or makes a self-signed certificate.
pub(super) fn load(
    settings: &Settings,
    hostname: &str,
    provider: &CryptoProvider,
) -> Result<(Chooser, Loaded), Vec<TlsError>> {
    let mut problems = Vec::new();
    let pairs = pairs(settings, &mut problems);
    if pairs.is_empty() && problems.is_empty() {
        let made = self_signed(hostname, provider).map_err(|problem| vec![problem])?;
        let loaded = Loaded::SelfSigned(made.summary.clone());
        return Ok((Chooser::over(&[made]), loaded));
    }
    let mut found = Vec::new();
    for pair in pairs {
        match pair.load(provider) {
            Ok(certificate) => found.push(certificate),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    put_default_first(&mut found, settings, hostname);
    let loaded = found.iter().map(|c| c.summary.clone()).collect();
    Ok((Chooser::over(&found), Loaded::FromFiles(loaded)))
}

/// A chain and a key on disk that belong together.
struct Pair {
    /// The folder's name in lower case, a host name by convention.
    folder: Option<String>,
    chain: PathBuf,
    key: PathBuf,
}

/// `TLS_CERT` first, then the folders of `TLS_DIR` by name.
fn pairs(settings: &Settings, problems: &mut Vec<TlsError>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(chain), Some(key)) => pairs.push(Pair {
            folder: None,
            chain: chain.clone(),
            key: key.clone(),
        }),
        (Some(_), None) => problems.push(TlsError::HalfASetting {
            given: "TLS_CERT",
            missing: "TLS_KEY",
        }),
        (None, Some(_)) => problems.push(TlsError::HalfASetting {
            given: "TLS_KEY",
            missing: "TLS_CERT",
        }),
        (None, None) => {}
    }
    match folders(&settings.tls_dir) {
        Ok(folders) => {
            for folder in folders {
                match pair_in(&folder) {
                    Ok(pair) => pairs.extend(pair),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        Err(problem) => problems.push(problem),
    }
    pairs
}

/// The folders right below `dir`, links to folders included (certbot and
/// Kubernetes make such), by name; none when there is no `dir`.
fn folders(dir: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut folders = paths.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

/// The pair in a folder, or nothing if the folder holds neither file.
fn pair_in(folder: &Path) -> Result<Option<Pair>, TlsError> {
    let (chain, key) = (folder.join(CHAIN_FILE), folder.join(KEY_FILE));
    let half = |present: &Path, missing| TlsError::HalfAPair {
        present: present.to_owned(),
        missing,
    };
    match (exists(&chain)?, exists(&key)?) {
        (true, true) => Ok(Some(Pair {
            folder: folder
                .file_name()
                .map(|name| name.to_string_lossy().to_ascii_lowercase()),
            chain,
            key,
        })),
        (true, false) => Err(half(&chain, KEY_FILE)),
        (false, true) => Err(half(&key, CHAIN_FILE)),
        (false, false) => Ok(None),
    }
}

/// A folder that may not be entered is an error, not an absent file.
fn exists(path: &Path) -> Result<bool, TlsError> {
    path.try_exists().map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// A certificate that passed every check.
struct Certificate {
    key: Arc<CertifiedKey>,
    folder: Option<String>,
    summary: LoadedCertificate,
}

impl Pair {
    fn load(self, provider: &CryptoProvider) -> Result<Certificate, Vec<TlsError>> {
        match (
            read_certificates(&self.chain),
            read_key(&self.key, provider),
        ) {
            (Ok(chain), Ok(key)) => self
                .check(CertifiedKey::new(chain, key))
                .map_err(|problem| vec![problem]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// Whether the two belong together and may be shown to anybody today.
    fn check(self, certified: CertifiedKey) -> Result<Certificate, TlsError> {
        let bad = |reason| TlsError::BadCertificate {
            path: self.chain.clone(),
            reason,
        };
        let (names, not_after) = describe(&certified.cert).map_err(bad)?;
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::KeyMismatch {
                    cert: self.chain,
                    key: self.key,
                });
            }
            Err(error) => return Err(bad(error.to_string())),
        }
        if not_after < SystemTime::now() {
            return Err(TlsError::Expired {
                path: self.chain,
                not_after,
            });
        }
        Ok(Certificate {
            key: Arc::new(certified),
            folder: self.folder,
            summary: LoadedCertificate {
                file: Some(self.chain),
                names,
                not_after,
            },
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// Every certificate of a PEM file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason| TlsError::BadCertificate {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad("no CERTIFICATE section in PEM form".to_owned()));
    }
    Ok(chain)
}

fn read_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, TlsError> {
    let bad = |reason| TlsError::BadKey {
        path: path.to_owned(),
        reason,
    };
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        bad(match error {
            pem::Error::NoItemsFound => {
                "no PRIVATE KEY section in PEM form (an encrypted one cannot be read)".to_owned()
            }
            other => other.to_string(),
        })
    })?;
    provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| bad(error.to_string()))
}

/// The DNS names and the last valid moment of the first certificate.
pub(super) fn describe(chain: &[CertificateDer<'_>]) -> Result<(Vec<String>, SystemTime), String> {
    let leaf = chain.first().ok_or("the chain is empty")?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
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
    Ok((names, not_after))
}

fn self_signed(hostname: &str, provider: &CryptoProvider) -> Result<Certificate, TlsError> {
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
    let (names, not_after) = describe(&chain).map_err(failed)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| failed(e.to_owned()))?;
    let certified =
        CertifiedKey::from_der(chain, key, provider).map_err(|e| failed(e.to_string()))?;
    Ok(Certificate {
        key: Arc::new(certified),
        folder: None,
        summary: LoadedCertificate {
            file: None,
            names,
            not_after,
        },
    })
}

/// The default is `TLS_CERT`, which already stands first, else the certificate
/// that covers the proxy's own name, else the first folder.
fn put_default_first(found: &mut [Certificate], settings: &Settings, hostname: &str) {
    if settings.tls_cert.is_some() {
        return;
    }
    let hostname = hostname.to_ascii_lowercase();
    let wildcard = wildcard_for(&hostname);
    let covers = |wanted: &String| {
        found
            .iter()
            .position(|certificate| certificate.summary.names.contains(wanted))
    };
    let own = covers(&hostname).or_else(|| wildcard.as_ref().and_then(covers));
    if let Some(head) = own.and_then(|index| found.get_mut(..=index)) {
        head.rotate_right(1);
    }
}

/// `*.example.org` for `mail.example.org`: a wildcard stands for exactly one
/// label, the leftmost (RFC 6125 6.4.3).
fn wildcard_for(name: &str) -> Option<String> {
    name.split_once('.')
        .map(|(_, parent)| format!("*.{parent}"))
}

/// Picks the certificate for a ClientHello.
#[derive(Debug)]
pub(super) struct Chooser {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Chooser {
    /// When two certificates claim one name, the folder called by that name
    /// wins if its certificate covers it, then the earlier certificate. A
    /// folder whose name its certificate does not cover comes last.
    fn over(certificates: &[Certificate]) -> Self {
        let folders = || {
            certificates
                .iter()
                .filter_map(|c| Some((c.folder.as_ref()?, c)))
        };
        let covered = folders().filter(|(name, c)| c.summary.names.contains(name));
        let stated = certificates
            .iter()
            .flat_map(|c| c.summary.names.iter().map(move |name| (name, c)));
        let mut by_name = HashMap::new();
        for (name, certificate) in covered.chain(stated).chain(folders()) {
            by_name
                .entry(name.clone())
                .or_insert_with(|| Arc::clone(&certificate.key));
        }
        Chooser {
            by_name,
            default: certificates.first().map(|c| Arc::clone(&c.key)),
        }
    }

    fn choose(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = sni.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.by_name.get(name));
        let wildcard = || {
            let name = wildcard_for(name.as_ref()?)?;
            self.by_name.get(&name)
        };
        exact
            .or_else(wildcard)
            .or(self.default.as_ref())
            .map(Arc::clone)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}
