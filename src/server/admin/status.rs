//! What the status page shows, as JSON. It looks at what the rooms know already.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::facts::Facts;
use super::history::{History, PACE, Sample};
use crate::backend::ServerState;
use crate::limits::Limits;
use crate::metrics::{self, Mode as How, ScanResult};
use crate::policy::Mode;
use crate::server::health::Health;
use crate::session::Service;
use crate::session::events::{self, Event};
use crate::settings::LogAddresses;
use crate::tls::LoadedCertificate;

/// Clients, bans and reasons that are listed.
const LISTED: usize = 10;

/// Where all that is shown comes from.
pub(super) struct Status {
    pub(super) facts: Arc<ArcSwap<Facts>>,
    pub(super) health: Arc<Health>,
    /// What the next session obeys.
    pub(super) service: Arc<ArcSwap<Service>>,
    pub(super) history: Arc<History>,
}

impl Status {
    /// The limits in force.
    pub(super) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.service.load().limits)
    }

    /// All of it, at this moment.
    pub(super) fn json(&self) -> Value {
        let facts = self.facts.load();
        let Facts { hostname, mode, .. } = &**facts;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": hostname,
            "now": seconds(SystemTime::now()),
            "uptime": facts.start.elapsed().as_secs(),
            "monitor": *mode == Mode::Monitor,
            "conditions": self.conditions(),
            "traffic": self.traffic(),
            "reasons": reasons(),
            "events": self.events(),
            "busiest": self.busiest(),
            "bans": self.bans(),
            "services": self.services(),
            "certificates": self.certificates(),
            "limits": facts.limits,
        })
    }

    fn conditions(&self) -> Value {
        let conditions = self.health.conditions().into_iter().map(|condition| {
            let met = condition.state.is_ok();
            let (Ok(detail) | Err(detail)) = condition.state;
            json!({ "name": condition.name, "met": met, "detail": detail })
        });
        conditions.collect()
    }

    fn traffic(&self) -> Value {
        let metrics = metrics::get();
        let now = Sample::take();
        let minute = self.history.minute(&now);
        let steps = self.history.steps();
        let row = |of: fn(&Sample) -> u64| steps.iter().map(of).collect::<Vec<_>>();
        json!({
            "sessions": now.sessions,
            "places_taken": metrics.places_taken.get(),
            "sessions_max": metrics.sessions_max.get(),
            "connections": { "minute": minute.connections, "total": now.connections },
            "delivered": { "minute": minute.delivered, "total": now.delivered },
            "refused": { "minute": minute.refused, "total": now.refused },
            "octets": metrics.message_bytes.get(),
            "pace": PACE.as_secs(),
            "steps": {
                "sessions": row(|step| step.sessions),
                "connections": row(|step| step.connections),
                "delivered": row(|step| step.delivered),
                "refused": row(|step| step.refused),
            },
        })
    }

    fn events(&self) -> Value {
        let events = events::get().last();
        events.iter().map(event).collect()
    }

    fn busiest(&self) -> Value {
        let busiest = self.limits().busiest(LISTED).into_iter();
        let busiest = busiest.map(|(network, connections)| {
            json!({ "network": self.shown(network), "connections": connections })
        });
        busiest.collect()
    }

    /// Those that last longest, and how many there are.
    fn bans(&self) -> Value {
        let mut bans = self.limits().bans();
        let (count, now) = (bans.len(), Instant::now());
        bans.sort_unstable_by_key(|(network, ban)| (Reverse(ban.until), *network));
        let listed = bans.into_iter().take(LISTED).map(|(network, ban)| {
            json!({
                "network": self.shown(network),
                "reason": ban.reason.name(),
                "strikes": ban.strikes,
                "left": ban.until.saturating_duration_since(now).as_secs(),
            })
        });
        json!({ "count": count, "listed": listed.collect::<Value>() })
    }

    /// The backends, the scanners, and Redis.
    fn services(&self) -> Vec<Value> {
        let backends = self
            .health
            .servers()
            .into_iter()
            .map(|(name, state)| match state {
                ServerState::Up => service("backend", &name, true, ""),
                state => service("backend", &name, false, &state.to_string()),
            });
        let metrics = metrics::get();
        let scans: BTreeMap<_, _> = metrics.scans.all().into_iter().collect();
        let scanners = metrics.scanner_up.all().into_iter().map(|(name, up)| {
            let asked = scans.get(&name);
            let results = asked.into_iter().flat_map(|results| results.iter());
            let (mut all, mut failed) = (0_u64, 0);
            for (result, count) in results {
                all += count.get();
                if result == ScanResult::Failed {
                    failed = count.get();
                }
            }
            let told = format!("{all} answers, {failed} failures");
            service("scanner", &name, up.of(()).get() == 1, &told)
        });
        let redis = self.limits().sharing().map(|(name, health)| {
            let told = format!("{} late, {} failed", health.late, health.failed);
            service("Redis", &name, health.available, &told)
        });
        backends.chain(scanners).chain(redis).collect()
    }

    fn certificates(&self) -> Value {
        let certificates = self.health.certificates();
        certificates.iter().map(certificate).collect()
    }

    /// A network, as `LOG_ADDRESSES` wants it; one that is a single address, as that.
    fn shown(&self, network: IpNet) -> String {
        match self.facts.load().addresses {
            LogAddresses::Full if network.prefix_len() < network.max_prefix_len() => {
                network.to_string()
            }
            addresses => addresses.ip(network.addr()),
        }
    }
}

fn event(event: &Event) -> Value {
    let Event {
        key,
        told,
        at,
        times,
    } = event;
    json!({
        "time": seconds(*at),
        "session": told.session.to_string(),
        "client": told.client,
        "helo": told.helo,
        "from": told.from,
        "to": told.to,
        "at": key.at,
        "reason": key.reason,
        "reply": told.reply,
        "passed": key.mode == How::Would,
        "times": times,
    })
}

/// What was refused most since the start.
fn reasons() -> Value {
    let mut counts = BTreeMap::<&str, u64>::new();
    for ([_, reason, _], count) in metrics::get().refusals.iter() {
        *counts.entry(reason).or_default() += count.get();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.truncate(LISTED);
    let counts = counts.into_iter();
    counts
        .map(|(reason, count)| json!({ "reason": reason, "count": count }))
        .collect()
}

fn service(kind: &str, name: &str, is_up: bool, told: &str) -> Value {
    json!({ "kind": kind, "name": name, "up": is_up, "told": told })
}

fn certificate(certificate: &LoadedCertificate) -> Value {
    let left = certificate.not_after.duration_since(SystemTime::now());
    let days = left.unwrap_or(Duration::ZERO).as_secs() / (24 * 60 * 60);
    json!({
        "label": certificate.label(),
        "names": certificate.names,
        "self_signed": certificate.file.is_none(),
        "until": seconds(certificate.not_after),
        "days": days,
    })
}

/// Since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
