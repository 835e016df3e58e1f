//! How much and how often: rates, connections at once, bans, and places.
//!
//! `together.rs` asks the other instances, through Redis, where they are shared.
//!
//! A client is a network (`PREFIX_V4`, `PREFIX_V6`); wider networks around it
//! are counted too. [`Limits::admit`] is asked when a client connects,
//! [`Limits::charge`] at MAIL, RCPT and failed sign-ins. Nothing here refuses
//! by itself: it says what it found, and `MODE` is the business of who asks.
//!
//! Memory is bounded whatever addresses come. The buckets of rates live in
//! tables that take three quarters of `LIMIT_MEMORY` and never grow; bans take
//! the last quarter at most. Connections at once are counted for sessions that
//! exist, at 300 octets a session at worst and 700 more where limits are shared,
//! and so are sign-ins while the backend decides upon them, at 300 again. With the
//! defaults that is 16 MiB and 3 MB, with Redis 10 MB; `tests/limiter_memory.rs`
//! and `tests/presence_memory.rs` hold it.
//! After a reload that changed a rate, the tables of before live as long as the
//! sessions that know them.

mod bans;
mod buckets;
mod counts;
mod places;
mod prefix;
mod presence;
mod rate;
mod renew;
mod seats;
mod settings;
pub mod shared;
mod table;
#[cfg(test)]
mod tests;
mod together;
mod watch;

pub use bans::{Ban, BanReason};
pub use places::{Meter, Place, Places};
pub use prefix::{PrefixV4, PrefixV6};
pub use rate::{Allowance, Rate};
pub use seats::{Seat, Seats};
pub use settings::{ConnMax, Factor, LimitMemory, Settings};
pub use together::Permit;
pub use watch::{Census, Lifted};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::MonotonicClock;
use ipnet::IpNet;

use crate::metrics;
use crate::policy::{Finding, Limit, Mode};
use crate::settings::{LogAddresses, Networks};
use bans::Bans;
use buckets::{Buckets, Scope, Short};
use counts::{Counts, Stay};
use prefix::Widths;
use presence::Presence;
use shared::{Shared, Sharing, Timing};

/// What is charged after a client was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Charge {
    /// A message, at MAIL.
    Message,
    /// A recipient, at RCPT.
    Recipient,
}

/// The limits of all clients.
pub struct Limits {
    connections: Option<Arc<Buckets>>,
    messages: Option<Arc<Buckets>>,
    recipients: Option<Arc<Buckets>>,
    auth_failures: Option<Arc<Buckets>>,
    floods: Option<Arc<Buckets>>,
    offences: Option<Arc<Buckets>>,
    presence: Arc<Presence>,
    /// Sign-ins that the backend has not decided upon yet.
    sign_ins: Arc<Counts>,
    bans: Arc<Bans>,
    widths: Widths,
    exempt: Networks,
    never_banned: Networks,
    mode: Mode,
    log_addresses: LogAddresses,
    shared: Option<Arc<Shared>>,
    /// What all this was made from.
    settings: Settings,
}

/// A sign-in that the backend has not decided upon yet; dropping it frees its turn
/// for others.
#[derive(Default)]
pub struct Attempt {
    // In a box, since most sessions wait without one.
    _stay: Option<Box<Stay>>,
}

/// How long a sign-in waits for others of its network to be decided upon. Logins
/// take a few hundredths of a second; only refusals are held back by servers,
/// and Dovecot does so for two seconds.
const ATTEMPT_WAIT: Duration = Duration::from_secs(5);

/// How often it looks meanwhile.
const ATTEMPT_ROUND: Duration = Duration::from_millis(50);

/// Kinds of buckets.
const KINDS: usize = 6;

impl Limits {
    /// Limits by these settings; `trusted` are balancers, who are never banned.
    /// `mode` changes only what the log says of a ban, and with whom limits are shared.
    pub fn new(
        settings: &Settings,
        trusted: &Networks,
        mode: Mode,
        log_addresses: LogAddresses,
    ) -> Self {
        let widths = Widths::new(settings.prefix_v4, settings.prefix_v6);
        let factor = settings.prefix_factor.0;
        let buckets = |rate| buckets(rate, settings, &widths);
        Self {
            connections: buckets(settings.conn_rate),
            messages: buckets(settings.msg_rate),
            recipients: buckets(settings.rcpt_rate),
            auth_failures: buckets(settings.auth_fail_rate),
            floods: buckets(settings.flood_rate),
            offences: buckets(settings.offence_rate),
            presence: Arc::new(Presence::new(&widths, settings.conn_max.0, factor)),
            sign_ins: Arc::default(),
            bans: Arc::new(Bans::new(settings.ban_time, settings.limit_memory.0 / 4)),
            exempt: settings.limit_exempt.clone(),
            never_banned: trusted.clone(),
            widths,
            mode,
            log_addresses,
            shared: match &settings.redis {
                Sharing::Off => None,
                Sharing::Through(url) => Some(Arc::new(Shared::new(url, Timing::default()))),
            },
            settings: settings.clone(),
        }
    }

