//! The token buckets of one kind: a client's own, and those of the wider
//! networks around it.
//!
//! A client that is refused charges nobody else, so that it cannot empty its
//! neighbours' bucket. Where a table has no room for a client, the wider
//! network's bucket decides alone; where no table has room, one bucket for
//! everybody does.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;

use super::counts::{Counts, Stay};
use super::prefix::Widths;
use super::rate::Allowance;
use super::table::{Look, Probe, Table};
use crate::metrics;

/// What a table of clients gets of a kind's memory, against one of wider networks.
const CLIENT_SHARE: usize = 2;

/// The bucket that has no room for another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Empty {
    /// Whose it is; `None`: everybody's.
    pub(super) network: Option<IpNet>,
    /// Until there is a token again.
    pub(super) wait: Duration,
}

type Glance<C> = RateLimiter<Probe, Look, C, NoOpMiddleware<<C as Clock>::Instant>>;

type Limiter<C> = RateLimiter<Probe, Table, C, NoOpMiddleware<<C as Clock>::Instant>>;

type Common<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Which buckets must have a token to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the wider networks around a client.
    Wider,
    /// Its own too.
    All,
}

/// Why no token can be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// There is none.
    Empty(Empty),
    /// All that this network has are set aside already.
    Promised(IpNet),
}

/// Buckets of one kind.
pub(super) struct Buckets<C: Clock = MonotonicClock> {
    widths: Widths,
    v4: Vec<Tier<C>>,
    v6: Vec<Tier<C>>,
    everybody: Common<C>,
    hasher: RandomState,
    clock: C,
    start: C::Instant,
    crowded: AtomicU64,
}

/// All networks of one width.
struct Tier<C: Clock> {
    allowance: Allowance,
    limiter: Limiter<C>,
    glance: Glance<C>,
    table: Table,
}

/// How many networks that are counted more widely stand around a client at most.
const WIDER_MAX: u32 = 2;

impl<C: Clock + Clone> Buckets<C> {
    /// Buckets in `octets` of memory; each wider network holds `factor` times
    /// what the next narrower one does.
    pub(super) fn new(
        allowance: Allowance,
        widths: &Widths,
        factor: NonZeroU32,
        octets: usize,
        clock: C,
    ) -> Option<Self> {
        let start = clock.now();
        let shares = CLIENT_SHARE * 2 + (widths.v4().len() + widths.v6().len()).saturating_sub(2);
        let tiers = |widths: &[u8]| -> Option<Vec<Tier<C>>> {
            let mut allowance = allowance;
            let mut tiers = Vec::with_capacity(widths.len());
            for (position, _) in widths.iter().enumerate() {
                let share = if position == 0 { CLIENT_SHARE } else { 1 };
                let table = Table::new(octets / shares * share);
                tiers.push(Tier {
                    allowance,
                    limiter: RateLimiter::new(allowance.quota()?, table.clone(), clock.clone()),
                    glance: RateLimiter::new(
                        allowance.quota()?,
                        Look(table.clone()),
                        clock.clone(),
                    ),
                    table,
                });
                allowance = allowance.times(factor);
            }
            Some(tiers)
        };
        Some(Self {
            v4: tiers(widths.v4())?,
            v6: tiers(widths.v6())?,
            everybody: RateLimiter::new(
                everybody(allowance, factor)?,
                InMemoryState::default(),
                clock.clone(),
            ),
            widths: widths.clone(),
            hasher: RandomState::default(),
            clock,
            start,
            crowded: AtomicU64::new(0),
        })
    }

