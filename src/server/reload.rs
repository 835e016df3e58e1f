//! Settings and certificates that change while the process runs.
//!
//! New settings are for new sessions; those that run end by the ones they began
//! with. Either all that may change does, or nothing: a reload that fails leaves
//! everything as it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::accept::{Bound, Doors};
use super::admin::Facts;
use super::certificates::{Occasion, Watch};
use super::handover::{Notice, Sockets, notify};
use super::health::Health;
use super::{Rooms, ServeError, addresses, log, monitoring, nofile, sandbox, told, unusable};
use crate::backend::Backend;
use crate::limits::Limits;
use crate::metrics::{self, Attempt, Reload};
use crate::scan::Scanners;
use crate::session::{Court, DoorLog, Service};
use crate::settings::Problems;
use crate::smtp::path::HeloName;
use crate::spool::Spool;
use crate::tls;

/// Reads the settings again, as they were read at the start.
pub type Reread = Arc<dyn Fn() -> Result<Rooms, Problems> + Send + Sync>;

/// Settings that only a restart changes, besides those of [`Limits::FIXED`].
const FIXED: &[&str] = &["hostname", "admin", "run_as", "sandbox", "log_format"];

/// How long the first probe of another backend may hold up a reload.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// The shortest pause between two looks at the certificates.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Everything that changes while the process runs.
pub(super) struct Running {
    /// By what the process was started.
    pub(super) started: Rooms,
    /// By what new sessions go.
    pub(super) rooms: Rooms,
    pub(super) hostname: HeloName,
    pub(super) reread: Reread,
    pub(super) service: Arc<ArcSwap<Service>>,
    pub(super) doors: Doors,
    pub(super) sockets: Sockets,
    pub(super) certificates: Watch,
    pub(super) health: Arc<Health>,
    /// For the status page.
    pub(super) facts: Arc<ArcSwap<Facts>>,
    pub(super) probing: AbortOnDropHandle<()>,
}

/// Why the old settings stay in force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("{0}")]
    Settings(Problems),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the settings cannot be read: {0}")]
    Reading(#[from] tokio::task::JoinError),
}

impl Running {
    /// Reloads whenever it is asked to and follows the certificates, for ever.
    /// May be given up at any moment.
    pub(super) async fn keep_up(&mut self, hangup: &mut Signal) -> Infallible {
        loop {
            let pause = self.rooms.tls.tls_reload;
            let due = async {
                if pause.is_zero() {
                    std::future::pending().await
                } else {
                    sleep(pause.max(POLL_MIN)).await;
                }
            };
            tokio::select! {
                Some(()) = hangup.recv() => self.reload().await,
                () = due => self.look_at_certificates(Occasion::Poll).await,
            }
        }
    }

    async fn reload(&mut self) {
        notify(Notice::Reloading);
        let reloaded = self.reload_settings().await;
        self.show_who_is_asked();
        match reloaded {
            Ok(changed) => {
                metrics::get().reloaded(Reload::Config, Attempt::Succeeded);
                tracing::info!(changed = changed.join(" "), "settings are reloaded");
            }
            Err(error) => {
                metrics::get().reloaded(Reload::Config, Attempt::Failed);
                let told = error.to_string();
                for problem in told.lines() {
                    tracing::error!(
                        problem,
                        "settings are not reloaded, the old ones stay in force"
                    );
                }
                // Files are what a sandbox keeps away, not ports.
                if !matches!(error, ReloadError::Serve(ServeError::Bind { .. })) {
                    sandbox::suspect(&told);
                }
            }
        }
        // Whatever came of the settings: who renews a certificate sends HUP.
        self.look_at_certificates(Occasion::Hup).await;
        notify(Notice::Ready);
    }

