//! Where a filter listens, as administrators write it for Sendmail and Postfix.

use std::fmt;
use std::io;

use crate::scan::ServiceAddress;
use crate::settings::{HostPort, Value};
use crate::tls::Stream;

/// `inet:host:port` (Postfix), `inet:port@host` (Sendmail), both also with
/// `inet6:`; `unix:/path` or `local:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MilterAddress(ServiceAddress);

impl MilterAddress {
    /// Opens a connection. The deadline is the caller's.
    ///
    /// # Errors
    /// As the system says.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        self.0.connect().await
    }
}

impl Value for MilterAddress {
    fn parse(text: &str) -> Result<Self, String> {
        let address = match text.split_once(':') {
            Some(("unix" | "local", "")) => {
                return Err("has no path of a socket".to_owned());
            }
            Some(("unix" | "local", path)) => ServiceAddress::unix(path)?,
            Some(("inet" | "inet6", place)) => ServiceAddress::Tcp(match place.split_once('@') {
                Some((port, host)) => HostPort::of(host, port)?,
                None => HostPort::parse(place, None)?,
            }),
            _ => return Err("does not begin with inet: or unix:".to_owned()),
        };
        Ok(Self(address))
    }
}

impl fmt::Display for MilterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ServiceAddress::Tcp(at) => write!(f, "inet:{at}"),
            unix @ ServiceAddress::Unix(_) => unix.fmt(f),
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
            ("127.0.0.1:8891", "does not begin"),
            ("inet:localhost", "has no port"),
            ("inet:localhost:0", "for a port (1 to 65535)"),
            ("inet:localhost:milter", "for a port (1 to 65535)"),
            ("inet::8891", "for a host name"),
            ("inet:8891@", "for a host name"),
            ("inet6:::1:8891", "brackets"),
            ("inet6:[zz]:8891", "for an IPv6 address"),
            ("unix:", "no path"),
            ("unix:run/filter", "does not begin with /"),
        ] {
            let error = MilterAddress::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
