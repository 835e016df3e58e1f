//! What is measured with every peer that can do it.

use super::door::Door;
use super::generator::{Commands, Load};

const SMALL: usize = 4 << 10;
const LARGE: usize = 10 << 20;

/// Sessions at once: enough to keep two processors busy.
const MANY: usize = 32;
const FEW: usize = 4;

pub struct Scenario {
    /// As it is chosen on the command line.
    pub name: &'static str,
    pub title: &'static str,
    pub work: Work,
}

#[derive(Clone, Copy)]
pub enum Work {
    Messages(Load),
    Handshakes(Handshake),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    Resumed,
}

impl Work {
    pub fn door(self) -> Door {
        match self {
            Self::Messages(load) => load.door,
            Self::Handshakes(_) => Door::Tls,
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Messages(_) => "message",
            Self::Handshakes(_) => "handshake",
        }
    }
}

pub fn all() -> Vec<Scenario> {
    let load = |door, messages| Load {
        door,
        size: SMALL,
        messages,
        recipients: 1,
        commands: Commands::OneByOne,
        at_once: MANY,
    };
    let large = |door| Load {
        size: LARGE,
        at_once: FEW,
        ..load(door, 1)
    };
    let alone = |door| Load {
        at_once: 1,
        ..load(door, 10)
    };
    let pipelined = Load {
        recipients: 5,
        commands: Commands::Pipelined,
        ..load(Door::Plain, 10)
    };
    let messages = [
        (
            "plain-10",
            "4 KiB in plain text, ten messages per session",
            load(Door::Plain, 10),
        ),
        (
            "plain-1",
            "4 KiB in plain text, one message per session",
            load(Door::Plain, 1),
        ),
        (
            "pipelined",
            "4 KiB, pipelined, five recipients, ten messages per session",
            pipelined,
        ),
        (
            "starttls-1",
            "4 KiB after STARTTLS, one message per session",
            load(Door::StartTls, 1),
        ),
        (
            "starttls-10",
            "4 KiB after STARTTLS, ten messages per session",
            load(Door::StartTls, 10),
        ),
        (
            "tls-1",
            "4 KiB in implicit TLS, one message per session",
            load(Door::Tls, 1),
        ),
        (
            "tls-10",
            "4 KiB in implicit TLS, ten messages per session",
            load(Door::Tls, 10),
        ),
        (
            "large-plain",
            "10 MiB in plain text, four sessions at once",
            large(Door::Plain),
        ),
        (
            "large-tls",
            "10 MiB in implicit TLS, four sessions at once",
            large(Door::Tls),
        ),
        (
            "unloaded-plain",
            "One session at a time in plain text, ten messages each",
            alone(Door::Plain),
        ),
        (
            "unloaded-starttls",
            "One session at a time after STARTTLS, ten messages each",
            alone(Door::StartTls),
        ),
        (
            "unloaded-tls",
            "One session at a time in implicit TLS, ten messages each",
            alone(Door::Tls),
        ),
    ];
    let handshakes = [
        (
            "handshake-full",
            "A full TLS handshake, then QUIT",
            Handshake::Full,
        ),
        (
            "handshake-resumed",
            "A resumed TLS handshake, then QUIT",
            Handshake::Resumed,
        ),
    ];
    let messages = messages.map(|(name, title, load)| Scenario {
        name,
        title,
        work: Work::Messages(load),
    });
    let handshakes = handshakes.map(|(name, title, handshake)| Scenario {
        name,
        title,
        work: Work::Handshakes(handshake),
    });
    messages.into_iter().chain(handshakes).collect()
}

/// Clients of a scenario of handshakes.
pub const HANDSHAKES_AT_ONCE: usize = MANY;
