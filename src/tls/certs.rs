//! The proxy's own certificates as a whole: loads them all, and again.
//!
//! It reports every problem it finds at once and never serves a certificate
//! that it had to complain about. It never writes a file: the self-signed
//! certificate that stands in when there is no other lives in memory only.

use std::time::SystemTime;

use rustls::crypto::CryptoProvider;

use super::certificate::{Certificate, LoadedCertificate, Unusable, self_signed};
use super::chooser::{Chooser, wildcard_for};
use super::files::CertificateFiles;
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

impl Loaded {
    /// All of them, the default first.
    pub fn certificates(&self) -> &[LoadedCertificate] {
        match self {
            Self::FromFiles(certificates) => certificates,
            Self::SelfSigned(certificate) => std::slice::from_ref(certificate),
        }
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
