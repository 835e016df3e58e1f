//! Where Portcullis listens: addresses, sockets, and what to do when one cannot be had.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::settings::Value;

/// Clients that may wait to be accepted.
pub(super) const BACKLOG: i32 = 1024;

/// The first port that everybody may have.
const UNPRIVILEGED: u16 = 1024;

/// One address to listen on. `[::]` serves IPv4 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl Value for ListenAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let port = text.strip_prefix("*:").or(text.strip_prefix(':'));
        match port.map(str::parse) {
            Some(Ok(port)) => Ok(Self(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))),
            _ => Err("is not an IP address and a port".to_owned()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether others may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Nobody else.
    Exclusive,
    /// Other processes of the same user that agree to it too (`SO_REUSEPORT`):
    /// the kernel gives each of them a part of the clients.
    Shared,
}

/// An address that is ours; clients are refused until [`listen`](Self::listen).
#[derive(Debug)]
pub struct Reserved(Socket);

impl Reserved {
    /// Begins to take clients in.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(self) -> io::Result<TcpListener> {
        let Self(socket) = self;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()?.as_socket()
    }
}

/// A socket from elsewhere that is bound already.
impl From<std::net::TcpListener> for Reserved {
    fn from(listener: std::net::TcpListener) -> Self {
        Self(listener.into())
    }
}

impl ListenAddress {
    /// Binds. Where the machine has no IPv6, `[::]` becomes `0.0.0.0`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(self, port: Port) -> io::Result<Reserved> {
        match bind(self.0, port) {
            Err(error)
                if self.0.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && lacks_ipv6(&error) =>
            {
                bind(
                    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.0.port()),
                    port,
                )
            }
            other => other,
        }
    }

    /// What to do about this failure, to be told behind it.
    pub(super) fn remedy(self, error: &io::Error) -> &'static str {
        let is_low = self.0.port() < UNPRIVILEGED;
        if is_low && error.kind() == io::ErrorKind::PermissionDenied {
            "; ports below 1024 need a start by root (who may become RUN_AS afterwards), or CAP_NET_BIND_SERVICE"
        } else {
            ""
        }
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT and EADDRNOTAVAIL on Linux.
    matches!(error.raw_os_error(), Some(97 | 99))
}

fn bind(address: SocketAddr, port: Port) -> io::Result<Reserved> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    // A restart must not wait for the last connections to time out.
    socket.set_reuse_address(true)?;
    if port == Port::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(Reserved(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_with_ports_only() {
        for (text, address) in [
            ("[::]:25", "[::]:25"),
            ("127.0.0.1:2525", "127.0.0.1:2525"),
            (":25", "[::]:25"),
            ("*:25", "[::]:25"),
        ] {
            assert_eq!(ListenAddress::parse(text).unwrap().to_string(), address);
        }
        for bad in [
            "25",
            "localhost:25",
            "1.2.3.4",
            "1.2.3.4:99999",
            ":",
            "[::]",
        ] {
            assert!(ListenAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tells_what_a_low_port_needs_and_which_setting_asks_for_it() {
        let told = |address, kind: io::ErrorKind| {
            let address = ListenAddress::parse(address).unwrap();
            let (setting, error) = ("LISTEN", kind.into());
            let failure = crate::server::ServeError::Bind {
                address,
                setting,
                error,
            };
            failure.to_string()
        };
        let (denied, taken) = (io::ErrorKind::PermissionDenied, io::ErrorKind::AddrInUse);
        let low = told("[::]:25", denied);
        let remedy = "ports below 1024 need a start by root";
        assert!(low.starts_with("cannot listen on [::]:25 (LISTEN): permission denied; "));
        assert!(low.contains(remedy) && low.contains("CAP_NET_BIND_SERVICE"));
        for other in [told("[::]:2525", denied), told("[::]:25", taken)] {
            assert!(!other.contains(remedy), "{other}");
        }
    }

    #[tokio::test]
    async fn only_those_share_an_address_who_agree_to_it() {
        let any = ListenAddress::parse("127.0.0.1:0").unwrap();
        let one = any.bind(Port::Shared).unwrap();
        let address = ListenAddress(one.address().unwrap());
        let _one = one.listen().unwrap();
        let other = address.bind(Port::Shared).unwrap();
        assert!(other.listen().is_ok());
        assert_eq!(
            address.bind(Port::Exclusive).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[tokio::test]
    async fn nobody_gets_in_before_it_listens() {
        let address = ListenAddress::parse("127.0.0.1:0").unwrap();
        let reserved = address.bind(Port::Shared).unwrap();
        let address = reserved.address().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
        let _listener = reserved.listen().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }

    #[tokio::test]
    async fn the_unspecified_address_serves_ipv4_too() {
        let listener = ListenAddress::parse("[::]:0").unwrap();
        let listener = listener.bind(Port::Exclusive).unwrap().listen().unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        assert!(
            listener
                .accept()
                .await
                .unwrap()
                .1
                .ip()
                .to_canonical()
                .is_ipv4()
        );
    }
}
