//! Puts the settings of all rooms together, checks them against each other and
//! explains them. What a setting means is known only by the room that obeys it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::server::listen::ListenAddress;
use crate::settings::{Origin, Problem, Problems, Reader, Spec};
use crate::{backend, limits, policy, proxy_protocol, scan, server, session, spool, tls};

pub mod command_line;
mod explain;
pub mod file;
mod paths;
#[cfg(test)]
mod tests;

pub use explain::{Explained, Explanation, explain, help, reference};

/// The settings of one room, for whoever explains them.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What they are about, in a sentence.
    pub about: &'static str,
    /// The settings.
    pub specs: &'static [Spec],
}

macro_rules! rooms {
    ($($(#[doc = $doc:literal])* $room:ident: $Settings:ty;)*) => {
        /// Everything the process obeys.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])* pub $room: $Settings,)*
            /// The files that settings were read from.
            pub files: Vec<PathBuf>,
        }

        /// The settings that exist, room by room.
        pub const SECTIONS: &[Section] = &[
            $(Section { about: <$Settings>::ABOUT, specs: <$Settings>::SPECS },)*
            Section { about: file::Settings::ABOUT, specs: file::Settings::SPECS },
        ];

        /// What could be read: a room is missing if one of its settings is bad.
        #[derive(Clone, Debug)]
        pub struct Parts {
            $($(#[doc = $doc])* pub $room: Option<$Settings>,)*
            /// The files that settings were read from.
            pub files: Vec<PathBuf>,
        }

        impl Parts {
            fn read(reader: &mut Reader) -> Self {
                Self {
                    $($room: <$Settings>::read(reader),)*
                    files: reader.files().to_owned(),
                }
            }

            fn whole(self) -> Option<Config> {
                Some(Config { $($room: self.$room?,)* files: self.files })
            }
        }
    };
}

// A room that has settings is added here, and nowhere else.
rooms! {
    /// The guarded server.
    backend: backend::Settings;
    /// Who may send to whom.
    policy: policy::Settings;
    /// The process.
    server: server::Settings;
    /// Certificates.
    tls: tls::Settings;
    /// The PROXY protocol.
    proxy_protocol: proxy_protocol::Settings;
    /// One client's session.
    session: session::Settings;
    /// How much and how often.
    limits: limits::Settings;
    /// The content scanners.
    scan: scan::Settings;
    /// What is done about spam.
    content: policy::content::Settings;
    /// Where messages wait for scanners.
    spool: spool::Settings;
    /// What is logged, and how.
    log: server::log::Settings;
}

impl From<Config> for server::Rooms {
    fn from(config: Config) -> Self {
        let Config {
            backend,
            policy,
            server,
            tls,
            proxy_protocol,
            session,
            limits,
            scan,
            content,
            spool,
            log,
            files: _,
        } = config;
        Self {
            backend,
            policy,
            server,
            tls,
            proxy_protocol,
            session,
            limits,
            scan,
            content,
            spool,
            log,
        }
    }
}

/// Reads the configuration: a flag is stronger than the environment, that
/// than the file, that than the default.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Problems> {
    let (parts, problems) = read(flags, environment);
    match parts.whole() {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// Reads what can be read, from the sources of [`load`], with everything that
/// is wrong.
pub fn read(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Parts, Problems) {
    let mut reader = gather(flags, environment);
    file::give(&mut reader);
    judge(reader)
}

/// What command line and environment give.
fn gather(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Reader {
    let mut reader = Reader::default();
    for (key, value) in flags {
        reader.give(Origin::Flag, &key, Ok(value));
    }
    for (variable, value) in environment {
        give_variable(&mut reader, &variable, value);
    }
    reader
}

/// Reads every room, once all sources have given.
fn judge(mut reader: Reader) -> (Parts, Problems) {
    let parts = Parts::read(&mut reader);
    let mut problems = reader.finish();
    cross_check(&parts, &mut problems);
    (parts, problems)
}

/// Gives the reader a variable of the environment if it is one of ours.
fn give_variable(reader: &mut Reader, variable: &OsStr, value: OsString) {
    let variable = variable.to_string_lossy();
    let Some(name) = variable.strip_prefix("PORTCULLIS_") else {
        return;
    };
    if name.contains(|c: char| c.is_ascii_lowercase()) {
        reader.note(Problem {
            variable: variable.to_string(),
            origin: Some(Origin::Environment),
            value: None,
            what: "is unknown: names are in upper case".to_owned(),
            example: None,
        });
        return;
    }
    let text = value.into_string().map_err(|_| "is not UTF-8".to_owned());
    reader.give(Origin::Environment, &name.to_ascii_lowercase(), text);
}

/// What one setting demands of another, for the rooms that could be read.
fn cross_check(parts: &Parts, problems: &mut Problems) {
    let mut complain = |key: &str, what: &str| problems.0.extend(problem(key, what));
    if parts
        .backend
        .as_ref()
        .is_some_and(|backend| backend.backend.is_empty())
    {
        complain("backend", "names no server to guard");
    }
    if let Some(policy) = &parts.policy {
        let guarded = policy.relay == policy::Relay::Guard;
        if guarded && policy.domains.is_empty() {
            complain(
                "domains",
                "is missing: without it every recipient would be refused (or say RELAY=backend)",
            );
        }
        if guarded && policy.relay_nets.holds_everybody() {
            complain(
                "relay_nets",
                "holds every address there is: an open relay (if the backend shall decide, say RELAY=backend)",
            );
        }
    }
    if let Some(proxy) = &parts.proxy_protocol
        && proxy.proxy_trusted.holds_everybody()
        && let trusting = trusting_addresses(parts)
        && !trusting.is_empty()
    {
        let what = format!(
            "holds every address there is: anybody could claim one that is trusted ({})",
            trusting.join(", ")
        );
        complain("proxy_trusted", &what);
    }
    if let Some(content) = &parts.content
        && let (Some(tag), Some(reject)) = (content.spam_tag.points(), content.spam_reject.points())
        && tag > reject
    {
        complain(
            "spam_tag",
            "is above SPAM_REJECT: what would be marked is refused before",
        );
    }
    if let Some(server) = &parts.server {
        if server.listen.is_empty()
            && server.listen_tls.is_empty()
            && server.listen_submission.is_empty()
        {
            complain(
                "listen",
                "is off, and so are LISTEN_TLS and LISTEN_SUBMISSION: nobody could connect",
            );
        }
        for (key, address) in named_twice(server) {
            let what = format!("names {address}, which another listener has already");
            complain(key, &what);
        }
    }
    if let Some(spool) = &parts.spool
        && spool.folder() == Path::new("/")
    {
        let what = "is the root of all files: bodies want a folder of their own";
        complain("spool_dir", what);
    }
    if let Some(tls) = &parts.tls {
        match (&tls.tls_cert, &tls.tls_key) {
            (Some(_), None) => complain("tls_key", "is missing: TLS_CERT needs its key"),
            (None, Some(_)) => complain("tls_cert", "is missing: TLS_KEY needs its certificate"),
            _ => {}
        }
    }
}

/// The settings by which some addresses may what others may not, here or at a backend
/// that is told of them.
fn trusting_addresses(parts: &Parts) -> Vec<&'static str> {
    let policy = parts.policy.as_ref();
    let is = |trusting: fn(&policy::Settings) -> bool| policy.is_some_and(trusting);
    let exempt = parts.limits.as_ref().map(|limits| &limits.limit_exempt);
    let trusting = [
        ("RELAY_NETS", is(|policy| !policy.relay_nets.is_empty())),
        (
            "LIMIT_EXEMPT",
            exempt.is_some_and(|exempt| !exempt.is_empty()),
        ),
        (
            "RELAY=backend",
            is(|policy| policy.relay == policy::Relay::Backend),
        ),
        (
            "MODE=monitor",
            is(|policy| policy.mode == policy::Mode::Monitor),
        ),
    ];
    let trusting = trusting.iter().filter(|(_, is_set)| *is_set);
    trusting.map(|(setting, _)| *setting).collect()
}

/// Addresses that more than one listener shall have, with the later one's setting:
/// the system would let them share it, and give each a part of the clients.
fn named_twice(server: &server::Settings) -> Vec<(&'static str, ListenAddress)> {
    let lists = [
        ("listen", &server.listen),
        ("listen_tls", &server.listen_tls),
        ("listen_submission", &server.listen_submission),
        ("admin", &server.admin),
    ];
    let all = lists.map(|(key, list)| list.iter().map(move |address| (key, *address)));
    let (mut first, mut twice) = (Vec::new(), Vec::new());
    for (key, address) in all.into_iter().flatten() {
        if address.0.port() == 0 {
            // The system chooses a port that is free.
        } else if first.contains(&address) {
            twice.push((key, address));
        } else {
            first.push(address);
        }
    }
    twice
}

/// A problem of the setting `key` that its own value does not show.
fn problem(key: &str, what: &str) -> Option<Problem> {
    let mut specs = SECTIONS.iter().flat_map(|section| section.specs);
    let spec = specs.find(|spec| spec.key == key)?;
    Some(Problem::of(spec, what))
}