    /// Shows metrics of the backends and scanners in force only, not of those before
    /// nor of those that a reload which failed has tried.
    fn show_who_is_asked(&self) {
        let (service, metrics) = (self.service.load(), metrics::get());
        let backends = service.backend.health();
        let is_backend = |name: &str| backends.iter().any(|(address, _)| address == name);
        metrics.backend_up.keep(is_backend);
        // Those of a reload that was refused may have shown what they found.
        service.backend.show();
        let court = service.court.as_ref();
        let scanners = court.map(|court| court.scanners.enabled());
        if let Some(court) = court {
            court.scanners.show();
        }
        let scanners: Vec<_> = scanners.iter().flatten().map(ToString::to_string).collect();
        let is_scanner = |name: &str| scanners.iter().any(|scanner| scanner == name);
        metrics.scans.keep(is_scanner);
        metrics.scan_seconds.keep(is_scanner);
        metrics.scanner_up.keep(is_scanner);
    }

    async fn look_at_certificates(&mut self, occasion: Occasion) {
        let tls = self.service.load().tls.clone();
        let settings = Arc::new(self.rooms.tls.clone());
        self.certificates
            .look(occasion, &tls, &settings, &self.health)
            .await;
    }

    /// Takes the settings over and says which have changed.
    async fn reload_settings(&mut self) -> Result<Vec<String>, ReloadError> {
        let reread = Arc::clone(&self.reread);
        let new = spawn_blocking(move || reread())
            .await?
            .map_err(ReloadError::Settings)?;
        let changed = self.rooms.changed(&new);
        self.take_over(new).await?;
        self.warn_of_fixed();
        Ok(changed
            .into_iter()
            .filter(|key| !is_fixed(key))
            .map(name)
            .collect())
    }

    /// What may fail comes first, and nothing is changed before the last of it.
    async fn take_over(&mut self, new: Rooms) -> Result<(), ServeError> {
        let old = self.service.load_full();
        let same = self.rooms.backend.changed(&new.backend).is_empty();
        let (backend, probing) = if same && self.believes_as_set(&old.backend)? {
            (Arc::clone(&old.backend), None)
        } else {
            let (backend, probing) = self.another_backend(&new, &old.backend).await?;
            (backend, Some(probing))
        };
        if names_other_files(&self.rooms.tls, &new.tls) {
            let weighed = self.certificates.weigh(&old.tls, &new.tls).await;
            let problems = |errors: Vec<_>| unusable::certificates(&new.tls, &errors);
            weighed.map_err(|errors| ServeError::Unusable(problems(errors)))?;
        }
        let tls = if self.rooms.tls.tls_min == new.tls.tls_min {
            old.tls.clone()
        } else {
            let tls = old.tls.since(new.tls.tls_min);
            let problems = |error| unusable::certificates(&new.tls, &[error]);
            tls.map_err(|error| ServeError::Unusable(problems(error)))?
        };
        let court = court(&new, old.court.as_ref().map(|court| (court, &self.rooms)))
            .map_err(ServeError::Unusable)?;
        if addresses(&new.server).next().is_none() {
            return Err(ServeError::Deaf);
        }
        let missing = self.doors.missing(&new.server);
        let listening = Bound::new(missing, &mut self.sockets)?.listen()?;

        if let Some(probing) = probing {
            self.probing = probing;
            self.health.guards(Arc::clone(&backend));
        }
        if self.rooms.policy.mode != new.policy.mode {
            monitoring(new.policy.mode);
        }
        let limits = old.limits.renewed(
            &new.limits,
            &new.proxy_protocol.proxy_trusted,
            new.policy.mode,
            new.log.log_addresses,
        );
        self.service.store(Arc::new(Service {
            settings: new.session.clone(),
            policy: new.policy.clone(),
            proxy_trusted: new.proxy_protocol.proxy_trusted.clone(),
            log_addresses: new.log.log_addresses,
            hostname: old.hostname.clone(),
            tls,
            backend,
            limits: Arc::new(limits),
            places: Arc::clone(&old.places),
            seats: old.seats.resized(new.limits.backend_conn_max),
            door_log: DoorLog::new(),
            court,
        }));
        log::follow(&new.log);
        if !self.rooms.scan.changed(&new.scan).is_empty() {
            // For scanners that are new; of places there are as many as at the start.
            let _ = nofile::places(self.started.limits.sessions_max.get(), &new.scan);
        }
        let mut in_force = new.clone();
        in_force.limits.sessions_max = self.started.limits.sessions_max;
        let facts = self.facts.load().renewed(&in_force);
        self.facts.store(Arc::new(facts));
        self.health.serving(told(&new.server));
        self.rooms = new;
        self.doors.open(listening);
        self.doors.close_others(&self.rooms.server).await;
        Ok(())
    }

