//! Where a scanner listens, and a fresh connection to it. Deadlines are the
//! caller's.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::reach;
use crate::settings::{HostPort, Value};
use crate::tls::Stream;

/// `host:port`, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// A name or an address, and a TCP port.
    Tcp(HostPort),
    /// Absolute path of a Unix stream socket.
    Unix(PathBuf),
}

impl ServiceAddress {
    /// A Unix socket.
    pub(super) fn unix(path: &str) -> Result<Self, String> {
        if path.starts_with('/') {
            Ok(Self::Unix(path.into()))
        } else {
            Err("has a path of a socket that does not begin with /".to_owned())
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody can be reached there.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(at) => Ok(Box::new(reach::tcp(at).await?)),
            Self::Unix(path) => Ok(Box::new(reach::unix(path).await?)),
        }
    }
}

impl Value for ServiceAddress {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Self::unix(path),
            None => HostPort::parse(text, None).map(Self::Tcp),
        }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
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
            ("clamd", "has no port"),
            ("clamd:0", "for a port (1 to 65535)"),
            ("clamd:65536", "for a port (1 to 65535)"),
            ("clamd:", "for a port (1 to 65535)"),
            ("http://clamd:80", "is a URL"),
            ("::1:25", "without brackets"),
            ("[::1:25", "not closed"),
            ("[x]:25", "for an IPv6 address"),
            (":25", "for a host name"),
            ("a b:25", "for a host name"),
            ("unix:", "does not begin with /"),
            ("unix:clamd.ctl", "does not begin with /"),
        ] {
            let error = ServiceAddress::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
