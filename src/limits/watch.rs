//! What an admin sees of the limits, and the one thing that an admin may do.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::buckets::Buckets;
use super::{Ban, Limits, shared};

/// What came of lifting a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// The ban is gone, and its strikes are forgotten.
    Everywhere,
    /// It is gone here, but Redis gave no answer in time and may still know of it.
    HereOnly,
    /// There was none.
    NotBanned,
}

/// Figures about the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Buckets that are not full.
    pub buckets: usize,
    /// Networks with a connection open.
    pub networks: usize,
    /// Charges that no table had room for, since the start.
    pub crowded: u64,
}

impl Limits {
    /// Buckets that are not full, networks with a connection open, and charges
    /// that no table had room for. Reads all tables: for metrics.
    pub fn census(&self) -> Census {
        let all = || self.all().flatten();
        Census {
            buckets: all().map(Buckets::live).sum(),
            networks: self.presence.networks(),
            crowded: all().map(Buckets::crowded).sum(),
        }
    }

    /// Where limits are shared and how that goes; `None` where they are not.
    pub fn sharing(&self) -> Option<(String, shared::Health)> {
        let shared = self.shared.as_ref()?;
        Some((shared.url().to_string(), shared.health()))
    }

    fn all(&self) -> impl Iterator<Item = Option<&Buckets>> {
        [
            self.connections.as_deref(),
            self.messages.as_deref(),
            self.recipients.as_deref(),
            self.auth_failures.as_deref(),
            self.floods.as_deref(),
            self.offences.as_deref(),
        ]
        .into_iter()
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<(IpNet, Ban)> {
        self.bans.list(Instant::now())
    }

    /// The clients with the most connections open, the busiest first. Nobody
    /// where `CONN_MAX` is off, for then nobody counts.
    pub fn busiest(&self, most: usize) -> Vec<(IpNet, u32)> {
        self.presence.busiest(most)
    }

    /// The network that is banned where this address is.
    pub fn client(&self, address: IpAddr) -> IpNet {
        self.widths.client(address)
    }

    /// Lifts the ban of exactly this network, here and in Redis. Another instance
    /// that has learned of it keeps to it until it is lifted there too. The rates
    /// stay as they are: a client whose failures are used up is banned again by
    /// the next.
    pub async fn lift(&self, network: IpNet) -> Lifted {
        let here = self.bans.lift(&network, Instant::now());
        let there = match &self.shared {
            None => Some(false),
            Some(shared) => shared.lift(&self.key(&network)).await,
        };
        match (here, there) {
            (_, Some(true)) | (true, Some(false)) => Lifted::Everywhere,
            (false, Some(false)) => Lifted::NotBanned,
            (_, None) => Lifted::HereOnly,
        }
    }
}
