//! What sessions share, and the rules that they make of it.

use std::fmt;
use std::sync::Arc;

use super::body::Limits;
use super::door::DoorLog;
use super::id::SessionId;
use super::machine::{Bodies, Demand, Rules};
use super::settings::{SIZE_FALLBACK, Settings};
use crate::backend::Backend;
use crate::limits::{Limits as ClientLimits, Places, Seats};
use crate::metrics;
use crate::policy::{self, Mode};
use crate::scan::Scanners;
use crate::settings::{LogAddresses, Networks};
use crate::spool::Spool;
use crate::tls::ServerTls;

/// Recipients of one message where `MODE=monitor` lets more come than `RCPT_MAX`.
const RECIPIENTS_CAP: usize = 10_000;

/// On which kind of listener a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// `LISTEN`: plain, STARTTLS offered.
    Mx,
    /// `LISTEN_TLS`: TLS from the first octet (RFC 8314 3.3).
    Tls,
    /// `LISTEN_SUBMISSION`: STARTTLS, then AUTH (RFC 6409).
    Submission,
}

impl Listener {
    /// The setting that says where.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Mx => "LISTEN",
            Self::Tls => "LISTEN_TLS",
            Self::Submission => "LISTEN_SUBMISSION",
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "mx",
            Self::Tls => "tls",
            Self::Submission => "submission",
        })
    }
}

impl From<Listener> for metrics::Listener {
    fn from(listener: Listener) -> Self {
        match listener {
            Listener::Mx => Self::Mx,
            Listener::Tls => Self::Tls,
            Listener::Submission => Self::Submission,
        }
    }
}

/// All that sessions share.
pub struct Service {
    /// The settings of this room.
    pub settings: Settings,
    /// Who may send to whom.
    pub policy: policy::Settings,
    /// Peers whose PROXY header is required and believed.
    pub proxy_trusted: Networks,
    /// How addresses are logged.
    pub log_addresses: LogAddresses,
    /// Our name.
    pub hostname: String,
    /// Our certificates.
    pub tls: ServerTls,
    /// The guarded server.
    pub backend: Arc<Backend>,
    /// How much and how often.
    pub limits: Arc<ClientLimits>,
    /// The places for sessions.
    pub places: Arc<Places>,
    /// The connections to the guarded server.
    pub seats: Arc<Seats>,
    /// Keeps the log of refusals at the door short.
    pub door_log: DoorLog,
    /// Where bodies are judged before the backend sees them; `None`: nowhere.
    pub court: Option<Court>,
}

/// All that the judgement of bodies needs.
pub struct Court {
    /// Who looks at content.
    pub scanners: Arc<Scanners>,
    /// What is done about their opinions.
    pub settings: policy::content::Settings,
    /// Where messages wait for them.
    pub spool: Arc<Spool>,
}

impl Service {
    /// What the machine of a new session must know.
    pub(super) fn rules(&self, id: SessionId, listener: Listener) -> Rules {
        let settings = &self.settings;
        let mode = self.policy.mode;
        let recipients_max = usize::try_from(settings.rcpt_max.get())
            .unwrap_or(usize::MAX)
            .min(self.backend.recipients_max());
        let mut backend = self.backend.keywords().unwrap_or_default();
        if settings.body_line_max.0.is_some() {
            // Lines are not counted in chunks.
            Arc::make_mut(&mut backend).remove("CHUNKING");
        }
        Rules {
            hostname: self.hostname.clone(),
            session_id: id.to_string(),
            demand: match (listener, settings.tls_require) {
                (Listener::Submission, _) => Demand::TlsAndAuth,
                (Listener::Mx, true) => Demand::Tls,
                (Listener::Mx | Listener::Tls, _) => Demand::Nothing,
            },
            max_size: {
                let set = settings.max_size.map(|size| size.0.0);
                let both = [set, backend.size()].into_iter().flatten();
                both.min().unwrap_or(SIZE_FALLBACK)
            },
            backend,
            allowed: settings
                .commands_allow
                .iter()
                .map(|allowed| allowed.0)
                .collect(),
            recipients_max,
            recipients_cap: match mode {
                Mode::Enforce => recipients_max,
                Mode::Monitor => RECIPIENTS_CAP.min(self.backend.recipients_max()),
            },
            errors_max: settings.error_max,
            junk_max: settings.junk_max,
            newline: settings.bare_newline,
            bodies: match self.court {
                Some(_) => Bodies::Judged,
                None => Bodies::Relayed,
            },
            mode,
        }
    }

    /// The bounds of its bodies, of which none may be larger than `max_size` octets.
    pub(super) fn body_limits(&self, max_size: u64) -> Limits {
        let settings = &self.settings;
        Limits {
            max_size,
            line_max: settings.body_line_max.0,
            newline: settings.bare_newline,
            pause_max: *settings.timeout_data,
            rate_min: settings.data_rate_min,
            grace: *settings.data_rate_grace,
        }
    }
}
