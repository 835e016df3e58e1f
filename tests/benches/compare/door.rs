//! The ways in: plain text, STARTTLS, TLS from the first octet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Guest, trusting_config_of};

/// Longest wait for a connection, and for a handshake.
const PATIENCE: Duration = Duration::from_secs(60);

const EHLO: [(&str, &str); 1] = [("EHLO client.test", "250")];

/// A stream of any kind.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

pub type Session = Guest<Box<dyn Wire>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Plain,
    StartTls,
    Tls,
}

/// Where a peer listens, as far as it can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doors {
    pub plain: Option<SocketAddr>,
    pub starttls: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

impl Doors {
    pub fn at(&self, door: Door) -> Option<SocketAddr> {
        match door {
            Door::Plain => self.plain,
            Door::StartTls => self.starttls,
            Door::Tls => self.tls,
        }
    }
}

impl Door {
    /// Goes in, up to the answer to EHLO.
    pub async fn enter(self, address: SocketAddr, tls: &TlsConnector) -> io::Result<Session> {
        let mut stream = connect(address).await?;
        if self == Self::StartTls {
            let mut guest = Guest::new(stream);
            welcome(&mut guest).await?;
            guest.dialogue(&EHLO).await?;
            guest.dialogue(&[("STARTTLS", "220")]).await?;
            stream = guest.into_stream();
        }
        let wire: Box<dyn Wire> = match self {
            Self::Plain => Box::new(stream),
            Self::StartTls | Self::Tls => Box::new(hand_shake(stream, tls).await?),
        };
        let mut session = Guest::new(wire);
        if self != Self::StartTls {
            welcome(&mut session).await?;
        }
        session.dialogue(&EHLO).await?;
        Ok(session)
    }
}

pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub async fn hand_shake(stream: TcpStream, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("mx.portcullis.test").unwrap();
    timeout(PATIENCE, tls.connect(name, stream)).await?
}

/// Hears the greeting.
pub async fn welcome<S: Wire>(guest: &mut Guest<S>) -> io::Result<()> {
    let greeting = guest.reply().await?;
    if greeting.starts_with("220") {
        Ok(())
    } else {
        Err(io::Error::other(format!("greeted with `{greeting}`")))
    }
}

/// A client's side of TLS, without resumption or with one memory of tickets.
///
/// None offers a post-quantum key exchange: OpenSSL 3.0, which the others are built
/// with, knows none, and Portcullis would choose it.
pub fn connector(resumption: Resumption) -> TlsConnector {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    let mut config = trusting_config_of(provider);
    config.resumption = resumption;
    TlsConnector::from(Arc::new(config))
}
