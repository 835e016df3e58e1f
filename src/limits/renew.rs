//! Limits by other settings that remember what the old ones have counted.

use std::sync::Arc;

use super::presence::Presence;
use super::{Buckets, Limits, Rate, Settings, buckets};
use crate::policy::Mode;
use crate::settings::{LogAddresses, Networks};

impl Limits {
    /// The settings that [`renewed`](Self::renewed) takes from the old limits:
    /// what is counted is counted under them.
    pub const FIXED: &[&str] = &[
        "sessions_max",
        "limit_memory",
        "prefix_v4",
        "prefix_v6",
        "prefix_factor",
        "redis",
    ];

    /// Limits by new settings. Bans stay in force, unless they were only tried
    /// (`MODE=monitor`) and no longer would be; a rate, or `CONN_MAX`, that is
    /// the same goes on counting, one that differs begins anew. Old and new share
    /// what is kept, so that sessions which still know the old ones count too.
    pub fn renewed(
        &self,
        settings: &Settings,
        trusted: &Networks,
        mode: Mode,
        log_addresses: LogAddresses,
    ) -> Self {
        let was = &self.settings;
        let settings = Settings {
            sessions_max: was.sessions_max,
            limit_memory: was.limit_memory,
            prefix_v4: was.prefix_v4,
            prefix_v6: was.prefix_v6,
            prefix_factor: was.prefix_factor,
            redis: was.redis.clone(),
            ..settings.clone()
        };
        let kept = |counted: &Option<Arc<Buckets>>, was: Rate, now: Rate| {
            if was == now {
                counted.clone()
            } else {
                buckets(now, &settings, &self.widths)
            }
        };
        let presence = if was.conn_max == settings.conn_max {
            Arc::clone(&self.presence)
        } else {
            let (most, factor) = (settings.conn_max.0, settings.prefix_factor.0);
            Arc::new(Presence::new(&self.widths, most, factor))
        };
        self.bans.last(settings.ban_time);
        if (self.mode, mode) == (Mode::Monitor, Mode::Enforce) {
            self.bans.forget();
        }
        Self {
            connections: kept(&self.connections, was.conn_rate, settings.conn_rate),
            messages: kept(&self.messages, was.msg_rate, settings.msg_rate),
            recipients: kept(&self.recipients, was.rcpt_rate, settings.rcpt_rate),
            auth_failures: kept(
                &self.auth_failures,
                was.auth_fail_rate,
                settings.auth_fail_rate,
            ),
            floods: kept(&self.floods, was.flood_rate, settings.flood_rate),
            offences: kept(&self.offences, was.offence_rate, settings.offence_rate),
            presence,
            sign_ins: Arc::clone(&self.sign_ins),
            bans: Arc::clone(&self.bans),
            widths: self.widths.clone(),
            exempt: settings.limit_exempt.clone(),
            never_banned: trusted.clone(),
            mode,
            log_addresses,
            shared: self.shared.clone(),
            settings,
        }
    }
}
