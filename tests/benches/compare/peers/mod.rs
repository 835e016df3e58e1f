//! What is compared: programs that stand between clients and the sink, each set up as
//! its users would, with two threads or processes where it lets one choose.

mod auth_http;
mod haproxy;
mod haraka;
mod nginx;
mod portcullis;
mod postfix;

use std::any::Any;
use std::net::SocketAddr;
use std::process::Command;

pub use auth_http::AuthHttp;

use super::door::Doors;
use super::processes::Processes;
use crate::support::Certificate;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody in between.
    Direct,
    Portcullis,
    Haproxy,
    Nginx,
    Haraka,
    Postfix,
}

/// Whether a peer counts its clients' connections and refuses some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    Off,
    /// 60 connections of one address in a minute.
    On,
}

/// What all peers share.
pub struct House {
    pub sink: SocketAddr,
    /// ECDSA P-256.
    pub certificate: Certificate,
    pub auth_http: AuthHttp,
}

/// One that runs, until it is dropped.
pub struct Peer {
    pub kind: Kind,
    pub doors: Doors,
    /// None where the driver itself is the peer.
    pub processes: Option<Processes>,
    _held: Box<dyn Any>,
}

impl Peer {
    fn new(kind: Kind, doors: Doors, id: u32, held: impl Any) -> Self {
        Self {
            kind,
            doors,
            processes: Some(Processes(id)),
            _held: Box::new(held),
        }
    }
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Direct,
        Self::Portcullis,
        Self::Haproxy,
        Self::Nginx,
        Self::Haraka,
        Self::Postfix,
    ];

    /// As it is chosen on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Portcullis => "portcullis",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Haraka => "haraka",
            Self::Postfix => "postfix",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Portcullis => "Portcullis",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx mail",
            Self::Haraka => "Haraka",
            Self::Postfix => "Postfix",
        }
    }

    /// Of what is installed; None if it is not.
    pub fn version(self) -> Option<String> {
        match self {
            Self::Direct => Some(String::new()),
            Self::Portcullis => Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Haproxy => haproxy::version(),
            Self::Nginx => nginx::version(),
            Self::Haraka => haraka::version(),
            Self::Postfix => postfix::version(),
        }
    }

    pub fn start(self, house: &House, limits: Limits) -> Peer {
        match self {
            Self::Direct => Peer {
                kind: self,
                doors: Doors {
                    plain: Some(house.sink),
                    ..Doors::default()
                },
                processes: None,
                _held: Box::new(()),
            },
            Self::Portcullis => portcullis::start(house, limits),
            Self::Haproxy => haproxy::start(house, limits),
            Self::Nginx => nginx::start(house),
            Self::Haraka => haraka::start(house),
            Self::Postfix => postfix::start(house),
        }
    }

    /// Whether it can refuse connections by address and rate before it talks.
    pub fn has_limits(self) -> bool {
        matches!(self, Self::Portcullis | Self::Haproxy)
    }
}

/// What a program says of itself, both streams; None if there is no such program.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let both = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&both).into_owned())
}
