//! Opening a connection to a guarded server: connect, greet, encrypt, introduce.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Protocol;
use super::introduce::{Client, ClientInfo, Introduction, Naming, STRANGERS_ENDS, Xclient};
use super::reach::{Ends, connect};
use super::{Backend, Conversation, Lost, OpenError, Server};
use crate::proxy_protocol;
use crate::smtp::command::Command;
use crate::smtp::ehlo::Keywords;
use crate::smtp::path::HeloName;
use crate::smtp::reply::Reply;
use crate::tls::{BackendTls, CertificateName, Stream};

/// Who is speaking on a new connection.
pub(super) enum Speaker<'a> {
    /// Portcullis itself, on a probe.
    Probe,
    /// On behalf of a client.
    Client(&'a Client),
}

/// What came of TLS on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// As `BACKEND_TLS` says.
    AsSet,
    /// Not tried: the server breaks at it, and `opportunistic` allows plain text.
    Skipped,
}

impl Backend {
    pub(super) async fn open_server(
        &self,
        server: &Server,
        client: &Client,
    ) -> Result<Conversation, OpenError> {
        let breaks = server
            .probed
            .load()
            .as_ref()
            .is_some_and(|probed| probed.breaks_at_tls());
        let first = if breaks && self.settings.backend_tls == BackendTls::Opportunistic {
            Encryption::Skipped
        } else {
            Encryption::AsSet
        };
        let speaker = Speaker::Client(client);
        let opened = match self.greet(server, &speaker, first).await {
            Err(error)
                if error.breaks_at_tls()
                    && self.settings.backend_tls == BackendTls::Opportunistic =>
            {
                tracing::warn!(backend = %server.address, %error, "backend breaks at TLS, going on in plain text");
                self.greet(server, &speaker, Encryption::Skipped).await
            }
            other => other,
        };
        let opened = match opened {
            Err(error) if self.is_introduced(&speaker) => Err(error.knowing_the_client()),
            other => other,
        };
        let introduced = self.introduce(opened?, client).await;
        introduced.map_err(OpenError::knowing_the_client)
    }

    /// Up to the EHLO reply that counts: the one inside TLS if there is TLS.
    pub(super) async fn greet(
        &self,
        server: &Server,
        speaker: &Speaker<'_>,
        encryption: Encryption,
    ) -> Result<Conversation, OpenError> {
        let deadline = Instant::now() + *self.settings.timeout_backend_connect;
        let stream = timeout_at(deadline, self.reach(server, speaker))
            .await
            .map_err(|_| OpenError::TimedOut)??;
        let mut conversation = timeout_at(deadline, self.greeted(server, speaker, stream))
            .await
            .unwrap_or_else(|_| Err(self.silence_towards(speaker)))?;
        let name = match speaker {
            Speaker::Probe => &self.name,
            Speaker::Client(client) => &client.hello,
        };
        self.hello(&mut conversation, name).await?;
        if server.address.protocol == Protocol::Smtps || encryption == Encryption::Skipped {
            return Ok(conversation);
        }
        match (
            self.settings.backend_tls,
            conversation.keywords.contains("STARTTLS"),
        ) {
            (BackendTls::Off, _) | (BackendTls::Opportunistic, false) => Ok(conversation),
            (BackendTls::Encrypt | BackendTls::Verify, false) => Err(OpenError::NoTls),
            (BackendTls::Opportunistic | BackendTls::Encrypt | BackendTls::Verify, true) => {
                self.starttls(server, conversation, name).await
            }
        }
    }

    /// What it is that a server does not greet in time.
    fn silence_towards(&self, speaker: &Speaker<'_>) -> OpenError {
        if self.is_introduced(speaker) {
            OpenError::BreaksOff(Box::new(OpenError::TimedOut))
        } else {
            OpenError::TimedOut
        }
    }

    /// Connects; the server knows then for whom, if a PROXY header is to tell it.
    async fn reach(
        &self,
        server: &Server,
        speaker: &Speaker<'_>,
    ) -> Result<Box<dyn Stream>, OpenError> {
        let (mut stream, ends) = connect(&server.address.place)
            .await
            .map_err(OpenError::Connect)?;
        if let Some(header) = self.proxy_header(speaker, ends) {
            stream
                .write_all(&header)
                .await
                .map_err(OpenError::Connect)?;
        }
        Ok(stream)
    }

