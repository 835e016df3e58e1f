//! How much of people's addresses a log shows (`LOG_ADDRESSES`).

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use super::{Value, choice};

/// What becomes of client and mail addresses in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAddresses {
    /// Shown as they are.
    Full,
    /// The network of a client (IPv4 /24, IPv6 /48), the first letter and the domain of a mailbox.
    Masked,
    /// A short hash under a key of this process: equal addresses look equal until it ends.
    Hashed,
    /// Not shown: `-`.
    None,
}

impl Value for LogAddresses {
    fn parse(text: &str) -> Result<Self, String> {
        let choices = [
            ("full", Self::Full),
            ("masked", Self::Masked),
            ("hashed", Self::Hashed),
            ("none", Self::None),
        ];
        choice(text, &choices)
    }
}

impl LogAddresses {
    /// A client's address, as the log may show it.
    pub fn ip(self, address: IpAddr) -> String {
        let address = address.to_canonical();
        match (self, address) {
            (Self::Full, _) => address.to_string(),
            (Self::Masked, IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            (Self::Masked, IpAddr::V6(v6)) => {
                let [a, b, c, ..] = v6.segments();
                format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
            (Self::Hashed, _) => hash(&address.to_string()),
            (Self::None, _) => "-".into(),
        }
    }

    /// A mailbox, as the log may show it. The null reverse-path stays empty: it is nobody's.
    pub fn mailbox(self, mailbox: &str) -> String {
        match self {
            Self::None => "-".into(),
            Self::Full => mailbox.into(),
            _ if mailbox.is_empty() => String::new(),
            Self::Hashed => hash(&mailbox.to_lowercase()),
            Self::Masked => {
                let first: String = mailbox.chars().take(1).collect();
                match mailbox.rsplit_once('@') {
                    Some((_, domain)) => format!("{first}***@{domain}"),
                    None => format!("{first}***"),
                }
            }
        }
    }
}

/// Sixteen hex digits of SipHash under a random key, which is never stored.
fn hash(text: &str) -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:016x}", KEY.hash_one(text))
}
