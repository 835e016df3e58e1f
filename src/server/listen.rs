//! Where Portcullis listens: addresses, sockets, and what to do when one cannot be had.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::settings::Value;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 1024;

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

impl ListenAddress {
    /// Binds and listens. Where the machine has no IPv6, `[::]` becomes `0.0.0.0`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(self) -> io::Result<TcpListener> {
        match bind(self.0) {
            Err(error)
                if self.0.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && lacks_ipv6(&error) =>
            {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.0.port()))
            }
            other => other,
        }
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT and EADDRNOTAVAIL on Linux.
    matches!(error.raw_os_error(), Some(97 | 99))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
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

    #[tokio::test]
    async fn the_unspecified_address_serves_ipv4_too() {
        let listener = ListenAddress::parse("[::]:0").unwrap().bind().unwrap();
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
