//! The client's side of TLS: accepts a handshake, tells why one failed.
//!
//! It never asks for a client certificate and never lets a client that came
//! for another protocol through.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::metrics::{self, Side};

use super::certs::{self, Loaded};
use super::chooser::Shown;
use super::files::CertificateFiles;
use super::{Settings, TlsDetails, TlsError, TlsMin, provider, unwrap_handshake};

/// An encrypted connection that a client opened.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// Accepts TLS from clients. Cheap to clone; all clones share certificates and
/// ticket keys.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
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

/// What came of looking at the certificates again.
#[derive(Debug)]
pub struct Renewal {
    /// What is shown from now on.
    pub loaded: Loaded,
    /// What could not be used. What was shown in its place before still is.
    pub problems: Vec<TlsError>,
}

impl ServerTls {
    /// Loads the certificates and prepares to accept; blocking file reads.
    /// `hostname` is the proxy's own name.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn new(settings: &Settings, hostname: &str) -> Result<(Self, Loaded), Vec<TlsError>> {
        Self::with(CertificateFiles::read(settings), settings, hostname)
    }

    /// The same with files that have been read.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn with(
        files: CertificateFiles,
        settings: &Settings,
        hostname: &str,
    ) -> Result<(Self, Loaded), Vec<TlsError>> {
        let chooser = certs::load(files, hostname, &provider())?;
        let loaded = chooser.loaded();
        let shown = Arc::new(Shown(ArcSwap::from_pointee(chooser)));
        let tls = Self::showing(shown, settings.tls_min).map_err(|problem| vec![problem])?;
        Ok((tls, loaded))
    }

    /// Shows from now on what the files hold by now, to the clients of all
    /// clones; handshakes under way go on as they began. What cannot be used is
    /// told, and what it replaces is kept.
    pub fn renew(&self, files: CertificateFiles, hostname: &str) -> Renewal {
        let old = self.shown.0.load();
        let (new, problems) = certs::renew(&old, files, hostname, &provider());
        if let Some(new) = new {
            self.shown.0.store(Arc::new(new));
        }
        Renewal {
            loaded: self.shown.0.load().loaded(),
            problems,
        }
    }

    /// What [`Self::renew`] would have to tell of these files. Changes nothing.
    pub fn weigh(&self, files: CertificateFiles, hostname: &str) -> Vec<TlsError> {
        let (_, problems) = certs::renew(&self.shown.0.load(), files, hostname, &provider());
        problems
    }

    /// The same certificates, now and later, for clients of another oldest version.
    ///
    /// # Errors
    /// The TLS library's.
    pub fn since(&self, min: TlsMin) -> Result<Self, TlsError> {
        Self::showing(Arc::clone(&self.shown), min)
    }

    fn showing(shown: Arc<Shown>, min: TlsMin) -> Result<Self, TlsError> {
        let config = Self::config(provider(), min, Arc::clone(&shown))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, shown })
    }

    fn config(
        provider: Arc<rustls::crypto::CryptoProvider>,
        min: TlsMin,
        shown: Arc<Shown>,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match min {
            TlsMin::Tls12 => &[&TLS13, &TLS12],
            TlsMin::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(shown);
        // A browser that was lured here asks for http/1.1 or h2 and gets
        // no_application_protocol (RFC 7301 3.2), so that no page's data is
        // ever read as mail (ALPACA). Mail clients ask for smtp or for nothing.
        config.alpn_protocols = vec![b"smtp".to_vec()];
        // All suites are strong, so the order is about cost: AES first, which the
        // processors of servers do in hardware. Scanners call a server that leaves
        // the order to its clients unsafe.
        config.ignore_client_order = true;
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
