//! The servers that the settings name: the guarded ones, the scanners, Redis.
//! Every wait is bounded, and servers are asked side by side.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Fault, Finding, relay};
use crate::backend::address::{Address, Place};
use crate::backend::{self, Backend, Introduction, Probed, TlsState};
use crate::config::Parts;
use crate::limits::shared::Sharing;
use crate::policy;
use crate::scan::{self, Scanners};
use crate::server;
use crate::settings::{List, Positive};
use crate::smtp::path::HeloName;
use crate::tls::{BackendTls, Inspector, Presented};

/// Longest wait for one answer of a guarded server, if `TIMEOUT_BACKEND_REPLY`
/// is not shorter: whoever asks is sitting there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest visit to a backend, which may answer each question late.
const VISIT: Duration = Duration::from_secs(120);

/// Longest wait for the backend's name to be looked up, for an address that
/// only makes a sentence complete.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn look_at(parts: Parts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(settings) = &parts.backend {
        let set = parts
            .server
            .as_ref()
            .and_then(|server| server.hostname.as_ref());
        let visits = settings.backend.iter().map(|address| {
            let visit = Visit {
                serves_users: parts
                    .server
                    .as_ref()
                    .is_some_and(|server| !server.listen_submission.is_empty()),
                address: address.clone(),
                name: server::hostname(set),
                settings: backend::Settings {
                    backend: List(vec![address.clone()]),
                    timeout_backend_reply: Positive(settings.timeout_backend_reply.min(PATIENCE)),
                    ..settings.clone()
                },
                policy: parts.policy.clone(),
            };
            let address = visit.address.clone();
            tokio::spawn(async move {
                timeout(VISIT, visit.pay()).await.unwrap_or_else(|_| {
                    let text = format!("{address}: does not answer everything in {VISIT:?}");
                    vec![Finding::bad(Fault::Unavailable, "backend", text)]
                })
            })
        });
        for visit in visits.collect::<Vec<_>>() {
            // What was not looked at to the end must not pass for good.
            let broke = |error| {
                let text = format!("cannot be looked at: {error}");
                vec![Finding::bad(Fault::Unavailable, "backend", text)]
            };
            findings.extend(visit.await.unwrap_or_else(broke));
        }
    }
    if let Some(settings) = &parts.scan {
        findings.extend(scanners(settings).await);
    }
    if let Some(limits) = &parts.limits {
        findings.extend(redis(&limits.redis).await);
    }
    findings
}

/// A look at one guarded server.
struct Visit {
    address: Address,
    /// Whether users come through `LISTEN_SUBMISSION`.
    serves_users: bool,
    /// What Portcullis calls itself.
    name: HeloName,
    /// With this server alone.
    settings: backend::Settings,
    policy: Option<policy::Settings>,
}

impl Visit {
    async fn pay(self) -> Vec<Finding> {
        let backend = match Backend::new(self.settings.clone(), self.name.clone()) {
            Ok(backend) => backend,
            // The same has been found among the files.
            Err(error) => {
                let text = self.tell(&error);
                return vec![Finding::bad(Fault::Configuration, "backend", text)];
            }
        };
        let probed = backend.examine().await;
        let mut findings = Vec::new();
        match &probed {
            Ok(probed) => {
                findings.push(self.greeting(probed));
                findings.push(self.encryption(probed));
                findings.extend(self.submission(probed));
            }
            Err(error) => {
                let text = self.tell(&format!("cannot be used: {error}"));
                findings.push(Finding::bad(Fault::Unavailable, "backend", text));
            }
        }
        let offers_tls = match &probed {
            Ok(probed) => matches!(probed.tls, TlsState::Encrypted(_) | TlsState::NotWanted),
            Err(error) => error.is_tls(),
        };
        if offers_tls {
            findings.extend(self.certificate(&backend).await);
        }
        if let Ok(probed) = &probed {
            findings.push(self.introduction(probed).await);
            if let Some(policy) = &self.policy
                && probed.introduction.is_some()
            {
                findings.extend(relay::look_at(&backend, &self.address.to_string(), policy).await);
            }
        }
        findings
    }

    fn tell(&self, what: &dyn std::fmt::Display) -> String {
        format!("{}: {what}", self.address)
    }

    fn greeting(&self, probed: &Probed) -> Finding {
        let keywords = probed.keywords.to_string();
        let offers = if keywords.is_empty() {
            "nothing beyond plain SMTP".to_owned()
        } else {
            keywords
        };
        Finding::good("backend", self.tell(&format!("greets, offers {offers}")))
    }

    fn encryption(&self, probed: &Probed) -> Finding {
        const WHAT: &str = "backend TLS";
        match &probed.tls {
            TlsState::Encrypted(_) => Finding::good(WHAT, self.tell(&probed.tls)),
            TlsState::NotWanted => Finding::good(
                WHAT,
                self.tell(&"offered, but BACKEND_TLS=off: mail goes to it in plain text"),
            ),
            TlsState::NotOffered if self.settings.backend_tls == BackendTls::Off => {
                Finding::good(WHAT, self.tell(&"not offered, and BACKEND_TLS=off"))
            }
            TlsState::NotOffered => Finding::warning(
                WHAT,
                self.tell(&"not offered: mail goes to it in plain text"),
            ),
            TlsState::Breaks(_) => {
                let text = format!("{}; mail goes to it in plain text", probed.tls);
                Finding::warning(WHAT, self.tell(&text))
            }
        }
    }