    /// What comes next, up to a friendly greeting.
    async fn greeted(
        &self,
        server: &Server,
        speaker: &Speaker<'_>,
        mut stream: Box<dyn Stream>,
    ) -> Result<Conversation, OpenError> {
        let patience = *self.settings.timeout_backend_reply;
        let mut details = None;
        if server.address.protocol == Protocol::Smtps {
            let (encrypted, tls) = self.tls.connect(self.tls_name(server), stream).await?;
            (stream, details) = (Box::new(encrypted), Some(tls));
        }
        let mut conversation = Conversation::new(stream, server.address.protocol, patience);
        conversation.tls = details;
        let greeting = conversation.reply(patience).await?;
        match greeting.code() {
            220 => Ok(conversation),
            421 => Err(OpenError::TurnedAway(greeting)),
            // With a PROXY header the backend knows whom it refuses.
            _ if self.is_introduced(speaker) && is_refusal(&greeting) => {
                Err(OpenError::Refused(greeting))
            }
            _ => Err(OpenError::TurnedAway(greeting)),
        }
    }

    fn is_introduced(&self, speaker: &Speaker<'_>) -> bool {
        matches!(speaker, Speaker::Client(_))
            && matches!(
                self.settings.client_info,
                ClientInfo::ProxyV1 | ClientInfo::ProxyV2
            )
    }

    /// On a probe Portcullis itself is the client: servers that know PROXY do
    /// not all know its LOCAL and UNKNOWN forms. Those that do take whoever comes
    /// with them for Portcullis, so a client that nobody names is a stranger.
    pub(super) fn proxy_header(
        &self,
        speaker: &Speaker<'_>,
        ends: Option<Ends>,
    ) -> Option<Vec<u8>> {
        let ends = match speaker {
            Speaker::Client(client) => Some(client.ends.unwrap_or(STRANGERS_ENDS)),
            Speaker::Probe => ends,
        };
        match (self.settings.client_info, ends) {
            (ClientInfo::ProxyV1, Some((from, to))) => Some(proxy_protocol::write_v1(from, to)),
            (ClientInfo::ProxyV2, Some((from, to))) => Some(proxy_protocol::write_v2(from, to)),
            (ClientInfo::ProxyV1, None) => Some(proxy_protocol::local_v1()),
            (ClientInfo::ProxyV2, None) => Some(proxy_protocol::local_v2()),
            _ => None,
        }
    }

    pub(super) fn tls_name<'a>(&'a self, server: &'a Server) -> &'a str {
        self.settings
            .backend_tls_name
            .as_ref()
            .map_or_else(|| server.address.host(), CertificateName::as_str)
    }

    /// EHLO, or HELO to a server that knows no EHLO (RFC 5321 3.2).
    async fn hello(
        &self,
        conversation: &mut Conversation,
        name: &HeloName,
    ) -> Result<(), OpenError> {
        let mut reply = conversation.exchange(&Command::Ehlo(name.clone())).await?;
        conversation.keywords = self.shared(Keywords::parse(&reply));
        if matches!(reply.code(), 500 | 502 | 504) {
            conversation.keywords = Keywords::default().into();
            reply = conversation.exchange(&Command::Helo(name.clone())).await?;
        }
        match reply.code() {
            250 => Ok(()),
            // It is busy or going down, whoever the client is: another may serve.
            421 => Err(OpenError::TurnedAway(reply)),
            _ if is_refusal(&reply) => Err(OpenError::Refused(reply)),
            _ => Err(OpenError::TurnedAway(reply)),
        }
    }

    /// The same keywords as a probe found are held once for all sessions.
    fn shared(&self, keywords: Keywords) -> Arc<Keywords> {
        let probed = self.servers.iter().filter_map(|it| it.probed.load_full());
        let mut known = probed.flat_map(|it| [Arc::clone(&it.offer), Arc::clone(&it.keywords)]);
        let same = known.find(|known| **known == keywords);
        same.unwrap_or_else(|| keywords.into())
    }

    /// All that TLS takes together within `TIMEOUT_BACKEND_CONNECT`, if we may go
    /// without: where a server falls silent at it, there must be time left to do so.
    async fn starttls(
        &self,
        server: &Server,
        conversation: Conversation,
        name: &HeloName,
    ) -> Result<Conversation, OpenError> {
        let upgrade = self.upgrade(server, conversation, name);
        let patience = match self.settings.backend_tls {
            BackendTls::Opportunistic => *self.settings.timeout_backend_connect,
            BackendTls::Off | BackendTls::Encrypt | BackendTls::Verify => {
                *self.settings.timeout_backend_reply
            }
        };
        timeout(patience, upgrade)
            .await
            .unwrap_or_else(|_| Err(OpenError::TlsBroke("not ready in time".to_owned())))
    }

