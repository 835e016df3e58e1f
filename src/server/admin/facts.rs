//! What the status page tells that changes with the settings only.

use std::time::Instant;

use crate::policy::Mode;
use crate::server::Rooms;
use crate::settings::{LogAddresses, Secret};

/// The facts.
#[derive(Debug)]
pub(in crate::server) struct Facts {
    pub(super) hostname: String,
    pub(super) mode: Mode,
    pub(super) addresses: LogAddresses,
    /// Who bears it may lift bans; `None`: nobody may.
    pub(super) token: Option<Secret>,
    /// Settings that bound what clients may do, with their values.
    pub(super) limits: Vec<(&'static str, String)>,
    pub(super) start: Instant,
}

impl Facts {
    /// By these settings, under this name.
    pub(in crate::server) fn new(rooms: &Rooms, hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            mode: rooms.policy.mode,
            addresses: rooms.log.log_addresses,
            token: rooms.server.admin_token.clone(),
            limits: limits(rooms),
            start: Instant::now(),
        }
    }

    /// Of the same process, by other settings.
    pub(in crate::server) fn renewed(&self, rooms: &Rooms) -> Self {
        Self {
            start: self.start,
            ..Self::new(rooms, &self.hostname)
        }
    }
}

fn limits(rooms: &Rooms) -> Vec<(&'static str, String)> {
    let (limits, session) = (&rooms.limits, &rooms.session);
    let duration = |duration| humantime::format_duration(duration).to_string();
    let off = || "off".to_owned();
    let size = |size: &crate::settings::Size| octets(size.0);
    let mut told = vec![
        ("CONN_RATE", limits.conn_rate.to_string()),
        (
            "CONN_MAX",
            limits.conn_max.0.map_or_else(off, |most| most.to_string()),
        ),
        ("SESSIONS_MAX", limits.sessions_max.to_string()),
        ("MSG_RATE", limits.msg_rate.to_string()),
        ("RCPT_RATE", limits.rcpt_rate.to_string()),
        ("RCPT_MAX", session.rcpt_max.to_string()),
        ("AUTH_FAIL_RATE", limits.auth_fail_rate.to_string()),
        ("FLOOD_RATE", limits.flood_rate.to_string()),
        ("OFFENCE_RATE", limits.offence_rate.to_string()),
        ("ERROR_MAX", session.error_max.to_string()),
        ("BAN_TIME", duration(limits.ban_time)),
        (
            "MAX_SIZE",
            session
                .max_size
                .as_deref()
                .map_or_else(|| "as the backend says".to_owned(), size),
        ),
    ];
    for (name, threshold) in [
        ("SPAM_TAG", rooms.content.spam_tag),
        ("SPAM_REJECT", rooms.content.spam_reject),
    ] {
        let points = threshold.points();
        told.push((name, points.map_or_else(off, |points| points.to_string())));
    }
    told
}

/// As settings write it.
fn octets(octets: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    let whole = units
        .into_iter()
        .find(|(_, shift)| octets > 0 && octets.trailing_zeros() >= *shift);
    match whole {
        Some((unit, shift)) => format!("{}{unit}", octets >> shift),
        None => octets.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_settings_write_them() {
        let written = [25 << 20, 3 << 30, 1536, 1000, 0].map(octets);
        assert_eq!(written, ["25M", "3G", "1536", "1000", "0"]);
    }
}
