//! Where a guarded server listens, and what it speaks there.

use std::fmt;

use crate::settings::{HostPort, Value};

/// One guarded server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// How it is reached.
    pub place: Place,
    /// What it speaks.
    pub protocol: Protocol,
}

/// Host and port, or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A name or an address, and a TCP port.
    Tcp(HostPort),
    /// Path of a Unix stream socket.
    Unix(std::path::PathBuf),
}

/// The protocol on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SMTP, with STARTTLS as `BACKEND_TLS` says.
    Smtp,
    /// SMTP inside TLS from the first octet.
    Smtps,
    /// LMTP (RFC 2033). One recipient a message, so that the one reply of SMTP
    /// can tell the truth about it.
    Lmtp,
}

impl Address {
    /// The name by which a certificate is checked and TLS SNI is sent.
    pub fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(at) => &at.host,
            Place::Unix(_) => "localhost",
        }
    }
}

impl Value for Address {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (protocol, port) = match scheme {
            None => (Protocol::Smtp, None),
            Some("smtp") => (Protocol::Smtp, Some(25)),
            Some("smtps") => (Protocol::Smtps, Some(465)),
            Some("lmtp") => (Protocol::Lmtp, Some(24)),
            Some(other) => {
                return Err(format!(
                    "begins with {other}://, which is not known; smtp://, smtps:// and lmtp:// are"
                ));
            }
        };
        let place = match rest.strip_prefix("unix:") {
            Some("") => return Err("has no path behind unix:".to_owned()),
            Some(path) => Place::Unix(path.into()),
            None => Place::Tcp(HostPort::parse(
                rest.strip_suffix('/').unwrap_or(rest),
                port,
            )?),
        };
        Ok(Self { place, protocol })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Smtp => f.write_str("smtp://")?,
            Protocol::Smtps => f.write_str("smtps://")?,
            Protocol::Lmtp => f.write_str("lmtp://")?,
        }
        match &self.place {
            Place::Tcp(at) => at.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_it_back() {
        for (text, canonical) in [
            ("mail.example.org:25", "smtp://mail.example.org:25"),
            ("10.0.0.5:2525", "smtp://10.0.0.5:2525"),
            ("smtp://mail", "smtp://mail:25"),
            ("smtps://mail.example.org", "smtps://mail.example.org:465"),
            (
                "smtps://mail.example.org:4650/",
                "smtps://mail.example.org:4650",
            ),
            ("lmtp://10.0.0.5", "lmtp://10.0.0.5:24"),
            ("[2001:db8::1]:25", "smtp://[2001:db8::1]:25"),
            ("smtp://[::1]", "smtp://[::1]:25"),
            ("unix:/run/mail", "smtp://unix:/run/mail"),
            ("lmtp://unix:/run/lmtp", "lmtp://unix:/run/lmtp"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), canonical);
            assert_eq!(Address::parse(canonical).unwrap(), address);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("mail", "has no port"),
            ("mail:0", "for a port (1 to 65535)"),
            ("mail:99999", "for a port (1 to 65535)"),
            ("http://mail", "not known"),
            ("::1:25", "brackets"),
            ("[::1:25", "not closed"),
            ("[zz]:25", "for an IPv6 address"),
            ("unix:", "no path"),
            ("a b:25", "for a host name"),
            (":25", "for a host name"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
