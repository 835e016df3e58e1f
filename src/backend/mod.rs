//! The guarded server, as Portcullis sees it: a client of it.
//!
//! This room opens connections, introduces the client on them and learns by
//! probes what the server offers. It never decides what a client may do.

pub mod address;
pub mod conversation;
mod examine;
pub mod introduce;
mod open;
mod open_error;
mod probe;
mod reach;

pub use conversation::{Conversation, Lost};
pub use introduce::{Client, ClientInfo, Dialect, Introduction, STRANGER};
pub use open_error::OpenError;
pub use probe::{Probed, TlsState};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::metrics::{self, Attempt, Gauge, Table};
use crate::settings::{List, Positive};
use crate::smtp::ehlo::Keywords;
use crate::smtp::path::HeloName;
use crate::tls::{BackendTls, CertificateName, ClientTls, TlsError};
use address::{Address, Protocol};

crate::settings::section! {
    /// The guarded server.
    pub struct Settings {
        /// Server(s) being guarded: `host:port`, `smtp://host:25`, `smtps://host:465` (TLS from the first octet), `lmtp://host:24`, `unix:/path`; several are used in turn.
        backend: List<Address>, example "mail.example.org:25";
        /// `off`; `opportunistic`: encrypt when offered, no certificate check, plain text if it breaks; `encrypt`: must encrypt, no check; `verify`: must encrypt and the certificate must match. REQUIRETLS (RFC 8689) is offered with `verify` alone.
        backend_tls: BackendTls = "opportunistic", example "verify";
        /// Authorities (PEM file) that `verify` trusts; the system's when unset.
        backend_tls_ca: Option<PathBuf>, example "/etc/ssl/backend-ca.pem";
        /// Name that the backend's certificate must carry; the backend's host when unset.
        backend_tls_name: Option<CertificateName>, example "mail.example.org";
        /// How the backend learns the real client: `xclient`, `proxy-v1`, `proxy-v2`, `received` (trace header), `none`; `auto` = XCLIENT when the backend offers it with ADDR, else `received`.
        client_info: ClientInfo = "auto", example "xclient";
        /// Pause between two probes of the backend (greeting, EHLO, STARTTLS, EHLO, QUIT); one that learns of clients is visited once more as the stranger 192.0.2.1.
        backend_probe_interval: Positive<Duration> = "1min", example "5min";
        /// Connecting to the backend, up to its greeting; then the TLS handshake, and with `BACKEND_TLS=opportunistic` all that STARTTLS takes.
        timeout_backend_connect: Positive<Duration> = "10s", example "5s";
        /// One reply of the backend, and all the steps of opening a connection to it together; twice that after the final dot.
        timeout_backend_reply: Positive<Duration> = "5min", example "2min";
    }
}

impl Settings {
    fn tls(&self) -> Result<ClientTls, TlsError> {
        ClientTls::new(self.backend_tls, self.backend_tls_ca.as_deref())
    }
}

/// All guarded servers.
pub struct Backend {
    servers: Vec<Server>,
    next: AtomicUsize,
    settings: Settings,
    tls: ClientTls,
    /// What Portcullis calls itself when it probes.
    name: HeloName,
    /// Rung when a client could not use a server, so that nobody waits for the next
    /// probe to tell whether anybody can.
    failed: Notify,
}

/// One guarded server and what is known of it.
struct Server {
    address: Address,
    /// The last probe that was answered.
    probed: ArcSwapOption<Probed>,
    /// Whether the log was told of one, by these settings.
    reported: AtomicBool,
    /// Whether it could be used when last tried.
    up: AtomicBool,
    /// When it could be used last.
    greeted: ArcSwapOption<Instant>,
    /// `up`, for whoever watches.
    shown: Table<(), Gauge>,
}

impl Server {
    fn came_up(&self) {
        self.up.store(true, Ordering::Relaxed);
        self.greeted.store(Some(Arc::new(Instant::now())));
        self.shown.of(()).set(1);
    }

    fn went_down(&self) {
        self.up.store(false, Ordering::Relaxed);
        self.shown.of(()).set(0);
    }
}