    async fn upgrade(
        &self,
        server: &Server,
        mut conversation: Conversation,
        name: &HeloName,
    ) -> Result<Conversation, OpenError> {
        let broke = |error: Lost| match error {
            // An injection is no weakness of the backend's.
            Lost::Unasked => OpenError::Lost(error),
            other => OpenError::TlsBroke(other.to_string()),
        };
        let reply = conversation
            .exchange(&Command::StartTls)
            .await
            .map_err(broke)?;
        if reply.code() != 220 {
            return Err(OpenError::TlsBroke(format!("refused: {}", reply.codes())));
        }
        let name_in_tls = self.tls_name(server);
        let handshake = self.tls.connect(name_in_tls, conversation.into_stream()?);
        let (stream, details) = timeout(*self.settings.timeout_backend_connect, handshake)
            .await
            .map_err(|_| OpenError::TlsBroke("no handshake in time".to_owned()))??;
        // RFC 3207 4.2: what was learnt before is forgotten.
        let patience = *self.settings.timeout_backend_reply;
        let mut conversation =
            Conversation::new(Box::new(stream), server.address.protocol, patience);
        conversation.tls = Some(details);
        match self.hello(&mut conversation, name).await {
            Err(OpenError::Lost(error)) => return Err(broke(error)),
            other => other?,
        }
        Ok(conversation)
    }

    async fn introduce(
        &self,
        mut conversation: Conversation,
        client: &Client,
    ) -> Result<Conversation, OpenError> {
        let chosen = self.settings.client_info.choose(&conversation.keywords);
        let chosen = chosen.ok_or(OpenError::NoXclient)?;
        conversation.introduction = match chosen {
            // Nobody is named by them; the trace header says whence it came.
            Introduction::Xclient | Introduction::Proxy if client.ends.is_none() => {
                Introduction::Received
            }
            other => other,
        };
        if chosen == Introduction::Xclient {
            let listed = conversation.keywords.xclient_attributes();
            conversation.takes_login = listed.iter().any(|attribute| attribute == "LOGIN");
            let is_ipv6 = |(source, _): Ends| source.ip().to_canonical().is_ipv6();
            match self
                .xclient(&mut conversation, client, Naming::Address)
                .await
            {
                // A server that is set to IPv4 alone takes no IPv6 address. The
                // client stays unknown to it, never the proxy, whom it may
                // trust; the trace header tells people who it was.
                Err(OpenError::Xclient(_)) if client.ends.is_some_and(is_ipv6) => {
                    tracing::info!(
                        "backend takes no IPv6 address by XCLIENT; the client stays unnamed"
                    );
                    self.xclient(&mut conversation, client, Naming::Unavailable)
                        .await?;
                    conversation.introduction = Introduction::Received;
                    conversation.takes_login = false;
                }
                other => other?,
            }
            self.hello(&mut conversation, &client.hello).await?;
        }
        Ok(conversation)
    }

    async fn xclient(
        &self,
        conversation: &mut Conversation,
        client: &Client,
        naming: Naming,
    ) -> Result<(), OpenError> {
        let listed = conversation.keywords.xclient_attributes();
        for command in Xclient::commands(client, &listed, naming) {
            let reply = conversation.exchange_xclient(&command).await?;
            match reply.code() {
                // The protocol says 220; smtp-sink says 250.
                200..=299 => {}
                421 => return Err(OpenError::TurnedAway(reply)),
                // Unknown or malformed.
                500..=504 => return Err(OpenError::Xclient(reply)),
                550 if !is_about_a_client(&reply) => {
                    return Err(OpenError::Xclient(reply));
                }
                // In the greeting's place: the client that we named is refused.
                _ if is_refusal(&reply) => return Err(OpenError::Refused(reply)),
                _ => return Err(OpenError::Xclient(reply)),
            }
        }
        Ok(())
    }
}

/// A 4xx or 5xx.
fn is_refusal(reply: &Reply) -> bool {
    matches!(reply.code(), 400..=599)
}

/// Whether a 550 to XCLIENT refuses the client that was named, as it would at the
/// greeting, and not us, who may not name any: Postfix calls that 5.7.0 and Dovecot
/// 5.7.14.
fn is_about_a_client(reply: &Reply) -> bool {
    reply
        .enhanced()
        .is_some_and(|code| !matches!((code.subject, code.detail), (7, 0 | 14)))
}
