//! Where the shared Redis is. Printing it never shows the password.

use std::fmt;
use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, RedisError, TlsCertificates};

use crate::settings::Value;

/// Whether limits are shared with other instances: the setting `REDIS`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sharing {
    /// Each instance counts for itself.
    #[default]
    Off,
    /// Through this Redis.
    Through(RedisUrl),
}

impl Value for Sharing {
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        RedisUrl::parse(text).map(Self::Through)
    }
}

/// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS checked
/// against the system's roots; `valkey://` and `valkeys://` mean the same.
#[derive(Clone)]
pub struct RedisUrl(Arc<Client>);

/// The schemes that are read.
const SCHEMES: [&str; 4] = ["redis://", "rediss://", "valkey://", "valkeys://"];

impl RedisUrl {
    /// Trusts these authorities (PEM) instead of the system's.
    ///
    /// # Errors
    /// When they cannot be read, or the URL is none with TLS.
    pub fn trusting(&self, authorities: Vec<u8>) -> Result<Self, RedisError> {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(authorities),
        };
        let info = self.0.get_connection_info().clone();
        Client::build_with_tls(info, certificates).map(|client| Self(Arc::new(client)))
    }

    pub(super) fn client(&self) -> &Client {
        &self.0
    }
}

impl Value for RedisUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err("starts with neither redis:// nor rediss://".to_owned());
        }
        // `#insecure` would switch off certificate checks.
        if text.contains(['#', '?']) {
            return Err("has a part behind # or ?, which is not supported (in a password write %23 and %3F)".to_owned());
        }
        // The crate's own words could repeat a piece of the password.
        let info = text.into_connection_info().map_err(|_| {
            "is not of the form redis://user:password@host:port/db (in a password write %40 for @, %2F for /)"
        })?;
        // Nagle's algorithm would hold back a question until the one before it
        // is answered.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Client::open(info)
            .map(|client| Self(Arc::new(client)))
            .map_err(|_| "cannot be used".to_owned())
    }
}

/// The same server, database and login.
impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        fn login(url: &RedisUrl) -> (Option<&str>, Option<&str>) {
            let settings = url.0.get_connection_info().redis_settings();
            (settings.username(), settings.password())
        }
        self.to_string() == other.to_string() && login(self) == login(other)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.get_connection_info();
        let scheme = match info.addr() {
            redis::ConnectionAddr::TcpTls { .. } => "rediss",
            _ => "redis",
        };
        write!(
            f,
            "{scheme}://{}/{}",
            info.addr(),
            info.redis_settings().db()
        )
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_never_shows_the_password() {
        for (text, shown) in [
            ("redis://cache", "redis://cache:6379/0"),
            ("redis://10.0.0.7:7000/3", "redis://10.0.0.7:7000/3"),
            ("redis://:geheim@cache:1/2", "redis://cache:1/2"),
            ("rediss://user:geheim@cache", "rediss://cache:6379/0"),
            ("valkey://cache:6379/0", "redis://cache:6379/0"),
            ("valkeys://cache", "rediss://cache:6379/0"),
        ] {
            let Ok(Sharing::Through(url)) = Sharing::parse(text) else {
                panic!("{text} is refused");
            };
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        assert!(matches!(Sharing::parse("off"), Ok(Sharing::Off)));
    }

    #[test]
    fn another_password_is_another_url() {
        let url = |text| Sharing::parse(text).unwrap();
        assert_eq!(url("redis://:a@cache"), url("redis://:a@cache:6379/0"));
        assert_ne!(url("redis://:a@cache"), url("redis://:b@cache"));
        assert_ne!(url("redis://:a@cache"), url("redis://:a@cache/1"));
    }

    #[test]
    fn refuses_other_urls_without_repeating_them() {
        for text in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://user:geheim@cache:0x1/0",
            "redis://user:geheim@cache/eins",
            "rediss://:geheim@cache/#insecure",
            "redis://:geheim@cache/?protocol=resp9",
        ] {
            let error = Sharing::parse(text).unwrap_err();
            assert!(
                !error.contains("geheim") && !error.contains("cache"),
                "{error}"
            );
        }
    }
}
