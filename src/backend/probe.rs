//! Looking at a guarded server before any client needs it.

use std::fmt;
use std::sync::Arc;

use tokio::time::timeout;

use super::introduce::Introduction;
use super::open::{Encryption, OpenError, Speaker};
use super::{Backend, Server};
use crate::smtp::ehlo::Keywords;
use crate::tls::{BackendTls, TlsDetails};

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What the server offers, inside TLS if there is TLS.
    pub keywords: Arc<Keywords>,
    /// What it makes of TLS.
    pub tls: TlsState,
    /// How it will learn of clients; `None` when it cannot as demanded.
    pub introduction: Option<Introduction>,
}

/// What a server makes of TLS.
#[derive(Clone, Debug)]
pub enum TlsState {
    /// Encrypted.
    Encrypted(TlsDetails),
    /// `BACKEND_TLS=off`, though it would offer it.
    NotWanted,
    /// It offers none: a legacy server.
    NotOffered,
    /// It offers STARTTLS and breaks at it, for this reason.
    Breaks(String),
}

impl Probed {
    /// Whether STARTTLS is offered and does not work.
    pub fn breaks_at_tls(&self) -> bool {
        matches!(self.tls, TlsState::Breaks(_))
    }

    /// The part that a log line is worth when it changes.
    fn summary(&self) -> (String, String, Option<Introduction>) {
        (
            self.keywords.to_string(),
            self.tls.to_string(),
            self.introduction,
        )
    }
}

impl fmt::Display for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted(details) => write!(f, "{} {}", details.version, details.cipher),
            Self::NotWanted => f.write_str("off"),
            Self::NotOffered => f.write_str("not offered"),
            Self::Breaks(reason) => write!(f, "offered, but breaks: {reason}"),
        }
    }
}

impl Backend {
    pub(super) async fn probe_server(&self, index: usize) {
        let Some(server) = self.servers.get(index) else {
            return;
        };
        let before = server.probed.load_full();
        // A server that hangs must not keep the others from being looked at.
        let looked = timeout(*self.settings.timeout_backend_reply, self.look_at(server));
        match looked.await.unwrap_or(Err(OpenError::TimedOut)) {
            Ok(probed) => {
                server.came_up();
                if before.is_none_or(|before| before.summary() != probed.summary()) {
                    report(server, &probed);
                }
                server.probed.store(Some(Arc::new(probed)));
            }
            Err(error) => {
                server.went_down();
                // What it offered is kept: it is likely to offer the same when it is back.
                tracing::warn!(backend = %server.address, %error, "backend does not answer its probe");
            }
        }
    }

    pub(super) async fn look_at(&self, server: &Server) -> Result<Probed, OpenError> {
        let (conversation, broken) =
            match self.greet(server, &Speaker::Probe, Encryption::AsSet).await {
                Err(error)
                    if error.breaks_at_tls()
                        && self.settings.backend_tls == BackendTls::Opportunistic =>
                {
                    let conversation = self
                        .greet(server, &Speaker::Probe, Encryption::Skipped)
                        .await?;
                    (conversation, Some(error.to_string()))
                }
                other => (other?, None),
            };
        let tls = match (broken, &conversation.tls) {
            (Some(reason), _) => TlsState::Breaks(reason),
            (None, Some(details)) => TlsState::Encrypted(details.clone()),
            (None, None) if conversation.keywords.contains("STARTTLS") => TlsState::NotWanted,
            (None, None) => TlsState::NotOffered,
        };
        let keywords = conversation.keywords.clone();
        conversation.quit().await;
        Ok(Probed {
            introduction: self.settings.client_info.choose(&keywords),
            keywords,
            tls,
        })
    }
}

fn report(server: &Server, probed: &Probed) {
    let (backend, keywords, tls) = (&server.address, &probed.keywords, &probed.tls);
    match probed.introduction {
        Some(client_info) => {
            tracing::info!(%backend, %keywords, %tls, %client_info, "backend probed")
        }
        None => {
            tracing::error!(%backend, %keywords, %tls, "backend offers no XCLIENT, which CLIENT_INFO demands")
        }
    }
    if let TlsState::Breaks(reason) = &probed.tls {
        tracing::warn!(%backend, reason, "backend offers STARTTLS and breaks at it; mail to it goes in plain text");
    }
}
