//! The process: listen, accept, drain, and tell how it is.
//!
//! It starts the rooms below and keeps them going. It never reads a client's
//! octets itself.

mod accept;
pub mod admin;
mod health;
pub mod listen;
pub mod log;
mod nofile;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::backend::Backend;
use crate::limits::{Limits, Places};
use crate::metrics;
use crate::scan::Scanners;
use crate::session::{Court, DoorLog, Listener, Service};
use crate::settings::{List, Secret};
use crate::smtp::path::HeloName;
use crate::spool::{Spool, SpoolError};
use crate::tls::{Loaded, ServerTls, TlsError};
use crate::{backend, limits, policy, proxy_protocol, scan, session, spool, tls};
use accept::Doors;
use admin::{Admin, Facts};
use health::Health;
use listen::ListenAddress;
pub use nofile::places;

crate::settings::section! {
    /// The process.
    pub struct Settings {
        /// Our name in the greeting, the EHLO reply and the trace header; the machine's name when unset, with a warning if that is not fully qualified.
        hostname: Option<Hostname>, example "mx.example.org";
        /// MX listener(s): plain, STARTTLS offered. `[::]` serves IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6; `off` for none.
        listen: List<ListenAddress> = "[::]:2525", example "[::]:25";
        /// Listener(s) with TLS from the first octet (RFC 8314).
        listen_tls: List<ListenAddress> = "[::]:4650", example "off";
        /// Submission listener(s) (RFC 6409): STARTTLS, then AUTH, both required before MAIL.
        listen_submission: List<ListenAddress> = "[::]:5870", example "off";
        /// Where health, metrics and a status page are told over HTTP (`/`, `/livez`, `/readyz`, `/metrics`), without any password: keep it off the Internet; `off` for none.
        admin: List<ListenAddress> = "127.0.0.1:9090", example "0.0.0.0:9090";
        /// Whoever bears it may lift a ban by POST to `/bans/lift`; nobody may when it is unset.
        #[secret]
        admin_token: Option<Secret>, example "pj5sGxB2kqTz";
        /// How long running transactions may take after TERM.
        drain: Duration = "30s", example "2min";
    }
}

/// A host name as SMTP prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(HeloName);

impl crate::settings::Value for Hostname {
    fn parse(text: &str) -> Result<Self, String> {
        HeloName::parse(text)
            .map(Self)
            .map_err(|_| "is no host name".to_owned())
    }
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings name something that cannot be used.
    #[error("{}", list(.0))]
    Tls(Vec<TlsError>),
    /// A listener cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Where.
        address: ListenAddress,
        /// Why not.
        error: io::Error,
    },
    /// All listeners are off.
    #[error("LISTEN, LISTEN_TLS and LISTEN_SUBMISSION are all off")]
    Deaf,
    /// Messages have nowhere to wait for scanners.
    #[error("{0}")]
    Spool(SpoolError),
    /// The operating system refuses something basic.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn list(errors: &[TlsError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rooms' settings.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Of this room.
    pub server: Settings,
    /// Of a session.
    pub session: session::Settings,
    /// Of limits.
    pub limits: limits::Settings,
    /// Of the content scanners.
    pub scan: scan::Settings,
    /// Of what is done about spam.
    pub content: policy::content::Settings,
    /// Of where messages wait for scanners.
    pub spool: spool::Settings,
    /// Of the guarded server.
    pub backend: backend::Settings,
    /// Of policy.
    pub policy: policy::Settings,
    /// Of certificates.
    pub tls: tls::Settings,
    /// Of the PROXY protocol.
    pub proxy_protocol: proxy_protocol::Settings,
    /// Of the log.
    pub log: log::Settings,
}

/// How long the first probe may hold up the listeners.
const FIRST_PROBE: Duration = Duration::from_millis(500);