    /// Whether users could sign in there; nothing to say when none come.
    fn submission(&self, probed: &Probed) -> Option<Finding> {
        const WHAT: &str = "submission";
        if !self.serves_users {
            return None;
        }
        let mechanisms = probed.keywords.auth_mechanisms();
        let usable: Vec<String> = mechanisms
            .iter()
            .filter(|mechanism| !mechanism.is_bound_to_tls())
            .map(ToString::to_string)
            .collect();
        Some(if usable.is_empty() {
            let way = match probed.tls {
                TlsState::Encrypted(_) => "",
                TlsState::Breaks(_) | TlsState::NotOffered | TlsState::NotWanted => {
                    " in plain text, perhaps because it does so inside TLS only"
                }
            };
            let text = format!(
                "the backend offers no AUTH{way}: nobody can send mail through LISTEN_SUBMISSION; name a server that does, or set PORTCULLIS_LISTEN_SUBMISSION=off"
            );
            Finding::warning(WHAT, self.tell(&text))
        } else {
            let text = format!("users can sign in by {}", usable.join(" "));
            Finding::good(WHAT, self.tell(&text))
        })
    }

    /// Whose certificate it has, and whether that would verify.
    async fn certificate(&self, backend: &Backend) -> Option<Finding> {
        const WHAT: &str = "backend certificate";
        // A bad file of authorities has been found among the files.
        let inspector = Inspector::new(self.settings.backend_tls_ca.as_deref()).ok()?;
        let presented = match backend.certificate(&inspector).await {
            Ok(presented) => presented,
            Err(error) => {
                let text = self.tell(&format!(
                    "cannot be seen, so it cannot be verified: {error}"
                ));
                return Some(Finding::warning(WHAT, text));
            }
        };
        let text = described(&presented);
        Some(match (&presented.complaint, self.settings.backend_tls) {
            (None, _) => Finding::good(WHAT, self.tell(&format!("{text}; it verifies"))),
            (Some(complaint), BackendTls::Verify) => {
                let text = format!("{text}; BACKEND_TLS=verify refuses it: {complaint}");
                Finding::bad(Fault::Unavailable, WHAT, self.tell(&text))
            }
            (Some(complaint), _) => {
                let text = format!(
                    "{text}; it is not checked, BACKEND_TLS=verify would refuse it: {complaint}"
                );
                Finding::good(WHAT, self.tell(&text))
            }
        })
    }

    /// How the client's address travels, and what the server sees besides.
    async fn introduction(&self, probed: &Probed) -> Finding {
        const WHAT: &str = "client address";
        let own = match own_address(&self.address.place).await {
            Some(own) => format!("this machine's ({own})"),
            None => "this machine's".to_owned(),
        };
        let Some(introduction) = probed.introduction else {
            let text = format!(
                "the backend offers no XCLIENT ADDR, which CLIENT_INFO=xclient demands: no mail will pass; allow it there for {own} address, or say CLIENT_INFO=received"
            );
            return Finding::bad(Fault::Configuration, WHAT, self.tell(&text));
        };
        let text = match introduction {
            Introduction::Xclient => format!(
                "travels by XCLIENT ({}): the backend sees the true client; without XCLIENT it would see {own} address",
                probed.keywords.xclient_attributes().join(" ")
            ),
            Introduction::Proxy => format!(
                "travels in a PROXY header: the backend sees the true client; without it, it would see {own} address"
            ),
            Introduction::Received => format!(
                "travels in a Received header field of each message; on the connection the backend sees {own} address for everybody: whatever it allows to that, it allows to all"
            ),
            Introduction::None => {
                let text = format!(
                    "does not travel: the backend sees {own} address for everybody and never learns who it was"
                );
                return Finding::warning(WHAT, self.tell(&text));
            }
        };
        Finding::good(WHAT, self.tell(&text))
    }
}

fn described(presented: &Presented) -> String {
    let end = match presented.not_after {
        Some(end) => humantime::format_rfc3339_seconds(end).to_string(),
        None => "nobody knows when".to_owned(),
    };
    let (names, issuer) = (presented.names.join(" "), &presented.issuer);
    format!("for {names}, issued by {issuer}, ends {end}")
}

/// The address from which this machine would connect. Nothing is sent: to
/// connect a UDP socket only chooses the way.
async fn own_address(place: &Place) -> Option<IpAddr> {
    let Place::Tcp(at) = place else {
        return None;
    };
    let way = async {
        let found = tokio::net::lookup_host((at.host.as_str(), at.port))
            .await?
            .next();
        let to = found.ok_or(io::ErrorKind::NotFound)?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        socket.local_addr()
    };
    let way: io::Result<_> = timeout(LOOKUP_PATIENCE, way).await.ok()?;
    way.ok().map(|own| own.ip())
}

async fn scanners(settings: &scan::Settings) -> Vec<Finding> {
    let finding = |(scanner, answer): (_, Result<String, _>)| match answer {
        Ok(says) => Finding::good("scanner", format!("{scanner}: {says}")),
        Err(error) => {
            let text = format!("{scanner} does not answer: {error}");
            Finding::bad(Fault::Unavailable, "scanner", text)
        }
    };
    let pings = Scanners::new(settings).ping().await;
    pings.into_iter().map(finding).collect()
}

async fn redis(sharing: &Sharing) -> Option<Finding> {
    let Sharing::Through(url) = sharing else {
        return None;
    };
    Some(match url.ping().await {
        Ok(()) => Finding::good("redis", format!("{url} answers")),
        Err(error) => {
            let text = format!("{url}: {error}; each instance counts for itself");
            Finding::bad(Fault::Unavailable, "redis", text)
        }
    })
}