    /// Takes a token of each bucket that `client` stands in.
    ///
    /// # Errors
    /// The first bucket that is empty.
    pub(super) fn charge(&self, client: IpAddr) -> Result<(), Empty> {
        let now = self.now();
        let mut room = false;
        for (network, tier) in self.tiers(client) {
            let probe = Probe::new(self.hasher.hash_one(network), now);
            if let Err(until) = tier.limiter.check_key(&probe) {
                return Err(Empty {
                    network: Some(network),
                    wait: until.wait_time_from(self.clock.now()),
                });
            }
            room |= !probe.crowded();
        }
        if room {
            return Ok(());
        }
        self.crowded.fetch_add(1, Ordering::Relaxed);
        metrics::get().limiter_overflows.inc();
        self.everybody.check().map_err(|until| Empty {
            network: None,
            wait: until.wait_time_from(self.clock.now()),
        })
    }

    /// Sets a token aside in each bucket that `client` stands in until what is
    /// returned is dropped; none is taken. `aside` counts those that are. Where a
    /// bucket is outside `scope`, those set aside before must be there, and no more.
    /// A network that is not remembered has all its tokens.
    ///
    /// # Errors
    /// The first bucket that is short of them.
    pub(super) fn set_aside(
        &self,
        client: IpAddr,
        scope: Scope,
        aside: &Arc<Counts>,
    ) -> Result<Stay, Short> {
        let now = self.now();
        let mut stay = Stay::new(aside);
        let mut needs = match scope {
            Scope::Wider => 0,
            Scope::All => 1,
        };
        for (network, tier) in self.tiers(client) {
            let probe = Probe::new(self.hasher.hash_one(network), now);
            stay.enter(network, |others| {
                self.look(tier, &probe, needs).map_err(|wait| {
                    Short::Empty(Empty {
                        network: Some(network),
                        wait,
                    })
                })?;
                self.look(tier, &probe, needs.saturating_add(others))
                    .map_err(|_| Short::Promised(network))
            })?;
            needs = 1;
        }
        Ok(stay)
    }

    /// Whether there are so many tokens.
    ///
    /// # Errors
    /// How long until then; as good as for ever where they never fit in.
    fn look(&self, tier: &Tier<C>, probe: &Probe, tokens: u32) -> Result<(), Duration> {
        let Some(tokens) = NonZeroU32::new(tokens) else {
            return Ok(());
        };
        match tier.glance.check_key_n(probe, tokens) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(self.clock.now())),
            Err(_) => Err(Duration::MAX),
        }
    }

    /// Empties the bucket of one network that `client` stands in.
    pub(super) fn drain(&self, client: IpAddr, network: &IpNet) {
        let mut tiers = self.tiers(client);
        let Some((_, tier)) = tiers.find(|(whose, _)| whose == network) else {
            return;
        };
        let probe = Probe::new(self.hasher.hash_one(network), self.now());
        // By powers of two: what is left is less than twice the next.
        for power in (0..=tier.allowance.burst.ilog2()).rev() {
            if let Some(tokens) = NonZeroU32::new(1 << power) {
                let _ = tier.limiter.check_key_n(&probe, tokens);
            }
        }
    }

    /// The buckets that `client` stands in, for somebody else to charge.
    pub(super) fn of(&self, client: IpAddr) -> impl Iterator<Item = (IpNet, Allowance)> + '_ {
        self.tiers(client)
            .map(|(network, tier)| (network, tier.allowance))
    }

    /// Charges that no table had room for, since the start.
    pub(super) fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Buckets that are not full at this moment. Reads all tables: not for the hot path.
    pub(super) fn live(&self) -> usize {
        let now = self.now();
        let tiers = self.v4.iter().chain(&self.v6);
        tiers.map(|tier| tier.table.live(now)).sum()
    }

    fn tiers(&self, client: IpAddr) -> impl Iterator<Item = (IpNet, &Tier<C>)> {
        let tiers = match client.to_canonical() {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        self.widths.networks(client).zip(tiers)
    }

    fn now(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }
}