    /// Counts a new connection, by what this instance knows: no await, no
    /// lock that others wait for. Ask [`admit_by_all`](Self::admit_by_all) next.
    ///
    /// # Errors
    /// What speaks against it; then it is not counted as open. A client that
    /// goes on being refused by limits of its own is banned.
    pub fn admit(&self, client: IpAddr) -> Result<Permit, Finding> {
        if self.exempt.contains(client) {
            return Ok(Permit::default());
        }
        self.not_banned(client)?;
        let entered =
            charge(self.connections.as_deref(), client, Limit::Connections).and_then(|()| {
                self.presence.enter(client).map_err(|full| Finding::Crowd {
                    network: full.network,
                    most: full.most,
                })
            });
        match entered {
            Ok(stay) => Ok(Permit::of(stay)),
            Err(finding) => {
                self.flooded(client, &finding);
                Err(finding)
            }
        }
    }

    /// The networks that a client is counted in, its own first; none if it is exempt.
    pub fn networks(&self, client: IpAddr) -> Vec<IpNet> {
        match self.exempt.contains(client) {
            true => Vec::new(),
            false => self.networks_of_all(client),
        }
    }

    /// The same, whoever is exempt.
    pub fn networks_of_all(&self, client: IpAddr) -> Vec<IpNet> {
        self.widths.networks(client).collect()
    }

    /// A connection was refused; it counts if the client is over its own limits.
    fn flooded(&self, client: IpAddr, refused: &Finding) {
        if !self.is_own(client, refused) {
            return;
        }
        if let Err(finding) = charge(self.floods.as_deref(), client, Limit::Floods) {
            self.ban_for(client, &finding, BanReason::Flood);
        }
    }

    /// Charges a client for what it is about to do.
    ///
    /// # Errors
    /// The limit that is reached, or that the client has been banned meanwhile.
    pub async fn charge(&self, client: IpAddr, what: Charge) -> Result<(), Finding> {
        if self.exempt.contains(client) {
            return Ok(());
        }
        self.not_banned(client)?;
        let (buckets, limit) = match what {
            Charge::Message => (&self.messages, Limit::Messages),
            Charge::Recipient => (&self.recipients, Limit::Recipients),
        };
        charge(buckets.as_deref(), client, limit)?;
        self.charge_by_all(buckets.as_deref(), client, limit).await
    }

    /// Whether a client may try to sign in: not while it is banned, nor while a
    /// wider network around it has used up its failures, so that an attacker gains
    /// no guesses by taking another address of his network for each. Who cannot be
    /// banned may not either once its own are used up; all others are banned for the
    /// next.
    ///
    /// Nor does anybody gain guesses by making them at once: while the backend has
    /// not decided upon as many sign-ins as there are failures left, the others wait
    /// for it, a few seconds at most. Hold the attempt until it has, and a failure
    /// is [counted](Self::auth_failed).
    ///
    /// # Errors
    /// What speaks against it.
    pub async fn may_sign_in(&self, client: IpAddr) -> Result<Attempt, Finding> {
        let began = tokio::time::Instant::now();
        loop {
            let network = match self.set_aside(client)? {
                Ok(attempt) => return Ok(attempt),
                Err(_) if self.mode == Mode::Monitor => return Ok(Attempt::default()),
                Err(network) => network,
            };
            if began.elapsed() >= ATTEMPT_WAIT {
                return Err(Finding::Rate {
                    limit: Limit::AuthFailures,
                    network: Some(network),
                    wait: ATTEMPT_WAIT,
                });
            }
            tokio::time::sleep(ATTEMPT_ROUND).await;
        }
    }

    /// An attempt, or the network that has to wait for others of its own.
    fn set_aside(&self, client: IpAddr) -> Result<Result<Attempt, IpNet>, Finding> {
        if self.exempt.contains(client) {
            return Ok(Ok(Attempt::default()));
        }
        self.not_banned(client)?;
        let Some(buckets) = &self.auth_failures else {
            return Ok(Ok(Attempt::default()));
        };
        let scope = if self.can_ban(client) {
            Scope::Wider
        } else {
            Scope::All
        };
        match buckets.set_aside(client, scope, &self.sign_ins) {
            Ok(stay) => Ok(Ok(Attempt {
                _stay: Some(Box::new(stay)),
            })),
            Err(Short::Promised(network)) => Ok(Err(network)),
            Err(Short::Empty(empty)) => Err(Finding::Rate {
                limit: Limit::AuthFailures,
                network: empty.network,
                wait: empty.wait,
            }),
        }
    }