/// What is known of a server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It greeted lately, and could be used when last tried.
    Up,
    /// It could not be used when last tried.
    Down,
    /// It has not greeted lately, and has not failed either: not yet, or it hangs.
    Silent,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "is up",
            Self::Down => "is down",
            Self::Silent => "has not greeted lately",
        })
    }
}

impl Backend {
    /// Prepares; connects to nothing yet.
    ///
    /// # Errors
    /// When `BACKEND_TLS_CA` cannot be used.
    pub fn new(settings: Settings, name: HeloName) -> Result<Self, TlsError> {
        let tls = settings.tls()?;
        let servers = settings
            .backend
            .iter()
            .map(|address| Server {
                address: address.clone(),
                probed: ArcSwapOption::empty(),
                reported: AtomicBool::new(false),
                up: AtomicBool::new(true),
                greeted: ArcSwapOption::empty(),
                shown: metrics::get().backend_up.named(&address.to_string()),
            })
            .collect();
        Ok(Self {
            servers,
            next: AtomicUsize::new(0),
            settings,
            tls,
            name,
            failed: Notify::new(),
        })
    }

    /// The same, knowing of its servers what `old` knew of those that it had too: until
    /// one answers its next probe it is likely to be as it was.
    #[must_use]
    pub fn knowing(self, old: &Self) -> Self {
        for server in &self.servers {
            let mut known = old.servers.iter();
            let Some(known) = known.find(|known| known.address == server.address) else {
                continue;
            };
            server.probed.store(known.probed.load_full());
            server.greeted.store(known.greeted.load_full());
            let up = known.up.load(Ordering::Relaxed);
            server.up.store(up, Ordering::Relaxed);
        }
        self
    }

    /// Whether the authorities that it believes are still those that its settings
    /// lead to: a file changes under its name. Blocks.
    ///
    /// # Errors
    /// When `BACKEND_TLS_CA` cannot be used any more.
    pub fn believes_as_set(&self) -> Result<bool, TlsError> {
        Ok(self.settings.tls()?.believes_like(&self.tls))
    }

    /// What all servers that answered their last probe offer to clients, as far as
    /// it can be kept on the way there. `None` when none ever did.
    pub fn keywords(&self) -> Option<Arc<Keywords>> {
        let mut known = self
            .servers
            .iter()
            .filter_map(|server| server.probed.load_full());
        let first = Arc::clone(&known.next()?.offer);
        let mut all = known.fold(first, |all, probed| all.intersection(&probed.offer).into());
        // RFC 8689 4.2.1: only to a server that is known, inside TLS. `verify` uses
        // no other.
        if self.settings.backend_tls != BackendTls::Verify && all.contains("REQUIRETLS") {
            Arc::make_mut(&mut all).remove("REQUIRETLS");
        }
        Some(all)
    }

    /// Shows in the metrics which servers are up.
    pub fn show(&self) {
        for server in &self.servers {
            let is_up = server.up.load(Ordering::Relaxed);
            server.shown.of(()).set(i64::from(is_up));
        }
    }

    /// The servers by address, and how they are. Asks nobody.
    pub fn health(&self) -> Vec<(String, ServerState)> {
        // A probe may be missed once, and the next may take its time.
        let lately = self
            .settings
            .backend_probe_interval
            .saturating_mul(2)
            .saturating_add(*self.settings.timeout_backend_connect);
        let state = |server: &Server| {
            let greeted = server.greeted.load();
            if !server.up.load(Ordering::Relaxed) {
                ServerState::Down
            } else if greeted.as_ref().is_some_and(|at| at.elapsed() <= lately) {
                ServerState::Up
            } else {
                ServerState::Silent
            }
        };
        let servers = self.servers.iter();
        servers
            .map(|server| (server.address.to_string(), state(server)))
            .collect()
    }

    /// Recipients that one message may have at the backend: one for LMTP,
    /// whose several replies no single SMTP reply could tell.
    pub fn recipients_max(&self) -> usize {
        let lmtp = self
            .servers
            .iter()
            .any(|server| server.address.protocol == Protocol::Lmtp);
        if lmtp { 1 } else { usize::MAX }
    }

