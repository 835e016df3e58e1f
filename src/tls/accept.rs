//! The client's side of TLS: accepts a handshake, tells why one failed.
//!
//! It never asks for a client certificate and never lets a client that came
//! for another protocol through.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::metrics::{self, Side};

use super::certs::{self, Loaded};
use super::{Settings, TlsDetails, TlsError, TlsMin, provider, unwrap_handshake};

/// An encrypted connection that a client opened.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// Accepts TLS from clients. Cheap to clone; all clones share the ticket keys.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
}

/// Why a client's handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// What came was no TLS record: plain SMTP, HTTP, a scanner.
    #[error("the client did not speak TLS")]
    NotTls,
    /// No version, cipher suite, group or signature in common.
    #[error("nothing in common with the client's TLS: {0}")]
    Incompatible(String),
    /// The client asked for protocols (ALPN) and `smtp` was not among them.
    #[error("the client asked for another protocol than smtp")]
    AlpnRefused,
    /// The client ended the handshake with this alert.
    #[error("the client ended the handshake with the alert {0}")]
    Alert(String),
    /// The client broke the TLS protocol.
    #[error("the client broke the TLS protocol: {0}")]
    Violation(String),
    /// The connection ended before the handshake did.
    #[error("the client left during the handshake: {0}")]
    Gone(io::Error),
}

impl ServerTls {
    /// Loads the certificates and prepares to accept; blocking file reads.
    /// `hostname` is the proxy's own name.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn new(settings: &Settings, hostname: &str) -> Result<(Self, Loaded), Vec<TlsError>> {
        let provider = provider();
        let (chooser, loaded) = certs::load(settings, hostname, &provider)?;
        let config =
            Self::config(provider, settings.tls_min, chooser).map_err(|e| vec![e.into()])?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok((ServerTls { acceptor }, loaded))
    }

    fn config(
        provider: Arc<rustls::crypto::CryptoProvider>,
        min: TlsMin,
        chooser: certs::Chooser,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match min {
            TlsMin::Tls12 => &[&TLS13, &TLS12],
            TlsMin::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(chooser));
        // A browser that was lured here asks for http/1.1 or h2 and gets
        // no_application_protocol (RFC 7301 3.2), so that no page's data is
        // ever read as mail (ALPACA). Mail clients ask for smtp or for nothing.
        config.alpn_protocols = vec![b"smtp".to_vec()];
        // Tickets keep the session's state with the client, so resumption
        // costs no memory here; one ticket is what a mail client can use.
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// Runs one whole handshake. No deadline inside: wrap it in a timeout.
    ///
    /// # Errors
    /// [`HandshakeError`]; an alert that explains it has been sent if the
    /// client could still be reached.
    pub async fn accept<S>(
        &self,
        stream: S,
    ) -> Result<(ServerStream<S>, TlsDetails), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = metrics::get().handshake(Side::Client);
        let stream = match self.acceptor.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                handshake.failed();
                return Err(error.into());
            }
        };
        let (_, connection) = stream.get_ref();
        let details = TlsDetails::of(connection, connection.server_name().map(str::to_owned));
        handshake.succeeded(details.metric());
        Ok((stream, details))
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        use rustls::{Error, InvalidMessage};
        match unwrap_handshake(error) {
            Ok(Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            )) => HandshakeError::NotTls,
            Ok(Error::PeerIncompatible(why)) => HandshakeError::Incompatible(format!("{why:?}")),
            Ok(Error::NoApplicationProtocol) => HandshakeError::AlpnRefused,
            Ok(Error::AlertReceived(alert)) => HandshakeError::Alert(format!("{alert:?}")),
            Ok(other) => HandshakeError::Violation(other.to_string()),
            Err(error) => HandshakeError::Gone(error),
        }
    }
}
