//! The proxy's own certificates as a whole: loads them all, and again.
//!
//! It reports every problem it finds at once and never serves a certificate
//! that it had to complain about. It never writes a file: the self-signed
//! certificate that stands in when there is no other lives in memory only.

use std::time::SystemTime;

use rustls::crypto::CryptoProvider;

use super::TlsError;
use super::certificate::{Certificate, LoadedCertificate, Unusable, self_signed};
use super::chooser::{Chooser, wildcard_for};
use super::files::{CertificateFiles, Origin};

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
    put_default_first(&mut found, hostname);
    Ok(Chooser::over(found))
}

/// Loads what the files hold by now. A certificate that cannot be used any more,
/// or not yet, is replaced by what `old` has in its place; so are all of them when
/// it is unknown which there are, and when none would be left. The problems are
/// told.
pub(super) fn renew(
    old: &Chooser,
    files: CertificateFiles,
    hostname: &str,
    provider: &CryptoProvider,
) -> (Option<Chooser>, Vec<TlsError>) {
    let mut problems = files.problems;
    let incomplete = !problems.is_empty();
    let mut found = Vec::new();
    for one in files.found {
        match one.load(provider).and_then(|new| new.begun(old)) {
            Ok(certificate) => found.push(certificate),
            Err((origin, more)) => {
                problems.extend(more);
                found.extend(origin.kept(old));
            }
        }
    }
    if found.is_empty() && !incomplete && !old.is_self_signed() {
        problems.push(TlsError::NoneLeft);
    }
    if found.is_empty() || incomplete {
        return (None, problems);
    }
    put_default_first(&mut found, hostname);
    (Some(Chooser::over(found)), problems)
}

impl Certificate {
    /// Itself, unless it will be valid only later and what is shown in its place is
    /// valid now. At the start nobody asks: it is better than none, and the clock may
    /// be wrong.
    fn begun(self, old: &Chooser) -> Result<Self, Unusable> {
        let now = SystemTime::now();
        let Some(chain) = self.summary.file.clone() else {
            return Ok(self);
        };
        let folder = self.folder.clone();
        let origin = Origin { folder, chain };
        let shown = origin.of(old);
        let is_better = shown.is_none_or(|shown| shown.summary.is_valid(now));
        if !is_better || !self.summary.is_early(now) {
            return Ok(self);
        }
        let problem = TlsError::NotYetValid {
            path: origin.chain.clone(),
            not_before: self.summary.not_before,
        };
        Err((origin, vec![problem]))
    }
}

impl Origin {
    /// What `old` shows in this place: that of the same folder, or of `TLS_CERT`, if
    /// there is one, whatever path leads there by now; else that of the same file.
    fn of<'a>(&self, old: &'a Chooser) -> Option<&'a Certificate> {
        let likeness = |c: &&Certificate| {
            let is_file = c.summary.file.as_ref() == Some(&self.chain);
            (c.folder == self.folder, is_file)
        };
        let from_files = old.certificates.iter().filter(|c| c.summary.file.is_some());
        from_files
            .max_by_key(likeness)
            .filter(|nearest| likeness(nearest) != (false, false))
    }

    /// The same to be shown on.
    fn kept(self, old: &Chooser) -> Option<Certificate> {
        let kept = self.of(old)?.clone();
        Some(Certificate {
            folder: self.folder,
            ..kept
        })
    }
}

/// The default is `TLS_CERT`, which already stands first if it can be used, else the
/// certificate that covers the proxy's own name, else the first folder.
fn put_default_first(found: &mut [Certificate], hostname: &str) {
    if found.first().is_some_and(|first| first.folder.is_none()) {
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
