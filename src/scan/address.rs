//! Where a scanner listens, and a fresh connection to it. Deadlines are the
//! caller's.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use tokio::net::{TcpStream, UnixStream};

use crate::settings::Value;
use crate::tls::Stream;

/// `host:port`, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// A name or an address, and a TCP port.
    Tcp {
        /// Name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Absolute path of a Unix stream socket.
    Unix(PathBuf),
}

impl ServiceAddress {
    /// Connects. Small writes are sent at once (`TCP_NODELAY`): every exchange
    /// ends with a wait for the other side.
    ///
    /// # Errors
    /// When nobody can be reached there.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

impl Value for ServiceAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("the path of the socket must begin with /".to_owned())
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or("the port is not 1 to 65535")?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|address| address.parse::<Ipv6Addr>().is_ok())
                .ok_or("there is no IPv6 address in the brackets")?,
            None if host.contains(':') => {
                return Err("an IPv6 address needs brackets: [::1]:783".to_owned());
            }
            None => host,
        };
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(plausible) {
            return Err("there is no host name before the port".to_owned());
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_it_back() {
        for text in [
            "localhost:783",
            "10.0.0.5:3310",
            "spam_1.example.org:783",
            "[2001:db8::1]:3310",
            "unix:/run/clamav/clamd.ctl",
        ] {
            assert_eq!(ServiceAddress::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("clamd", "port is missing"),
            ("clamd:0", "not 1 to 65535"),
            ("clamd:65536", "not 1 to 65535"),
            ("clamd:", "not 1 to 65535"),
            ("http://clamd:80", "needs brackets"),
            ("::1:25", "needs brackets"),
            ("[::1:25", "no IPv6"),
            ("[x]:25", "no IPv6"),
            (":25", "no host"),
            ("a b:25", "no host"),
            ("unix:", "begin with /"),
            ("unix:clamd.ctl", "begin with /"),
        ] {
            let error = ServiceAddress::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
