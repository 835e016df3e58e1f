//! A closer look at a guarded server, for people who ask. Nothing of it is
//! remembered, and no client's session uses it.

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::OpenError;
use super::address::Protocol;
use super::open::{Encryption, Speaker};
use super::reach::connect;
use super::{Backend, Conversation, Probed, Server};
use crate::smtp::command::Command;
use crate::tls::{Inspector, Presented, Stream};

impl Backend {
    /// Probes the next server, within `TIMEOUT_BACKEND_REPLY`.
    ///
    /// # Errors
    /// Why no client could use it.
    pub async fn examine(&self) -> Result<Probed, OpenError> {
        let server = self.in_turn().next().ok_or(OpenError::NoServer)?;
        let looked = timeout(*self.settings.timeout_backend_reply, self.look_at(server));
        looked.await.unwrap_or(Err(OpenError::TimedOut))
    }

    /// What the next server presents when asked for TLS, whatever `BACKEND_TLS`
    /// says, within `TIMEOUT_BACKEND_REPLY`.
    ///
    /// # Errors
    /// Why there is no certificate to see, [`OpenError::NoTls`] among them.
    pub async fn certificate(&self, inspector: &Inspector) -> Result<Presented, OpenError> {
        let server = self.in_turn().next().ok_or(OpenError::NoServer)?;
        let looked = timeout(
            *self.settings.timeout_backend_reply,
            self.ask_for_certificate(server, inspector),
        );
        looked.await.unwrap_or(Err(OpenError::TimedOut))
    }

    async fn ask_for_certificate(
        &self,
        server: &Server,
        inspector: &Inspector,
    ) -> Result<Presented, OpenError> {
        let stream = match server.address.protocol {
            Protocol::Smtps => self.wrapped(server).await?,
            Protocol::Smtp | Protocol::Lmtp => self.upgraded(server).await?,
        };
        let name = self.tls_name(server);
        let (stream, presented) = inspector.inspect(name, stream).await?;
        let patience = *self.settings.timeout_backend_connect;
        let goodbye = Conversation::new(Box::new(stream), server.address.protocol, patience);
        goodbye.quit().await;
        Ok(presented)
    }

    /// A connection on which TLS begins with the first octet.
    async fn wrapped(&self, server: &Server) -> Result<Box<dyn Stream>, OpenError> {
        let patience = *self.settings.timeout_backend_connect;
        let (mut stream, ends) = timeout(patience, connect(&server.address.place))
            .await
            .map_err(|_| OpenError::TimedOut)?
            .map_err(OpenError::Connect)?;
        if let Some(header) = self.proxy_header(&Speaker::Probe, ends) {
            let sent = stream.write_all(&header).await;
            sent.map_err(OpenError::Connect)?;
        }
        Ok(stream)
    }

    /// A connection on which the server waits for TLS, after STARTTLS.
    async fn upgraded(&self, server: &Server) -> Result<Box<dyn Stream>, OpenError> {
        let mut conversation = self
            .greet(server, &Speaker::Probe, Encryption::Skipped)
            .await?;
        if !conversation.keywords.contains("STARTTLS") {
            conversation.quit().await;
            return Err(OpenError::NoTls);
        }
        let reply = conversation.exchange(&Command::StartTls).await?;
        if reply.code() != 220 {
            return Err(OpenError::TlsBroke(format!("refused: {}", reply.text())));
        }
        conversation.into_stream().map_err(OpenError::Lost)
    }
}
