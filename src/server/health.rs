//! Whether Portcullis can do its work: the conditions of readiness.
//!
//! It only looks at what the rooms know already; asking about health never
//! touches the backend.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::backend::{Backend, ServerState};
use crate::tls::{Loaded, LoadedCertificate};

/// What the conditions are read from.
pub(super) struct Health {
    backend: ArcSwap<Backend>,
    /// The default first.
    certificates: ArcSwap<Vec<LoadedCertificate>>,
    phase: ArcSwap<Phase>,
}

/// How far the process has come.
enum Phase {
    /// Nobody is accepted yet.
    Starting,
    /// Clients are accepted, here.
    Serving(String),
    /// Nobody is accepted any more.
    Draining,
}

impl Phase {
    fn accepting(&self) -> Result<String, String> {
        match self {
            Phase::Starting => Err("not open yet".to_owned()),
            Phase::Serving(listeners) => Ok(listeners.clone()),
            Phase::Draining => Err("closed".to_owned()),
        }
    }

    fn staying(&self) -> Result<String, String> {
        match self {
            Phase::Draining => Err("stopping".to_owned()),
            Phase::Starting | Phase::Serving(_) => Ok("running".to_owned()),
        }
    }
}

/// One thing that must be so before clients are sent here.
pub(super) struct Condition {
    /// The name, from a closed set.
    pub(super) name: &'static str,
    /// How it is met, or why not.
    pub(super) state: Result<String, String>,
}

impl Health {
    /// Of a process that starts.
    pub(super) fn new(backend: Arc<Backend>, loaded: &Loaded) -> Self {
        Self {
            backend: ArcSwap::new(backend),
            certificates: ArcSwap::from_pointee(loaded.certificates().to_vec()),
            phase: ArcSwap::from_pointee(Phase::Starting),
        }
    }

    /// From now on clients are accepted there.
    pub(super) fn serving(&self, listeners: String) {
        self.phase.store(Arc::new(Phase::Serving(listeners)));
    }

    /// From now on these servers are guarded.
    pub(super) fn guards(&self, backend: Arc<Backend>) {
        self.backend.store(backend);
    }

    /// From now on these certificates are shown.
    pub(super) fn certified(&self, loaded: &Loaded) {
        let certificates = loaded.certificates().to_vec();
        self.certificates.store(Arc::new(certificates));
    }

    /// From now on nobody is accepted.
    pub(super) fn draining(&self) {
        self.phase.store(Arc::new(Phase::Draining));
    }

    /// All conditions, met or not.
    pub(super) fn conditions(&self) -> [Condition; 4] {
        let condition = |name, state| Condition { name, state };
        // One look, or the two that depend on it could contradict each other.
        let phase = self.phase.load();
        [
            condition("listeners", phase.accepting()),
            condition("backend", self.greeted()),
            condition("certificate", self.valid(SystemTime::now())),
            condition("not_draining", phase.staying()),
        ]
    }

    /// The guarded servers, and how they are.
    pub(super) fn servers(&self) -> Vec<(String, ServerState)> {
        self.backend.load().health()
    }

    /// The certificates, the default first.
    pub(super) fn certificates(&self) -> Arc<Vec<LoadedCertificate>> {
        self.certificates.load_full()
    }

    /// One server that takes mail is enough.
    fn greeted(&self) -> Result<String, String> {
        let servers = self.backend.load().health();
        let usable = servers.iter().any(|(_, state)| *state == ServerState::Up);
        let told: Vec<_> = servers
            .iter()
            .map(|(address, state)| format!("{address} {state}"))
            .collect();
        let told = told.join(", ");
        if usable { Ok(told) } else { Err(told) }
    }

    /// The default must be valid. Another that is not is told, but its name
    /// alone is no reason to send the clients of all names away.
    fn valid(&self, now: SystemTime) -> Result<String, String> {
        let certificates = self.certificates.load();
        let told: Vec<_> = certificates.iter().map(|c| told(c, now)).collect();
        let told = told.join(", ");
        match certificates.first() {
            Some(default) if default.is_valid(now) => Ok(told),
            Some(_) => Err(told),
            None => Err("none".to_owned()),
        }
    }
}

fn told(certificate: &LoadedCertificate, now: SystemTime) -> String {
    let (verb, moment) = if certificate.is_early(now) {
        ("is not valid before", certificate.not_before)
    } else if certificate.is_valid(now) {
        ("expires", certificate.not_after)
    } else {
        ("expired", certificate.not_after)
    };
    let moment = humantime::format_rfc3339_seconds(moment);
    format!("{} {verb} {moment}", certificate.label())
}