    /// Counts a sign-in that the backend refused.
    ///
    /// # Errors
    /// There were too many; the client is banned now if they were its own and it
    /// may be.
    pub async fn auth_failed(&self, client: IpAddr) -> Result<(), Finding> {
        if self.exempt.contains(client) {
            return Ok(());
        }
        let buckets = self.auth_failures.as_deref();
        let limit = Limit::AuthFailures;
        let charged = match charge(buckets, client, limit) {
            Ok(()) => {
                let charged = self.charge_by_all(buckets, client, limit).await;
                if let Err(finding) = &charged {
                    remember(buckets, client, finding);
                }
                charged
            }
            refused => refused,
        };
        charged.inspect_err(|finding| self.ban_for(client, finding, BanReason::AuthFailures))
    }

    /// Counts a session that met an offence; bans the client if there
    /// were too many.
    pub fn offended(&self, client: IpAddr) {
        if self.exempt.contains(client) {
            return;
        }
        if let Err(finding) = charge(self.offences.as_deref(), client, Limit::Offences) {
            self.ban_for(client, &finding, BanReason::Offences);
        }
    }

    /// Forgets bans that are long over and stays in touch with Redis, for ever.
    /// Keeps nothing else of these alive.
    pub fn keep_order(&self) -> impl Future<Output = ()> + Send + use<> {
        let (bans, shared) = (Arc::clone(&self.bans), self.shared.clone());
        async move {
            let sweep = async {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    bans.sweep(Instant::now());
                }
            };
            match shared {
                Some(shared) => {
                    tokio::join!(sweep, shared.keep_alive());
                }
                None => sweep.await,
            }
        }
    }

    fn not_banned(&self, client: IpAddr) -> Result<(), Finding> {
        let network = self.widths.client(client);
        match self.bans.left(&network, Instant::now()) {
            Some(left) if !self.never_banned.contains(client) => {
                Err(Finding::Banned { network, left })
            }
            _ => Ok(()),
        }
    }

    /// Bans a client that has emptied its own bucket.
    fn ban_for(&self, client: IpAddr, finding: &Finding, reason: BanReason) {
        if self.is_own(client, finding) {
            self.ban(client, reason);
        }
    }

    /// Whether it is the client itself who is over a limit. Who finds the bucket of a
    /// wider network empty, or that of all, may owe it to others: it is refused, but
    /// never banned.
    fn is_own(&self, client: IpAddr, finding: &Finding) -> bool {
        let whose = match finding {
            Finding::Rate { network, .. } => *network,
            Finding::Crowd { network, .. } => Some(*network),
            _ => None,
        };
        whose == Some(self.widths.client(client))
    }

    /// Whether a ban of a client that gave reason for one would be made.
    fn can_ban(&self, client: IpAddr) -> bool {
        !self.never_banned.contains(client) && self.bans.has_room(Instant::now())
    }

    fn ban(&self, client: IpAddr, reason: BanReason) {
        if self.never_banned.contains(client) {
            return;
        }
        let network = self.widths.client(client);
        if let Some(length) = self.bans.ban(network, reason, Instant::now()) {
            metrics::get().bans.of([reason.name()]).inc();
            let length = humantime::format_duration(Duration::from_secs(length.as_secs()));
            tracing::warn!(
                client = %self.log_addresses.ip(client),
                width = network.prefix_len(),
                would = (self.mode == Mode::Monitor).then_some("ban"),
                %reason,
                %length,
                "banned"
            );
            self.tell_of_ban(network, reason);
        }
    }
}

/// The buckets of one kind; none where the rate is off.
fn buckets(rate: Rate, settings: &Settings, widths: &Widths) -> Option<Arc<Buckets>> {
    let octets = settings.limit_memory.0 / 4 * 3 / KINDS;
    let buckets = Buckets::new(
        rate.allowance()?,
        widths,
        settings.prefix_factor.0,
        octets,
        // Not the processor's own counter: that of another boot may be behind.
        MonotonicClock,
    );
    buckets.map(Arc::new)
}

/// How often bans are swept.
const SWEEP: Duration = Duration::from_secs(60);

fn charge(buckets: Option<&Buckets>, client: IpAddr, limit: Limit) -> Result<(), Finding> {
    let Some(buckets) = buckets else {
        return Ok(());
    };
    buckets.charge(client).map_err(|empty| Finding::Rate {
        limit,
        network: empty.network,
        wait: empty.wait,
    })
}

/// What all instances together have found empty is empty here too, for nobody else is
/// asked who may sign in.
fn remember(buckets: Option<&Buckets>, client: IpAddr, finding: &Finding) {
    if let (
        Some(buckets),
        Finding::Rate {
            network: Some(network),
            ..
        },
    ) = (buckets, finding)
    {
        buckets.drain(client, network);
    }
}
