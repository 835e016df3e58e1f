//! A host and a TCP port, as settings name a server.

use std::fmt;
use std::net::Ipv6Addr;

use super::Value;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `[2001:db8::1]:port`, or either without a port where
    /// there is a default.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about the value.
    pub fn parse(text: &str, default: Option<u16>) -> Result<Self, String> {
        if text.contains("://") {
            return Err("is a URL, where host:port belongs".to_owned());
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (_, behind) = rest
                    .split_once(']')
                    .ok_or("has a bracket that is not closed")?;
                let host = text.strip_suffix(behind).unwrap_or(text);
                match behind {
                    "" => (host, None),
                    _ => (
                        host,
                        Some(
                            behind
                                .strip_prefix(':')
                                .ok_or("has something other than a port behind the ]")?,
                        ),
                    ),
                }
            }
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(
                        "has an IPv6 address without brackets (it is written [::1]:25)".to_owned(),
                    );
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        match (port, default) {
            (Some(port), _) => Self::of(host, port),
            (None, Some(port)) => Self::of(host, &port.to_string()),
            (None, None) => Err("has no port".to_owned()),
        }
    }

    /// Reads the two by themselves; an IPv6 address may have its brackets.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about the value.
    pub fn of(host: &str, port: &str) -> Result<Self, String> {
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|address| address.parse::<Ipv6Addr>().is_ok())
                .ok_or_else(|| format!("has {host:?} for an IPv6 address"))?,
            None if host.contains(':') && host.parse::<Ipv6Addr>().is_err() => {
                return Err(format!("has {host:?} for an IPv6 address"));
            }
            None => host,
        };
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if bare.is_empty() || !bare.chars().all(plausible) {
            return Err(format!("has {host:?} for a host name"));
        }
        let number = u16::parse(port).ok().filter(|port| *port > 0);
        Ok(Self {
            host: bare.to_owned(),
            port: number.ok_or_else(|| format!("has {port:?} for a port (1 to 65535)"))?,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
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
            "10.0.0.5:1",
            "a_1.example.org:65535",
            "[2001:db8::1]:25",
        ] {
            assert_eq!(HostPort::parse(text, None).unwrap().to_string(), text);
        }
        for (text, whole) in [
            ("mail", "mail:25"),
            ("[::1]", "[::1]:25"),
            ("mail:26", "mail:26"),
        ] {
            assert_eq!(HostPort::parse(text, Some(25)).unwrap().to_string(), whole);
        }
        assert_eq!(HostPort::of("::1", "25"), HostPort::of("[::1]", "25"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("mail", "has no port"),
            ("[::1]", "has no port"),
            ("mail:0", "for a port (1 to 65535)"),
            ("mail:65536", "for a port (1 to 65535)"),
            ("mail:+1", "for a port (1 to 65535)"),
            ("mail:", "for a port (1 to 65535)"),
            ("::1:25", "brackets"),
            ("[::1:25", "not closed"),
            ("[::1]25", "behind the ]"),
            ("[x]:25", "for an IPv6 address"),
            ("[]:25", "for an IPv6 address"),
            (":25", "for a host name"),
            ("http://mail:25", "is a URL"),
            ("a b:25", "for a host name"),
            ("a/b:25", "for a host name"),
        ] {
            let error = HostPort::parse(text, None).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(HostPort::of("a:b", "25").is_err());
    }
}
