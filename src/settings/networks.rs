//! A set of IP networks, as settings name them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Value;
use super::list::List;

/// Networks in CIDR notation or single addresses; empty matches nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the address lies in one of the networks. An IPv4 address that
    /// came over an IPv6 socket (`::ffff:192.0.2.1`) is an IPv4 address here.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether a whole address family is in it, be it in pieces.
    pub fn holds_everybody(&self) -> bool {
        let whole = IpNet::aggregate(&self.0);
        whole.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for Networks {
    fn parse(text: &str) -> Result<Self, String> {
        List::<IpNet>::parse(text).map(|list| Self(list.0))
    }
}

impl Value for IpNet {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(IpNet::from(address.to_canonical()));
        }
        let network: IpNet = text
            .parse()
            .map_err(|_| "is not a network such as 192.0.2.0/24")?;
        if network.trunc() != network {
            return Err(format!("has host bits set: write {}", network.trunc()));
        }
        Ok(canonical(network))
    }
}

/// `::ffff:192.0.2.0/120` as `192.0.2.0/24`, since addresses are compared unmapped.
fn canonical(network: IpNet) -> IpNet {
    let (IpAddr::V4(address), Some(length)) = (
        network.addr().to_canonical(),
        network.prefix_len().checked_sub(96),
    ) else {
        return network;
    };
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(_) => Ipv4Net::new(address, length).map_or(network, IpNet::V4),
    }
}
