//! Where a filter listens, as administrators write it for Sendmail and Postfix.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use tokio::net::{TcpStream, UnixStream};

use crate::settings::Value;
use crate::tls::Stream;

/// `inet:host:port` (Postfix), `inet:port@host` (Sendmail), both also with
/// `inet6:`; `unix:/path` or `local:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MilterAddress {
    /// A TCP port.
    Inet {
        /// Name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Path of a Unix stream socket.
    Unix(PathBuf),
}

impl MilterAddress {
    /// Opens a connection. The deadline is the caller's.
    ///
    /// # Errors
    /// As the system says.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Inet { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // Every packet awaits its answer.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

impl Value for MilterAddress {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix" | "local", "")) => Err("the path of the socket is missing".to_owned()),
            Some(("unix" | "local", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix" | "local", _)) => Err("the path must begin with /".to_owned()),
            Some(("inet" | "inet6", place)) => inet(place),
            _ => Err("must begin with inet: or unix:".to_owned()),
        }
    }
}

fn inet(place: &str) -> Result<MilterAddress, String> {
    let (host, port) = match place.split_once('@') {
        Some((port, host)) => (host, port),
        None => place.rsplit_once(':').ok_or("the port is missing")?,
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|host| host.parse::<Ipv6Addr>().is_ok())
            .ok_or_else(|| format!("{host} is no IPv6 address"))?,
        None if host.contains(':') && !place.contains('@') => {
            return Err("an IPv6 address needs brackets: inet:[::1]:8891".to_owned());
        }
        None => host,
    };
    let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if bare.is_empty() || !bare.chars().all(plausible) {
        return Err(format!("{host:?} is no host name"));
    }
    let port = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{port} is no port (1 to 65535)"))?;
    Ok(MilterAddress::Inet {
        host: bare.to_owned(),
        port,
    })
}

impl fmt::Display for MilterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port } if host.contains(':') => write!(f, "inet:[{host}]:{port}"),
            Self::Inet { host, port } => write!(f, "inet:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_it_back() {
        for (text, canonical) in [
            ("inet:127.0.0.1:8891", "inet:127.0.0.1:8891"),
            (
                "inet:filter.example.org:8891",
                "inet:filter.example.org:8891",
            ),
            ("inet:8891@localhost", "inet:localhost:8891"),
            ("inet6:[2001:db8::1]:8891", "inet:[2001:db8::1]:8891"),
            ("inet6:8891@[::1]", "inet:[::1]:8891"),
            ("inet6:8891@::1", "inet:[::1]:8891"),
            ("unix:/run/filter.sock", "unix:/run/filter.sock"),
            ("local:/run/filter.sock", "unix:/run/filter.sock"),
        ] {
            let address = MilterAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), canonical);
            assert_eq!(MilterAddress::parse(canonical).unwrap(), address);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("127.0.0.1:8891", "must begin"),
            ("inet:localhost", "port is missing"),
            ("inet:localhost:0", "no port"),
            ("inet:localhost:milter", "no port"),
            ("inet::8891", "no host name"),
            ("inet:8891@", "no host name"),
            ("inet6:::1:8891", "brackets"),
            ("inet6:[zz]:8891", "no IPv6"),
            ("unix:", "missing"),
            ("unix:run/filter", "begin with /"),
        ] {
            let error = MilterAddress::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
