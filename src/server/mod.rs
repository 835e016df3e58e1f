//! The process: listen, accept, drain, reload, and tell how it is.
//!
//! It starts the rooms below and keeps them going. It never reads a client's
//! octets itself.

mod accept;
pub mod admin;
mod certificates;
mod crew;
mod handover;
mod health;
pub mod listen;
pub mod log;
mod nofile;
mod privileges;
mod reload;
pub mod sandbox;
mod unusable;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::errno::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::backend::Backend;
use crate::limits::{Limits, Places, Seats};
use crate::metrics;
use crate::session::{DoorLog, Listener, Service};
use crate::settings::{List, Problems, Secret};
use crate::smtp::path::HeloName;
use crate::{backend, limits, policy, proxy_protocol, scan, session, spool, tls};
use accept::{Bound, Doors};
use admin::{Admin, Facts};
use certificates::Watch;
use crew::Crew;
use handover::{Notice, notify};
use health::Health;
use listen::ListenAddress;
use reload::Running;

pub use handover::Sockets;
pub use nofile::places;
pub use privileges::RunAs;
pub use reload::Reread;

crate::settings::section! {
    /// The process.
    pub struct Settings {
        /// Our name in the greeting, the EHLO reply and the trace header; the machine's name when unset, with a warning if that is not fully qualified.
        hostname: Option<Hostname>, example "mx.example.org";
        /// MX listener(s): plain, STARTTLS offered. `[::]` serves IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6; `off` for none.
        listen: List<ListenAddress> = "[::]:2525", example "[::]:25";
        /// Listener(s) with TLS from the first octet (RFC 8314). AUTH is offered if the backend offers it, and not demanded: like `LISTEN` it takes mail to `DOMAINS` from strangers.
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
        /// Whom the process becomes once its listeners are bound, if root started it: `user` or `user:group`, by names or numbers. Certificates must be readable for that user.
        run_as: Option<RunAs>, example "nobody";
        /// Leaves the process no files but those that settings name, those in their folders and the system's own, by Landlock, where the kernel has it.
        sandbox: bool = "true", example "false";
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
    /// The settings name files or folders that cannot be used.
    #[error("{}", .0.to_string().trim_end())]
    Unusable(Problems),
    /// A listener cannot be had.
    #[error("cannot listen on {address} ({setting}): {error}{}", address.remedy(error))]
    Bind {
        /// Where.
        address: ListenAddress,
        /// The setting that says so.
        setting: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The process cannot become whom it should.
    #[error("cannot drop privileges (RUN_AS): {0}")]
    Privileges(Errno),
    /// All listeners are off.
    #[error("LISTEN, LISTEN_TLS and LISTEN_SUBMISSION are all off")]
    Deaf,
    /// The operating system refuses something basic.
    #[error(transparent)]
    Io(#[from] io::Error),
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

impl Rooms {
    /// The keys of the settings that have another value in `new`.
    fn changed(&self, new: &Self) -> Vec<&'static str> {
        [
            self.server.changed(&new.server),
            self.session.changed(&new.session),
            self.limits.changed(&new.limits),
            self.scan.changed(&new.scan),
            self.content.changed(&new.content),
            self.spool.changed(&new.spool),
            self.backend.changed(&new.backend),
            self.policy.changed(&new.policy),
            self.tls.changed(&new.tls),
            self.proxy_protocol.changed(&new.proxy_protocol),
            self.log.changed(&new.log),
        ]
        .concat()
    }
}

/// How long the first probe may hold up the listeners.
const FIRST_PROBE: Duration = Duration::from_millis(500);

/// How long those who have just come in may take to begin something when the
/// process stops; afterwards whoever is at rest is sent away.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Runs until told to stop: by the future, by TERM or by INT. HUP reads the
/// settings again.
///
/// # Errors
/// When it cannot start. What goes wrong later is logged and survived.
pub async fn run(
    rooms: Rooms,
    reread: Reread,
    mut sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let mut stops = std::pin::pin!(stop);
    let hostname = hostname(rooms.server.hostname.as_ref());
    let facts = Arc::new(ArcSwap::from_pointee(Facts::new(&rooms, hostname.as_str())));

    // What may need root comes first, what does not goes without it.
    let bound = Bound::new(addresses(&rooms.server), &mut sockets)?;
    let admin = Admin::bind(&rooms.server.admin, &mut sockets)?;
    sockets.close_others();
    let places = nofile::places(rooms.limits.sessions_max.get(), &rooms.scan);
    drop_privileges(&rooms.server)?;

    let usable = unusable::together((
        Watch::begin(&rooms.tls, hostname.as_str())
            .map_err(|errors| unusable::certificates(&rooms.tls, &errors)),
        Backend::new(rooms.backend.clone(), hostname.clone())
            .map_err(|error| unusable::authorities(&error)),
        reload::court(&rooms, None),
    ));
    let ((certificates, tls, loaded), backend, court) = usable.map_err(ServeError::Unusable)?;
    let backend = Arc::new(backend);
    let limits = Arc::new(Limits::new(
        &rooms.limits,
        &rooms.proxy_protocol.proxy_trusted,
        rooms.policy.mode,
        rooms.log.log_addresses,
    ));
    metrics::get()
        .sessions_max
        .set(i64::try_from(places).unwrap_or(i64::MAX));
    let places = Places::new(places);
    monitoring(rooms.policy.mode);
    let health = Arc::new(Health::new(Arc::clone(&backend), &loaded));
    let service = Arc::new(ArcSwap::from_pointee(Service {
        settings: rooms.session.clone(),
        policy: rooms.policy.clone(),
        proxy_trusted: rooms.proxy_protocol.proxy_trusted.clone(),
        log_addresses: rooms.log.log_addresses,
        hostname: hostname.as_str().to_owned(),
        tls,
        backend: Arc::clone(&backend),
        limits: Arc::clone(&limits),
        places: Arc::clone(&places),
        seats: Seats::new(rooms.limits.backend_conn_max, rooms.limits.prefix_factor.0),
        door_log: DoorLog::new(),
        court,
    }));
    count_limits(&service);
    admin.serve(&facts, &health, &service);

    // EHLO is answered from what the probe found, so it goes first; but a dead
    // backend must not keep the listeners shut.
    let (done, first) = oneshot::channel();
    let probing = AbortOnDropHandle::new(tokio::spawn(backend.keep_probing(done)));
    let _ = tokio::time::timeout(FIRST_PROBE, first).await;
    // Limits after a reload share with the first what is to be kept in order.
    let chores = [
        tokio::spawn(limits.keep_order()),
        tokio::spawn(Arc::clone(&places).keep_order()),
    ];
    drop(limits);

    let (sessions, crew) = (TaskTracker::new(), Arc::new(Crew::new()?));
    let mut running = Running {
        started: rooms.clone(),
        rooms,
        hostname,
        reread,
        doors: Doors::new(Arc::clone(&service), sessions.clone(), crew),
        service,
        sockets,
        certificates,
        health,
        facts,
        probing,
    };
    let listening = bound.listen()?;
    // Before the first of them is answered, so that a client who was greeted
    // never finds the contrary.
    running.health.serving(told(&running.rooms.server));
    running.doors.open(listening);
    notify(Notice::Ready);
    tracing::info!(hostname = %running.hostname.as_str(), version = env!("CARGO_PKG_VERSION"), "portcullis is up");

    let why = tokio::select! {
        _ = terminate.recv() => "TERM",
        _ = interrupt.recv() => "INT",
        () = &mut stops => "end",
        never = running.keep_up(&mut hangup) => match never {},
    };
    let drain = running.rooms.server.drain;
    tracing::info!(
        why,
        sessions = sessions.len(),
        ?drain,
        "stopping: no new clients"
    );
    notify(Notice::Stopping);
    running.health.draining();
    running.doors.close().await;
    sessions.close();
    let last_call = async {
        tokio::time::sleep(LAST_CALL.min(drain)).await;
        places.close();
        std::future::pending().await
    };
    tokio::select! {
        () = sessions.wait() => tracing::info!("stopped: all sessions ended in good order"),
        _ = terminate.recv() => tracing::warn!(sessions = sessions.len(), "stopped at once, by a second TERM"),
        _ = interrupt.recv() => tracing::warn!(sessions = sessions.len(), "stopped at once, by a second INT"),
        () = tokio::time::sleep(drain) => {
            tracing::warn!(sessions = sessions.len(), "stopped: DRAIN is over, sessions are cut off");
        }
        () = last_call => {}
    }
    running.probing.abort();
    for chore in chores {
        chore.abort();
    }
    running.service.load().limits.farewell().await;
    Ok(())
}

/// Becomes `RUN_AS`, for good, if root runs the process.
///
/// # Errors
/// [`ServeError::Privileges`]: the system does not let it.
pub fn drop_privileges(settings: &Settings) -> Result<(), ServeError> {
    privileges::drop_to(settings.run_as.as_ref()).map_err(ServeError::Privileges)
}

fn monitoring(mode: policy::Mode) {
    if mode == policy::Mode::Monitor {
        tracing::warn!(
            "MODE=monitor: limits, bans, relay guard and scanners are only logged (would=refuse); where the backend learns of clients by XCLIENT or PROXY, it alone decides about relaying"
        );
    }
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

/// Looks at the limits whenever somebody asks: it is a look at all their tables.
fn count_limits(service: &Arc<ArcSwap<Service>>) {
    let service = Arc::clone(service);
    metrics::get().on_scrape(move |metrics| {
        let limits = Arc::clone(&service.load().limits);
        let census = limits.census();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let entries = &metrics.limiter_entries;
        entries.of(["buckets"]).set(gauge(census.buckets));
        entries.of(["networks"]).set(gauge(census.networks));
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