    /// Opens a connection to the next server that takes one, and introduces
    /// the client.
    ///
    /// # Errors
    /// [`OpenError`] of the last server tried, or at once when a server
    /// refuses this client.
    pub async fn open(&self, client: &Client) -> Result<Conversation, OpenError> {
        let mut last = OpenError::NoServer;
        for server in self.in_turn() {
            // One reply's patience for all of it: the client waits for one reply.
            let opened = timeout(
                *self.settings.timeout_backend_reply,
                self.open_server(server, client),
            );
            let began = Instant::now();
            let opened = opened.await.unwrap_or_else(|_| Err(self.late()));
            observe(&opened, began);
            match opened {
                Ok(conversation) => {
                    server.came_up();
                    if client.login.is_none() || conversation.takes_login {
                        return Ok(conversation);
                    }
                    // It would take the user for a stranger.
                    conversation.quit().await;
                    tracing::info!(backend = %server.address, "backend cannot be told who has signed in");
                    last = OpenError::NoLogin;
                }
                Err(refused @ OpenError::Refused(_)) => return Err(refused),
                Err(other) => {
                    // What one client brings about must not harm the others; of the
                    // server's own trouble the next probe will tell, unless that is
                    // with XCLIENT, which a probe does not say.
                    if !other.may_concern_the_client() {
                        server.went_down();
                    }
                    self.failed.notify_one();
                    let error = other.without_words();
                    tracing::warn!(backend = %server.address, error, "backend cannot be used");
                    last = other;
                }
            }
        }
        Err(last)
    }

    /// The servers, another one first each time; those last seen down come last.
    fn in_turn(&self) -> impl Iterator<Item = &Server> {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len().max(1);
        let turn = move || {
            self.servers
                .iter()
                .cycle()
                .skip(start)
                .take(self.servers.len())
        };
        let is_up = |server: &&Server| server.up.load(Ordering::Relaxed);
        // Both states are read once, so that no server is left out or tried twice.
        let (up, down): (Vec<_>, Vec<_>) = turn().partition(is_up);
        up.into_iter().chain(down)
    }

    /// Probes every server once. Logs what changed.
    pub async fn probe(self: &Arc<Self>) {
        let mut probes = tokio::task::JoinSet::new();
        for index in 0..self.servers.len() {
            let backend = Arc::clone(self);
            probes.spawn(async move { backend.probe_server(index).await });
        }
        while probes.join_next().await.is_some() {}
    }

    /// Probes for ever: at once, which `first` is told when it is over, then at the set
    /// interval, sooner while a server is down.
    pub async fn keep_probing(self: Arc<Self>, first: oneshot::Sender<()>) {
        let pause = *self.settings.backend_probe_interval;
        self.probe().await;
        // Nobody may have waited so long.
        let _ = first.send(());
        loop {
            let mut up = self.servers.iter().map(|it| it.up.load(Ordering::Relaxed));
            let failed = timeout(pause, self.failed.notified());
            if !up.all(|up| up) || failed.await.is_ok() {
                tokio::time::sleep(pause.min(PAUSE_WHILE_DOWN)).await;
            }
            self.probe().await;
        }
    }

    /// What it is that all the steps of opening a connection took too long: where
    /// the server is told of clients, nobody can tell for whose sake.
    fn late(&self) -> OpenError {
        match self.settings.client_info {
            ClientInfo::Received | ClientInfo::None => OpenError::TimedOut,
            ClientInfo::Auto | ClientInfo::Xclient | ClientInfo::ProxyV1 | ClientInfo::ProxyV2 => {
                OpenError::BreaksOff(Box::new(OpenError::TimedOut))
            }
        }
    }
}

fn observe(opened: &Result<Conversation, OpenError>, began: Instant) {
    let attempt = match opened {
        Ok(_) => Attempt::Succeeded,
        Err(error) if error.is_late() => Attempt::Abandoned,
        Err(_) => Attempt::Failed,
    };
    let seconds = metrics::get().backend_connect_seconds.of(attempt);
    seconds.observe(began.elapsed());
}

/// A server that is down is looked at this often.
const PAUSE_WHILE_DOWN: Duration = Duration::from_secs(5);