    /// Whether the same certificates of the backend are to be believed.
    fn believes_as_set(&self, backend: &Backend) -> Result<bool, ServeError> {
        let same = backend.believes_as_set();
        let problems = |error| ServeError::Unusable(unusable::authorities(&error));
        let same = same.map_err(problems)?;
        if !same {
            tracing::info!(
                "the authorities by which the backend's certificate is checked have changed"
            );
        }
        Ok(same)
    }

    /// With what keeps probing it, for as long as it is held.
    async fn another_backend(
        &self,
        new: &Rooms,
        old: &Backend,
    ) -> Result<(Arc<Backend>, AbortOnDropHandle<()>), ServeError> {
        let backend = Backend::new(new.backend.clone(), self.hostname.clone())
            .map_err(|error| ServeError::Unusable(unusable::authorities(&error)))?;
        let backend = Arc::new(backend.knowing(old));
        // EHLO is answered from what the probe finds, later if not in time.
        let (done, first) = oneshot::channel();
        let probing = tokio::spawn(Arc::clone(&backend).keep_probing(done));
        let probing = AbortOnDropHandle::new(probing);
        let _ = timeout(PROBE_PATIENCE, first).await;
        Ok((backend, probing))
    }

    /// Names the settings that have changed since the start and need a restart.
    fn warn_of_fixed(&self) {
        let changed = self.started.changed(&self.rooms).into_iter();
        let waiting: Vec<_> = changed.filter(|key| is_fixed(key)).map(name).collect();
        if !waiting.is_empty() {
            tracing::warn!(
                settings = waiting.join(" "),
                "these settings have changed and need a restart"
            );
        }
    }
}

/// Whether certificates come from somewhere else: what changes in the same place is
/// looked at whatever comes of the settings.
fn names_other_files(old: &tls::Settings, new: &tls::Settings) -> bool {
    (&old.tls_cert, &old.tls_key, &old.tls_dir) != (&new.tls_cert, &new.tls_key, &new.tls_dir)
}

fn is_fixed(key: &str) -> bool {
    FIXED.contains(&key) || Limits::FIXED.contains(&key)
}

fn name(key: &str) -> String {
    key.to_ascii_uppercase()
}

/// Where bodies are judged, if anybody looks at them; of the old court what has
/// not changed: who is down is still known, and memory is counted in one place.
pub(super) fn court(
    rooms: &Rooms,
    old: Option<(&Court, &Rooms)>,
) -> Result<Option<Court>, Problems> {
    let scanners = match old {
        Some((court, was)) if was.scan.changed(&rooms.scan).is_empty() => {
            Arc::clone(&court.scanners)
        }
        _ => Arc::new(Scanners::new(&rooms.scan)),
    };
    if !scanners.is_enabled() {
        return Ok(None);
    }
    let spool = match old {
        Some((court, was)) if was.spool.changed(&rooms.spool).is_empty() => {
            Arc::clone(&court.spool)
        }
        _ => Arc::new(Spool::new(&rooms.spool).map_err(|error| unusable::folder(&error))?),
    };
    Ok(Some(Court {
        scanners,
        settings: rooms.content.clone(),
        spool,
    }))
}
