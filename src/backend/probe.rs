//! Looking at a guarded server before any client needs it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::OpenError;
use super::introduce::{Client, Introduction};
use super::open::{Encryption, Speaker};
use super::{Backend, Server};
use crate::smtp::ehlo::Keywords;
use crate::tls::{BackendTls, TlsDetails};

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What the server offers to Portcullis, inside TLS if there is TLS.
    pub keywords: Arc<Keywords>,
    /// What it offers to clients: nothing that it withholds from a stranger.
    pub(super) offer: Arc<Keywords>,
    /// What it offered to a stranger when it last let one in.
    to_strangers: Option<Arc<Keywords>>,
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

    /// With what the server offers to strangers.
    fn with(self, to_strangers: Option<Arc<Keywords>>) -> Self {
        let offer = match &to_strangers {
            Some(theirs) => offer(&self.keywords, theirs).into(),
            None => Arc::clone(&self.keywords),
        };
        Self {
            offer,
            to_strangers,
            ..self
        }
    }

    /// Keywords that the server lets Portcullis see and no stranger. XCLIENT is
    /// always one.
    fn withheld(&self) -> Vec<&str> {
        let keywords = self.keywords.iter().map(|(keyword, _)| keyword);
        let withheld = keywords.filter(|keyword| !self.offer.contains(keyword));
        withheld.filter(|keyword| *keyword != "XCLIENT").collect()
    }

    /// The part that a log line is worth when it changes.
    fn summary(&self) -> (String, String, String, Option<Introduction>) {
        (
            self.keywords.to_string(),
            self.offer.to_string(),
            self.tls.to_string(),
            self.introduction,
        )
    }
}

/// What `ours` and `theirs` have in common, so that no client is promised what it is
/// refused later. Signing in is another matter: a server that lets some do it and
/// others not says so to whoever tries.
fn offer(ours: &Keywords, theirs: &Keywords) -> Keywords {
    let mut both = ours.intersection(theirs);
    if let Some(mechanisms) = ours.get("AUTH") {
        both.insert("AUTH", mechanisms);
    }
    both
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
                let learns_of_clients = matches!(
                    probed.introduction,
                    Some(Introduction::Xclient | Introduction::Proxy)
                );
                let seen_before = before
                    .as_ref()
                    .filter(|_| learns_of_clients)
                    .and_then(|before| before.to_strangers.clone());
                let mut probed = probed.with(seen_before.clone());
                // It counts at once: a stranger may be kept waiting.
                server.probed.store(Some(Arc::new(probed.clone())));
                if probed.introduction.is_some() {
                    server.came_up();
                } else {
                    server.went_down();
                }
                if learns_of_clients {
                    let to_strangers = self.as_stranger(server).await.or(seen_before);
                    probed = probed.with(to_strangers);
                }
                let same = before.is_some_and(|before| before.summary() == probed.summary());
                if !server.reported.swap(true, Ordering::Relaxed) || !same {
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

    /// What the server offers to somebody whom it does not know; `None` when it
    /// does not let him in.
    async fn as_stranger(&self, server: &Server) -> Option<Arc<Keywords>> {
        let stranger = Client::stranger().ok()?;
        let opened = self.open_server(server, &stranger);
        match timeout(*self.settings.timeout_backend_connect, opened).await {
            Ok(Ok(conversation)) => {
                let keywords = conversation.keywords.clone();
                conversation.quit().await;
                Some(keywords)
            }
            Ok(Err(error)) => {
                tracing::debug!(backend = %server.address, %error, "backend lets no stranger in");
                None
            }
            Err(_) => None,
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
            offer: Arc::clone(&keywords),
            to_strangers: None,
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
            tracing::error!(%backend, %keywords, %tls, "backend offers no XCLIENT ADDR, which CLIENT_INFO demands")
        }
    }
    let withheld = probed.withheld().join(", ");
    if !withheld.is_empty() {
        tracing::info!(%backend, withheld, "backend withholds keywords from strangers; no client is offered them");
    }
    if let TlsState::Breaks(reason) = &probed.tls {
        tracing::warn!(%backend, reason, "backend offers STARTTLS and breaks at it; mail to it goes in plain text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords(lines: &[&str]) -> Arc<Keywords> {
        let mut keywords = Keywords::new();
        for line in lines {
            let mut words = line.split(' ');
            keywords.insert(words.next().unwrap(), words);
        }
        keywords.into()
    }

    fn probed(ours: &[&str], to_strangers: Option<&[&str]>) -> Probed {
        let probed = Probed {
            keywords: keywords(ours),
            offer: Arc::default(),
            to_strangers: None,
            tls: TlsState::NotOffered,
            introduction: Some(Introduction::Xclient),
        };
        probed.with(to_strangers.map(keywords))
    }

    #[test]
    fn offers_what_it_offers_to_strangers_too_and_auth_in_any_case() {
        let ours = ["SIZE 100", "DSN", "AUTH PLAIN", "XCLIENT ADDR", "8BITMIME"];
        let with_stranger = probed(&ours, Some(&["8BITMIME", "SIZE 50", "SMTPUTF8"]));
        let offer = ["SIZE 50", "8BITMIME", "AUTH PLAIN"];
        assert_eq!(with_stranger.offer, keywords(&offer));
        assert_eq!(with_stranger.withheld(), ["DSN"]);
        let without = probed(&ours, None);
        assert_eq!(without.offer, without.keywords);
        assert!(without.withheld().is_empty());
    }
}
