//! Who counts as one client: an address cut to its network, and the wider
//! networks around it.
//!
//! An attacker who is routed a /48 owns 65,536 client networks; the wider
//! tiers see them as one.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::settings::Value;

/// IPv4 networks wider than a client that are counted too.
const WIDER_V4: [u8; 1] = [24];

/// IPv6 networks wider than a client that are counted too: what a site and what
/// a provider are assigned (RFC 6177).
const WIDER_V6: [u8; 2] = [48, 32];

/// Width in bits of "a client" in IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixV4(pub u8);

/// Width in bits of "a client" in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixV6(pub u8);

impl Value for PrefixV4 {
    fn parse(text: &str) -> Result<Self, String> {
        width(text, 8, 32).map(Self)
    }
}

impl Value for PrefixV6 {
    fn parse(text: &str) -> Result<Self, String> {
        width(text, 16, 128).map(Self)
    }
}

fn width(text: &str, least: u8, most: u8) -> Result<u8, String> {
    let digits = text.strip_prefix('/').unwrap_or(text);
    match u16::parse(digits).map(u8::try_from) {
        Ok(Ok(bits)) if (least..=most).contains(&bits) => Ok(bits),
        _ => Err(format!("is not a prefix length between {least} and {most}")),
    }
}

/// The widths that are counted, from the client outwards.
#[derive(Clone, Debug)]
pub(super) struct Widths {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Widths {
    pub(super) fn new(v4: PrefixV4, v6: PrefixV6) -> Self {
        let with = |client: u8, wider: &[u8]| {
            let wider = wider.iter().copied().filter(|width| *width < client);
            std::iter::once(client).chain(wider).collect()
        };
        Self {
            v4: with(v4.0, &WIDER_V4),
            v6: with(v6.0, &WIDER_V6),
        }
    }

    pub(super) fn v4(&self) -> &[u8] {
        &self.v4
    }

    pub(super) fn v6(&self) -> &[u8] {
        &self.v6
    }

    /// The networks that `address` lies in, the client's own first. An IPv4
    /// address that came over an IPv6 socket is an IPv4 address here.
    pub(super) fn networks(&self, address: IpAddr) -> impl Iterator<Item = IpNet> + '_ {
        let address = address.to_canonical();
        let widths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        widths.iter().map(move |width| cut(address, *width))
    }

    /// The client's own network.
    pub(super) fn client(&self, address: IpAddr) -> IpNet {
        let address = address.to_canonical();
        let width = match address {
            IpAddr::V4(_) => self.v4.first(),
            IpAddr::V6(_) => self.v6.first(),
        };
        cut(address, width.copied().unwrap_or(u8::MAX))
    }
}

fn cut(address: IpAddr, width: u8) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, width.min(32)).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, width.min(128)).trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(v4: u8, v6: u8, address: &str) -> Vec<String> {
        let widths = Widths::new(PrefixV4(v4), PrefixV6(v6));
        let networks = widths.networks(address.parse().unwrap());
        networks.map(|network| network.to_string()).collect()
    }

    #[test]
    fn a_client_stands_in_its_wider_networks() {
        assert_eq!(
            networks(32, 64, "192.0.2.7"),
            ["192.0.2.7/32", "192.0.2.0/24"]
        );
        assert_eq!(
            networks(32, 64, "2001:db8:1:2:3::4"),
            ["2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8::/32"]
        );
    }

    #[test]
    fn an_ipv4_mapped_address_is_an_ipv4_address() {
        assert_eq!(
            networks(32, 64, "::ffff:192.0.2.7"),
            ["192.0.2.7/32", "192.0.2.0/24"]
        );
    }

    #[test]
    fn only_what_is_wider_than_a_client_is_counted_too() {
        assert_eq!(networks(24, 48, "192.0.2.7"), ["192.0.2.0/24"]);
        assert_eq!(
            networks(24, 48, "2001:db8::1"),
            ["2001:db8::/48", "2001:db8::/32"]
        );
        assert_eq!(networks(8, 16, "2001:db8::1"), ["2001::/16"]);
    }

    #[test]
    fn refuses_widths_that_are_none() {
        for bad in ["", "33", "7", "/", "a", "-1", "300"] {
            assert!(PrefixV4::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(PrefixV4::parse("/24"), Ok(PrefixV4(24)));
        assert!(PrefixV6::parse("129").is_err());
    }
}
