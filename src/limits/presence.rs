//! How many connections a client has open at this moment.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;

use super::counts::{Counts, Stay};
use super::prefix::Widths;

/// The network that has its full number of connections open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) network: IpNet,
    pub(super) most: u32,
}

/// Who is here.
pub(super) struct Presence {
    counts: Arc<Counts>,
    widths: Widths,
    /// Connections at once of a client; `None`: no bound.
    most: Option<NonZeroU32>,
    factor: NonZeroU32,
}

impl Presence {
    pub(super) fn new(widths: &Widths, most: Option<NonZeroU32>, factor: NonZeroU32) -> Self {
        Self {
            counts: Arc::default(),
            widths: widths.clone(),
            most,
            factor,
        }
    }

    /// Counts a connection in.
    ///
    /// # Errors
    /// The first network that is full; then nothing was counted.
    pub(super) fn enter(&self, client: IpAddr) -> Result<Stay, Full> {
        let mut stay = Stay::new(&self.counts);
        for (network, most) in self.of(client) {
            // Leaving `stay` behind counts out what was counted in.
            stay.enter(network, |here| match here < most {
                true => Ok(()),
                false => Err(Full { network, most }),
            })?;
        }
        Ok(stay)
    }

    /// The networks of a client with their bounds; none where there is no bound.
    pub(super) fn of(&self, client: IpAddr) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        let mut most = self.most;
        self.widths.networks(client).map_while(move |network| {
            let here = most?;
            most = Some(here.saturating_mul(self.factor));
            Some((network, here.get()))
        })
    }

    /// The clients with the most connections open, the busiest first.
    pub(super) fn busiest(&self, most: usize) -> Vec<(IpNet, u32)> {
        let is_client = |network: &IpNet| self.widths.client(network.addr()) == *network;
        let mut clients: Vec<_> = self
            .counts
            .list()
            .filter(|(network, _)| is_client(network))
            .collect();
        clients.sort_unstable_by_key(|(network, count)| (Reverse(*count), *network));
        clients.truncate(most);
        clients
    }

    /// Networks with a connection open.
    pub(super) fn networks(&self) -> usize {
        self.counts.networks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::prefix::{PrefixV4, PrefixV6};

    fn presence(most: u32) -> Arc<Presence> {
        let widths = Widths::new(PrefixV4(32), PrefixV6(64));
        let factor = NonZeroU32::new(8).unwrap();
        Arc::new(Presence::new(&widths, NonZeroU32::new(most), factor))
    }

    #[test]
    fn counts_in_and_out() {
        let presence = presence(2);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let first = presence.enter(client).unwrap();
        let _second = presence.enter(client).unwrap();
        let full = presence.enter(client).map(drop).unwrap_err();
        assert_eq!(
            (full.network.to_string().as_str(), full.most),
            ("192.0.2.1/32", 2)
        );
        drop(first);
        assert!(presence.enter(client).is_ok());
    }

    #[test]
    fn a_wider_network_is_counted_too_and_refusals_leave_no_trace() {
        let presence = presence(1);
        let clients = (1..=20_u8).map(|host| IpAddr::from([192, 0, 2, host]));
        let stays: Vec<_> = clients.map(|client| presence.enter(client)).collect();
        assert_eq!(stays.iter().filter(|stay| stay.is_ok()).count(), 8);
        assert_eq!(presence.networks(), 9);
        drop(stays);
        assert_eq!(presence.networks(), 0);
    }

    #[test]
    fn the_busiest_are_clients_and_not_the_networks_around_them() {
        let presence = presence(9);
        let enter = |client: &str| presence.enter(client.parse().unwrap()).unwrap();
        let _stays = ["192.0.2.1", "192.0.2.2", "192.0.2.2", "2001:db8::1"].map(enter);
        let busiest: Vec<_> = presence
            .busiest(2)
            .into_iter()
            .map(|(network, count)| (network.to_string(), count))
            .collect();
        let expected = [("192.0.2.2/32", 2), ("192.0.2.1/32", 1)];
        assert_eq!(
            busiest,
            expected.map(|(name, count)| (name.to_owned(), count))
        );
    }

    #[test]
    fn no_bound_counts_nobody() {
        let presence = presence(0);
        let _stay = presence.enter("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(presence.networks(), 0);
    }

    #[test]
    fn never_more_than_the_bound_when_all_come_at_once() {
        let presence = presence(5);
        let client: IpAddr = "2001:db8::1".parse().unwrap();
        let most = std::sync::atomic::AtomicU32::new(0);
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(stay) = presence.enter(client) {
                            let now = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                            most.fetch_max(now, std::sync::atomic::Ordering::SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(stay);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 5);
        assert_eq!(presence.networks(), 0);
    }
}
