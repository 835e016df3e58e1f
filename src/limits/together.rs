//! The limits of all instances together (`REDIS`).
//!
//! Redis is asked only about what this instance's own limits have let pass, so
//! a flood does not become a flood of questions. What it says is binding; where
//! it says nothing in time, the own limits have decided already.
//!
//! Shared are the rates of connections, messages, recipients and failed
//! sign-ins, connections at once, and bans. What leads to a ban for flooding or
//! offences is counted by each instance, and so are sign-ins under way: of guesses
//! made at the same moment each lets through what is left by all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::bans::DAY;
use super::buckets::Buckets;
use super::counts::Stay;
use super::shared::{self, Count, Ruling, Shared};
use super::{Allowance, BanReason, Limits};
use crate::policy::{Finding, Limit, Mode};

/// Leave to stay; dropping it counts the connection out.
#[derive(Default)]
pub struct Permit {
    _stay: Option<Stay>,
    // In a box, since most have none.
    seat: Option<Box<Seat>>,
}

impl Permit {
    pub(super) fn of(stay: Stay) -> Self {
        Self {
            _stay: Some(stay),
            seat: None,
        }
    }
}

/// A connection among those of all instances.
struct Seat {
    shared: Arc<Shared>,
    counts: Vec<String>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.leave(&self.counts);
    }
}

impl Limits {
    /// Asks all instances together about a client that [`admit`](Limits::admit)
    /// has admitted.
    ///
    /// # Errors
    /// What speaks against it; the permit is worth nothing then.
    pub async fn admit_by_all(&self, client: IpAddr, permit: &mut Permit) -> Result<(), Finding> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        if self.exempt.contains(client) {
            return Ok(());
        }
        let buckets: Vec<_> = of(self.connections.as_deref(), client).collect();
        let counts: Vec<_> = self.presence.of(client).collect();
        let charges = self.charges(&buckets, Limit::Connections);
        let questions: Vec<_> = counts
            .iter()
            .map(|(network, most)| Count {
                key: self.key(network),
                max: *most,
            })
            .collect();
        let source = self.key(&self.widths.client(client));
        let ruling = Box::pin(shared.admit(&source, &charges, &questions)).await;
        let finding = match ruling {
            None | Some(Ruling::Pass) => {
                permit.seat = Some(Box::new(Seat {
                    shared: Arc::clone(shared),
                    counts: questions.into_iter().map(|count| count.key).collect(),
                }));
                return Ok(());
            }
            Some(Ruling::TooMany { index }) => {
                counts.get(index).map(|(network, most)| Finding::Crowd {
                    network: *network,
                    most: *most,
                })
            }
            Some(ruling) => self.finding(client, ruling, &buckets, Limit::Connections),
        };
        match finding {
            Some(finding) => {
                self.flooded(client, &finding);
                Err(finding)
            }
            None => Ok(()),
        }
    }

    /// Gives back to the other instances what this one holds. After
    /// [`keep_order`](Limits::keep_order) has been stopped.
    pub async fn farewell(&self) {
        if let Some(shared) = &self.shared {
            shared.farewell().await;
        }
    }

    pub(super) async fn charge_by_all(
        &self,
        buckets: Option<&Buckets>,
        client: IpAddr,
        limit: Limit,
    ) -> Result<(), Finding> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        let buckets: Vec<_> = of(buckets, client).collect();
        let source = self.key(&self.widths.client(client));
        let charges = self.charges(&buckets, limit);
        let ruling = Box::pin(shared.charge(&source, &charges)).await;
        match ruling.and_then(|ruling| self.finding(client, ruling, &buckets, limit)) {
            Some(finding) => Err(finding),
            None => Ok(()),
        }
    }

    /// Tells the others of a ban of our own, and learns how long it is by their
    /// count of strikes.
    pub(super) fn tell_of_ban(&self, network: IpNet, reason: BanReason) {
        let Some(shared) = self.shared.clone() else {
            return;
        };
        let (bans, first) = (Arc::clone(&self.bans), self.bans.first());
        let key = self.key(&network);
        tokio::spawn(async move {
            let length = shared.ban(&key, first, DAY).await;
            if let Some(length) = length {
                bans.learn(network, reason, length, Instant::now());
            }
        });
    }

    /// A network's name in Redis. Limits that are only tried (`MODE=monitor`) are
    /// shared among those who try them: nobody else refuses by them.
    pub(super) fn key(&self, network: &IpNet) -> String {
        match self.mode {
            Mode::Enforce => network.to_string(),
            Mode::Monitor => format!("monitor:{network}"),
        }
    }

    fn charges(&self, buckets: &[(IpNet, Allowance)], limit: Limit) -> Vec<shared::Charge> {
        let name = match limit {
            Limit::Connections => "conn",
            Limit::Messages => "msg",
            Limit::Recipients => "rcpt",
            Limit::AuthFailures => "auth",
            Limit::Floods => "flood",
            Limit::Offences => "offence",
        };
        let charge = |(network, allowance): &(IpNet, Allowance)| shared::Charge {
            key: format!("{name}:{}", self.key(network)),
            period: allowance.period,
            burst: allowance.burst.get(),
            cost: 1,
        };
        buckets.iter().map(charge).collect()
    }

    fn finding(
        &self,
        client: IpAddr,
        ruling: Ruling,
        buckets: &[(IpNet, Allowance)],
        limit: Limit,
    ) -> Option<Finding> {
        match ruling {
            Ruling::Pass | Ruling::TooMany { .. } => None,
            Ruling::Refused { index, wait } => Some(Finding::Rate {
                limit,
                network: buckets.get(index).map(|(network, _)| *network),
                wait,
            }),
            Ruling::Banned { .. }
                if self.settings.ban_time.is_zero() || self.never_banned.contains(client) =>
            {
                None
            }
            Ruling::Banned { left } => {
                let network = self.widths.client(client);
                let now = Instant::now();
                self.bans.learn(network, BanReason::Elsewhere, left, now);
                Some(Finding::Banned { network, left })
            }
        }
    }
}

fn of(buckets: Option<&Buckets>, client: IpAddr) -> impl Iterator<Item = (IpNet, Allowance)> {
    buckets
        .into_iter()
        .flat_map(move |buckets| buckets.of(client))
}
