//! The proxy's own certificates: checks them, chooses one by SNI.
//!
//! It reports every problem it finds at once and never serves a certificate
//! that it had to complain about. It never writes a file: the self-signed
//! certificate that stands in when there is no other lives in memory only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::files::{CertificateFiles, Found, Pair, PemFile};
use super::{Settings, TlsError};

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
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
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

    /// Whether it will be valid only later.
    pub fn is_early(&self, now: SystemTime) -> bool {
        self.not_before > now
    }

    /// Whether clients that check will take it, as far as its dates go.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// Loads what the files hold, or makes a self-signed certificate where there are
/// none.
pub(super) fn load(
    files: CertificateFiles,
    settings: &Settings,
    hostname: &str,
    provider: &CryptoProvider,
) -> Result<Chooser, Vec<TlsError>> {
    let (mut found, mut problems) = (Vec::new(), files.problems);
    for one in files.found {
        match one.load(provider) {
            Ok(certificate) => found.push(certificate),
            Err((_, more)) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if found.is_empty() {
        found.push(self_signed(hostname, provider).map_err(|problem| vec![problem])?);
    }
    put_default_first(&mut found, settings, hostname);
    Ok(Chooser::over(found))
}

/// Loads what the files hold by now. A certificate that cannot be used any more,
/// or not yet, is replaced by what `old` has of the same file; so are all of them
/// when it is unknown which there are, and when none would be left. The problems
/// are told.
pub(super) fn renew(
    old: &Chooser,
    files: CertificateFiles,
    settings: &Settings,
    hostname: &str,
    provider: &CryptoProvider,
) -> (Option<Chooser>, Vec<TlsError>) {
    let mut problems = files.problems;
    let incomplete = !problems.is_empty();
    let mut found = Vec::new();
    for one in files.found {
        match one.load(provider).and_then(|new| new.begun(old)) {
            Ok(certificate) => found.push(certificate),
            Err((chain, more)) => {
                problems.extend(more);
                let file = Some(chain);
                let mut kept = old.certificates.iter();
                found.extend(kept.find(|c| c.summary.file == file).cloned());
            }
        }
    }
    if found.is_empty() && !incomplete && !old.is_self_signed() {
        problems.push(TlsError::NoneLeft);
    }
    if found.is_empty() || incomplete {
        return (None, problems);
    }
    put_default_first(&mut found, settings, hostname);
    (Some(Chooser::over(found)), problems)
}

/// A certificate that passed every check.
#[derive(Clone, Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    folder: Option<String>,
    summary: LoadedCertificate,
}

/// The file of the chain, and what is wrong.
type Unusable = (PathBuf, Vec<TlsError>);

impl Certificate {
    /// Itself, unless it will be valid only later and what is shown of the same file
    /// is valid now. At the start nobody asks: it is better than none, and the clock
    /// may be wrong.
    fn begun(self, old: &Chooser) -> Result<Self, Unusable> {
        let now = SystemTime::now();
        let mut shown = old.certificates.iter();
        let shown = shown.find(|shown| shown.summary.file == self.summary.file);
        let is_better = shown.is_none_or(|shown| shown.summary.is_valid(now));
        match &self.summary.file {
            Some(path) if is_better && self.summary.is_early(now) => {
                let problem = TlsError::NotYetValid {
                    path: path.clone(),
                    not_before: self.summary.not_before,
                };
                Err((path.clone(), vec![problem]))
            }
            _ => Ok(self),
        }
    }
}

impl Found {
    fn load(self, provider: &CryptoProvider) -> Result<Certificate, Unusable> {
        match self {
            Self::Pair(pair) => pair.load(provider),
            Self::Broken { chain, problems } => Err((chain, problems)),
        }
    }
}

impl Pair {
    fn load(self, provider: &CryptoProvider) -> Result<Certificate, Unusable> {
        let path = self.chain.path.clone();
        let loaded = match (self.chain.certificates(), self.key.key(provider)) {
            (Ok(chain), Ok(key)) => self
                .check(CertifiedKey::new(chain, key))
                .map_err(|problem| vec![problem]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        };
        loaded.map_err(|problems| (path, problems))
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
    /// The default first.
    certificates: Vec<Certificate>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Chooser {
    /// When two certificates claim one name, the folder called by that name
    /// wins if its certificate covers it, then the earlier certificate. A
    /// folder whose name its certificate does not cover comes last.
    fn over(certificates: Vec<Certificate>) -> Self {
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
            certificates,
            by_name,
        }
    }

    /// All that may be shown, for people.
    pub(super) fn loaded(&self) -> Loaded {
        let mut all = self.certificates.iter().map(|c| c.summary.clone());
        match all.next() {
            Some(made) if made.file.is_none() => Loaded::SelfSigned(made),
            first => Loaded::FromFiles(first.into_iter().chain(all).collect()),
        }
    }

    fn is_self_signed(&self) -> bool {
        self.certificates.iter().all(|c| c.summary.file.is_none())
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
            .or(self.certificates.first().map(|c| &c.key))
            .map(Arc::clone)
    }
}

/// The certificates that are shown at this moment: a handshake that has begun
/// keeps the one it was given.
#[derive(Debug)]
pub(super) struct Shown(pub(super) ArcSwap<Chooser>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name())
    }
}
