//! Which certificate a client is shown: by SNI, else the default.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::certs::Loaded;

/// Picks the certificate for a ClientHello.
#[derive(Debug)]
pub(super) struct Chooser {
    /// The default first.
    pub(super) certificates: Vec<Certificate>,
    /// By the names that they cover, wildcards as they are written.
    covered: Keys,
    /// By the names of their folders.
    folders: Keys,
}

type Keys = HashMap<String, Arc<CertifiedKey>>;

impl Chooser {
    /// When two certificates claim one name, the folder called by that name
    /// wins if its certificate states it, then the earlier certificate. A
    /// folder whose name its certificate does not cover comes last, after the
    /// wildcards.
    pub(super) fn over(certificates: Vec<Certificate>) -> Self {
        let folders = || {
            certificates
                .iter()
                .filter_map(|c| Some((c.folder.as_ref()?, c)))
        };
        let own = folders().filter(|(name, c)| c.summary.names.contains(name));
        let stated = certificates
            .iter()
            .flat_map(|c| c.summary.names.iter().map(move |name| (name, c)));
        let by_wildcard = folders().filter(|(name, c)| {
            wildcard_for(name).is_some_and(|wildcard| c.summary.names.contains(&wildcard))
        });
        let covered = keys(own.chain(stated).chain(by_wildcard));
        let folders = keys(folders());
        Chooser {
            certificates,
            covered,
            folders,
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

    pub(super) fn is_self_signed(&self) -> bool {
        self.certificates.iter().all(|c| c.summary.file.is_none())
    }

    fn choose<'a>(&'a self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = sni.map(str::to_ascii_lowercase);
        let wildcard = name.as_deref().and_then(wildcard_for);
        let names = || [&name, &wildcard].into_iter().flatten();
        let of = |keys: &'a Keys| names().find_map(|name| keys.get(name));
        of(&self.covered)
            .or_else(|| of(&self.folders))
            .or(self.certificates.first().map(|c| &c.key))
            .map(Arc::clone)
    }
}

/// Where a name comes twice, the first counts.
fn keys<'a>(named: impl Iterator<Item = (&'a String, &'a Certificate)>) -> Keys {
    let mut keys = Keys::new();
    for (name, certificate) in named {
        keys.entry(name.clone())
            .or_insert_with(|| Arc::clone(&certificate.key));
    }
    keys
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

/// `*.example.org` for `mail.example.org`: a wildcard stands for exactly one
/// label, the leftmost (RFC 6125 6.4.3).
pub(super) fn wildcard_for(name: &str) -> Option<String> {
    name.split_once('.')
        .map(|(_, parent)| format!("*.{parent}"))
}