/// Runs until told to stop: by the future, by TERM or by INT.
///
/// # Errors
/// When it cannot start. What goes wrong later is logged and survived.
pub async fn run(rooms: Rooms, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut stops = std::pin::pin!(stop);
    let hostname = hostname(rooms.server.hostname.as_ref());
    let (tls, loaded) = ServerTls::new(&rooms.tls, hostname.as_str()).map_err(ServeError::Tls)?;
    report_certificates(&loaded, hostname.as_str());
    let facts = Facts::new(&rooms, hostname.as_str());

    let doors = Doors::open(&rooms.server)?;
    let admin = Admin::bind(&rooms.server.admin)?;
    let backend = Backend::new(rooms.backend, hostname.clone())
        .map_err(|error| ServeError::Tls(vec![error]))?;
    let backend = Arc::new(backend);
    let trusted = &rooms.proxy_protocol.proxy_trusted;
    let limits = Limits::new(
        &rooms.limits,
        trusted,
        rooms.policy.mode,
        rooms.log.log_addresses,
    );
    let limits = Arc::new(limits);
    count_limits(&limits);
    let places = places(rooms.limits.sessions_max.get());
    metrics::get()
        .sessions_max
        .set(i64::try_from(places).unwrap_or(i64::MAX));
    if rooms.policy.mode == policy::Mode::Monitor {
        tracing::warn!(
            "MODE=monitor: limits, bans, relay guard and scanners are only logged (would=refuse); where the backend learns of clients by XCLIENT or PROXY, it alone decides about relaying"
        );
    }
    let scanners = Scanners::new(&rooms.scan);
    let court = if scanners.is_enabled() {
        Some(Court {
            scanners,
            settings: rooms.content,
            spool: Spool::new(&rooms.spool).map_err(ServeError::Spool)?,
        })
    } else {
        None
    };
    let health = Arc::new(Health::new(Arc::clone(&backend), &loaded));
    admin.serve(facts, &health, &limits);
    let service = Arc::new(Service {
        settings: rooms.session,
        policy: rooms.policy,
        proxy_trusted: rooms.proxy_protocol.proxy_trusted,
        log_addresses: rooms.log.log_addresses,
        hostname: hostname.as_str().to_owned(),
        tls,
        backend: Arc::clone(&backend),
        limits,
        places: Places::new(places),
        door_log: DoorLog::new(),
        court,
    });

    // EHLO is answered from what the probe found, so it goes first; but a dead
    // backend must not keep the listeners shut.
    let first = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.probe().await }
    });
    let _ = tokio::time::timeout(FIRST_PROBE, first).await;
    let probing = tokio::spawn(backend.keep_probing());

    let sessions = TaskTracker::new();
    let mut chores = vec![probing];
    chores.push(tokio::spawn(Arc::clone(&service.limits).keep_order()));
    chores.push(tokio::spawn(Arc::clone(&service.places).keep_order()));
    // Before the first of them is answered, so that a client who was greeted
    // never finds the contrary.
    health.serving(told(&rooms.server));
    let listeners = doors.serve(&service, &sessions);
    tracing::info!(hostname = %service.hostname, version = env!("CARGO_PKG_VERSION"), "portcullis is up");

    let why = tokio::select! {
        _ = terminate.recv() => "TERM",
        _ = interrupt.recv() => "INT",
        () = &mut stops => "end",
    };
    tracing::info!(why, sessions = sessions.len(), drain = ?rooms.server.drain, "stopping: no new clients");
    health.draining();
    for listener in listeners {
        listener.abort();
    }
    service.places.close();
    sessions.close();
    tokio::select! {
        () = sessions.wait() => tracing::info!("stopped: all sessions ended in good order"),
        _ = terminate.recv() => tracing::warn!(sessions = sessions.len(), "stopped at once, by a second TERM"),
        _ = interrupt.recv() => tracing::warn!(sessions = sessions.len(), "stopped at once, by a second INT"),
        () = tokio::time::sleep(rooms.server.drain) => {
            tracing::warn!(sessions = sessions.len(), "stopped: DRAIN is over, sessions are cut off");
        }
    }
    for chore in chores {
        chore.abort();
    }
    service.limits.farewell().await;
    Ok(())
}

/// `HOSTNAME`, or the machine's name.
pub fn hostname(set: Option<&Hostname>) -> HeloName {
    if let Some(Hostname(name)) = set {
        return name.clone();
    }
    let found = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    if !found.contains('.') {
        tracing::warn!(hostname = %found, "the machine's name is not fully qualified; set PORTCULLIS_HOSTNAME to the name in your MX record");
    }
    HeloName::parse(&found).unwrap_or_else(|_| HeloName::localhost())
}

fn report_certificates(loaded: &Loaded, hostname: &str) {
    let ends = &metrics::get().certificate_expiry_timestamp_seconds;
    ends.clear();
    for certificate in loaded.certificates() {
        let not_after = certificate.not_after.duration_since(UNIX_EPOCH);
        let seconds = not_after.unwrap_or_default().as_secs();
        let end = ends.named(&certificate.label());
        end.of(()).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
    match loaded {
        Loaded::SelfSigned(_) => tracing::warn!(
            hostname,
            "NO CERTIFICATE: a self-signed one was made and lives in memory only; clients that check will refuse it. Set PORTCULLIS_TLS_CERT and PORTCULLIS_TLS_KEY, or put <name>/fullchain.pem and <name>/privkey.pem into PORTCULLIS_TLS_DIR"
        ),
        Loaded::FromFiles(certificates) => {
            for certificate in certificates {
                let not_after = humantime::format_rfc3339_seconds(certificate.not_after);
                tracing::info!(file = certificate.label(), names = certificate.names.join(" "), %not_after, "certificate");
            }
        }
    }
}

/// Looks at the limits whenever somebody asks: it is a look at all their tables.
fn count_limits(limits: &Arc<Limits>) {
    let limits = Arc::clone(limits);
    metrics::get().on_scrape(move |metrics| {
        let census = limits.census();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let entries = &metrics.limiter_entries;
        entries.of(["buckets"]).set(gauge(census.buckets));
        entries.of(["networks"]).set(gauge(census.networks));
        let overflows = metrics.limiter_overflows.inner();
        overflows.store(census.crowded, Ordering::Relaxed);
        metrics.bans_active.set(gauge(limits.bans().len()));
        if let Some((redis, health)) = limits.sharing() {
            let up = metrics.redis_up.named(&redis);
            up.of(()).set(i64::from(health.available));
        }
    });
}

/// Where clients are accepted, for people.
fn told(settings: &Settings) -> String {
    addresses(settings)
        .map(|(kind, address)| format!("{kind} on {address}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The kinds of listeners with their addresses.
fn addresses(settings: &Settings) -> impl Iterator<Item = (Listener, ListenAddress)> {
    let kinds = [
        (Listener::Mx, &settings.listen),
        (Listener::Tls, &settings.listen_tls),
        (Listener::Submission, &settings.listen_submission),
    ];
    kinds
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |address| (kind, *address)))
}
