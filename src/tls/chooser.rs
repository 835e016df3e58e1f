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
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Chooser {
    /// When two certificates claim one name, the folder called by that name
    /// wins if its certificate covers it, then the earlier certificate. A
    /// folder whose name its certificate does not cover comes last.
    pub(super) fn over(certificates: Vec<Certificate>) -> Self {
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

    pub(super) fn is_self_signed(&self) -> bool {
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

/// `*.example.org` for `mail.example.org`: a wildcard stands for exactly one
/// label, the leftmost (RFC 6125 6.4.3).
pub(super) fn wildcard_for(name: &str) -> Option<String> {
    name.split_once('.')
        .map(|(_, parent)| format!("*.{parent}"))
}
