//! Policy: what is known about a client and its request becomes a verdict.
//!
//! Pure: no I/O and no clock, so every rule can be tested with a table. There
//! is no verdict that swallows mail in silence: the sender always learns.

pub mod content;
mod domains;
mod relay;

pub use domains::DomainList;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::settings::{Networks, Value, choice};
use crate::smtp::path::ForwardPath;

crate::settings::section! {
    /// Who may send to whom.
    pub struct Settings {
        /// Recipient domains that a client without AUTH may send to; `*.example.org` stands for all subdomains, `[192.0.2.1]` for an address literal; `@/path` reads a file, one a line. Required unless `RELAY=backend`.
        domains: DomainList = "", example "example.org, *.example.org";
        /// `guard`: foreign recipients are refused to clients that are neither authenticated nor in `RELAY_NETS`; `backend`: leave it to the backend.
        relay: Relay = "guard", example "guard";
        /// Networks that may relay without AUTH. This opens the proxy's guard alone; the backend must let them relay too, and knows them by XCLIENT or a PROXY header, else only the proxy's address. Where Docker or a balancer hides the clients (see the recipes), they all come from one address: never name that.
        relay_nets: Networks = "", example "192.0.2.0/24, 2001:db8::/32";
        /// `enforce`; or `monitor`: judge, log and count everything (`would=refuse`), but refuse nothing for the sake of limits, bans, scanners or the relay guard, so that these can be tried. All else holds: the grammar of SMTP, bare CR and LF in messages included (`BARE_NEWLINE`), sizes, timeouts, `TLS_REQUIRE`, memory, `SESSIONS_MAX` and `BACKEND_CONN_MAX`; and so does the relay guard before a backend that learns of the client neither by XCLIENT nor by a PROXY header: it would take everybody for the proxy.
        mode: Mode = "enforce", example "monitor";
    }
}

/// What is done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is acted upon.
    Enforce,
    /// It is logged and counted.
    Monitor,
}

impl Value for Mode {
    fn parse(text: &str) -> Result<Self, String> {
        choice(
            text,
            &[("enforce", Self::Enforce), ("monitor", Self::Monitor)],
        )
    }
}

/// Who decides about foreign recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// The proxy refuses them.
    Guard,
    /// The backend decides alone.
    Backend,
}

impl Value for Relay {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "guard" => Ok(Self::Guard),
            "backend" => Ok(Self::Backend),
            _ => Err("must be guard or backend".to_owned()),
        }
    }
}

/// What is asked, with the facts that the answer depends on.
#[derive(Clone, Copy, Debug)]
pub enum Stage<'a> {
    /// May this recipient be offered to the backend?
    Recipient {
        /// The client's true address; `None` where a balancer does not name it.
        client: Option<IpAddr>,
        /// Whether the client has proved an identity to the backend.
        standing: Standing,
        /// The forward-path, as parsed.
        recipient: &'a ForwardPath,
    },
}

/// What the backend has said about the client so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No AUTH exchange has succeeded.
    Stranger,
    /// AUTH succeeded at the backend in this session.
    Authenticated,
}

/// The answer of policy to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Pass,
    /// Refuse for good, for the named finding.
    Refuse(Finding),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The domain is not among `DOMAINS`.
    ForeignDomain,
    /// The address could carry a second destination past the guard.
    HiddenRoute,
    /// A rate is used up.
    Rate {
        /// Which.
        limit: Limit,
        /// By whom; `None`: by all newcomers together.
        network: Option<IpNet>,
        /// Until there is more of it.
        wait: Duration,
    },
    /// A network has its full number of connections open.
    Crowd {
        /// Which network.
        network: IpNet,
        /// How many those are.
        most: u32,
    },
    /// The client is banned.
    Banned {
        /// As part of this network.
        network: IpNet,
        /// For so long.
        left: Duration,
    },
}

/// What is limited by a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `CONN_RATE`.
    Connections,
    /// `MSG_RATE`.
    Messages,
    /// `RCPT_RATE`.
    Recipients,
    /// `AUTH_FAIL_RATE`.
    AuthFailures,
    /// `FLOOD_RATE`.
    Floods,
    /// `OFFENCE_RATE`.
    Offences,
}

impl Limit {
    /// The setting that it obeys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "CONN_RATE",
            Self::Messages => "MSG_RATE",
            Self::Recipients => "RCPT_RATE",
            Self::AuthFailures => "AUTH_FAIL_RATE",
            Self::Floods => "FLOOD_RATE",
            Self::Offences => "OFFENCE_RATE",
        }
    }
}

/// Judges one stage. The first rule that has an opinion decides.
pub fn judge(settings: &Settings, stage: &Stage<'_>) -> Verdict {
    match stage {
        Stage::Recipient {
            client,
            standing,
            recipient,
        } => relay::judge(settings, *client, *standing, recipient),
    }
}