fn everybody(allowance: Allowance, factor: NonZeroU32) -> Option<Quota> {
    let factor = factor.saturating_pow(WIDER_MAX + 1);
    allowance.times(factor).quota()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::prefix::{PrefixV4, PrefixV6};
    use crate::limits::rate::Rate;
    use crate::settings::Value;
    use governor::clock::FakeRelativeClock;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn buckets(rate: &str, octets: usize) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::new(
            Rate::parse(rate).unwrap().allowance().unwrap(),
            &Widths::new(PrefixV4(32), PrefixV6(64)),
            NonZeroU32::new(8).unwrap(),
            octets,
            clock.clone(),
        );
        (buckets.unwrap(), clock)
    }

    fn look(
        buckets: &Buckets<FakeRelativeClock>,
        client: IpAddr,
        scope: Scope,
    ) -> Result<(), Empty> {
        match buckets.set_aside(client, scope, &Arc::default()) {
            Ok(_) => Ok(()),
            Err(Short::Empty(empty)) => Err(empty),
            Err(Short::Promised(network)) => panic!("{network} has promised nothing"),
        }
    }

    fn charge_all(
        buckets: &Buckets<FakeRelativeClock>,
        clients: impl Iterator<Item = IpAddr>,
    ) -> usize {
        clients
            .filter(|client| buckets.charge(*client).is_ok())
            .count()
    }

    #[test]
    fn a_client_has_its_burst_and_then_waits_for_the_refill() {
        let (buckets, clock) = buckets("60/min burst 20", 1 << 20);
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(charge_all(&buckets, std::iter::repeat_n(client, 100)), 20);
        let empty = buckets.charge(client).unwrap_err();
        assert_eq!(empty.network, Some("192.0.2.7/32".parse().unwrap()));
        let error = Duration::from_secs(1).abs_diff(empty.wait);
        assert!(error < Duration::from_millis(5), "{:?}", empty.wait);
        clock.advance(Duration::from_secs(5));
        assert_eq!(charge_all(&buckets, std::iter::repeat_n(client, 100)), 5);
    }

    #[test]
    fn spraying_the_networks_of_a_48_gains_eight_clients_worth() {
        let (buckets, _clock) = buckets("60/min burst 20", 1 << 20);
        let spray = (0..10_000_u128).map(|network| {
            let base = u128::from("2001:db8:1::".parse::<Ipv6Addr>().unwrap());
            IpAddr::V6(Ipv6Addr::from(base | network << 64 | 1))
        });
        assert_eq!(charge_all(&buckets, spray), 160);
    }

    #[test]
    fn spraying_the_networks_of_a_32_gains_sixty_four_clients_worth() {
        let (buckets, _clock) = buckets("60/min burst 20", 1 << 20);
        let spray = (0..10_000_u128).map(|network| {
            let base = u128::from("2001:db8::".parse::<Ipv6Addr>().unwrap());
            IpAddr::V6(Ipv6Addr::from(base | network << 80 | 1))
        });
        // Arrival times are rounded down: 1,280 and a few.
        let passed = charge_all(&buckets, spray);
        assert!((1280..1290).contains(&passed), "{passed}");
    }

    #[test]
    fn one_client_cannot_empty_its_neighbours_bucket() {
        let (buckets, _clock) = buckets("60/min burst 20", 1 << 20);
        let (abuser, neighbour) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        charge_all(&buckets, std::iter::repeat_n(abuser.into(), 10_000));
        assert_eq!(
            charge_all(&buckets, std::iter::repeat_n(neighbour.into(), 100)),
            20
        );
    }

    #[test]
    fn a_full_table_leaves_the_decision_to_the_wider_network() {
        // 16 slots for IPv4 clients, 8 for IPv4 networks.
        let (buckets, _clock) = buckets("1/h burst 1", 64 * 7);
        let crowd = (1..=250_u8).map(|host| Ipv4Addr::new(192, 0, 2, host).into());
        assert_eq!(charge_all(&buckets, crowd), 8, "what the /24 may do");
        let honest: IpAddr = "198.51.100.1".parse().unwrap();
        assert!(buckets.charge(honest).is_ok());
    }

    #[test]
    fn when_no_table_has_room_everybody_shares_one_bucket() {
        let (buckets, _clock) = buckets("1/h burst 1", 64 * 7);
        let crowd = (0..20_000_u32).map(|network| Ipv4Addr::from(network << 8 | 1).into());
        let passed = charge_all(&buckets, crowd);
        // 16 have slots of their own, 8 at most stand in a remembered /24 besides.
        assert!((512..=536).contains(&passed), "{passed}");
        assert!(buckets.crowded() > 10_000);
    }

    #[test]
    fn a_look_takes_no_token_and_sees_an_empty_bucket() {
        let (buckets, clock) = buckets("1/h burst 2", 1 << 20);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..100 {
            assert_eq!(look(&buckets, client, Scope::All), Ok(()));
        }
        let neighbours = || (2..=100_u8).map(|host| IpAddr::from([192, 0, 2, host]));
        assert_eq!(charge_all(&buckets, neighbours()), 16);
        let empty = look(&buckets, client, Scope::Wider).unwrap_err();
        assert_eq!(empty.network, Some("192.0.2.0/24".parse().unwrap()));
        clock.advance(Duration::from_secs(3601));
        assert_eq!(look(&buckets, client, Scope::All), Ok(()));
    }

    #[test]
    fn a_look_at_the_wider_networks_passes_over_the_own_bucket() {
        let (buckets, _clock) = buckets("1/h burst 2", 1 << 20);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        charge_all(&buckets, std::iter::repeat_n(client, 2));
        assert_eq!(look(&buckets, client, Scope::Wider), Ok(()));
        let empty = look(&buckets, client, Scope::All).unwrap_err();
        assert_eq!(empty.network, Some("192.0.2.1/32".parse().unwrap()));
    }

    #[test]
    fn draining_a_network_empties_its_bucket_and_no_other() {
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let networks = ["192.0.2.1/32", "192.0.2.0/24"].map(|text| text.parse().unwrap());
        for taken in 0..=7 {
            for network in networks {
                let (buckets, clock) = buckets("1/h burst 7", 1 << 20);
                charge_all(&buckets, std::iter::repeat_n(client, taken));
                buckets.drain(client, &network);
                let empty = buckets.charge(client).unwrap_err();
                if taken < 7 {
                    assert_eq!(empty.network, Some(network), "{taken}");
                }
                let other = "198.51.100.1".parse().unwrap();
                assert_eq!(look(&buckets, other, Scope::All), Ok(()));
                clock.advance(Duration::from_secs(3601));
                assert_eq!(buckets.charge(client), Ok(()), "{taken} of {network}");
            }
        }
    }

    #[test]
    fn who_is_remembered_is_not_refused_for_want_of_room_elsewhere() {
        // 16 slots for IPv4 clients, 8 for IPv4 networks.
        let (buckets, _clock) = buckets("1/h burst 3", 64 * 7);
        let network = |number: u32| Ipv4Addr::from(number << 8 | 1).into();
        // Eight networks fill the table of networks, and then everybody's bucket
        // is emptied by those for whom there is no room.
        charge_all(&buckets, (0..8).map(network));
        let honest: IpAddr = "198.51.100.1".parse().unwrap();
        assert!(buckets.charge(honest).is_ok());
        charge_all(&buckets, (100..20_000).map(network));
        assert_eq!(
            buckets.charge(honest),
            Ok(()),
            "its own bucket is not empty"
        );
    }

    #[test]
    fn a_spray_does_not_free_an_offender() {
        let (buckets, _clock) = buckets("1/h burst 3", 64 * 1024);
        let offender: IpAddr = "203.0.113.9".parse().unwrap();
        charge_all(&buckets, std::iter::repeat_n(offender, 3));
        let spray = (0..200_000_u32).map(|host| Ipv4Addr::from(host << 8).into());
        charge_all(&buckets, spray);
        assert!(buckets.charge(offender).is_err());
    }
}
