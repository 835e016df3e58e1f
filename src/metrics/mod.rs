//! Counters that anybody may bump, and their text for Prometheus.
//!
//! The label values are a closed set: enums of this room, names that stand in
//! the program's own source (`&'static str`), and what the configuration names.
//! Nothing that a peer says ever becomes a label. Bumping takes no lock.

mod configured;
mod label;
mod names;
mod seconds;
mod table;
mod text;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use configured::Configured;
pub use label::{
    Admission, Attempt, Listener, Mode, Outcome, Question, Reload, ScanResult, Side, TlsVersion,
};
pub use names::Names;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use seconds::Seconds;
pub use table::Table;

/// The metrics of this process.
pub fn get() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// Brings its gauges up to date just before they are read.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Declares the families: the field's name is the metric's (`portcullis_` comes
/// before it, and `_total` behind a counter), the doc comment its help.
macro_rules! families {
    ($($(#[doc = $doc:literal])+ $name:ident: $Family:ty = $new:expr;)*) => {
        /// Every metric there is. Tests make their own.
        pub struct Metrics {
            registry: Registry,
            refreshes: Mutex<Vec<Refresh>>,
            $($(#[doc = $doc])+ pub $name: $Family,)*
        }

        impl Metrics {
            /// All families, at zero.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("portcullis");
                let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                registry.register("build", "The program that runs", build);
                $(
                    let $name: $Family = $new;
                    registry.register(stringify!($name), help(concat!($($doc),+)), $name.clone());
                )*
                Self { registry, refreshes: Mutex::default(), $($name,)* }
            }
        }
    };
}

families! {
    /// Connections by listener and what became of them.
    connections: Table<(Listener, Admission), Counter> = Table::default();
    /// Sessions that are going on.
    sessions: Table<Listener, Gauge> = Table::default();
    /// Places that are taken, by sessions and by clients before one begins (PROXY header, TLS handshake).
    places_taken: Gauge = Gauge::default();
    /// Places for sessions: SESSIONS_MAX, or fewer if file descriptors are short.
    sessions_max: Gauge = Gauge::default();
    /// Sessions that have ended, by their length.
    session_seconds: Table<Listener, Seconds> = Table::default();
    /// TLS handshakes by side, the version agreed on, and how they ended.
    tls_handshakes: Table<(Side, TlsVersion, Attempt), Counter> = Table::default();
    /// Commands of clients by verb and class of the reply.
    commands: Names<2, Counter> = Names::new(["verb", "class"]);
    /// What was refused: at which verb, why, and whether it was enforced.
    refusals: Names<3, Counter> = Names::new(["stage", "reason", "mode"]);
    /// Messages whose body was begun, by what became of them.
    messages: Table<Outcome, Counter> = Table::default();
    /// Octets of message bodies that clients sent.
    message_bytes: Counter = Counter::default();
    /// From MAIL to the reply to the whole message.
    message_seconds: Table<Outcome, Seconds> = Table::default();
    /// From the first octet of a body to the reply to it.
    data_seconds: Seconds = Seconds::default();
    /// Opening a connection to a backend for a client, up to the introduction.
    backend_connect_seconds: Table<Attempt, Seconds> = Table::default();
    /// Connections to backends that sessions hold or open; BACKEND_CONN_MAX bounds them.
    backend_connections: Gauge = Gauge::default();
    /// Whether a backend could be used when last tried.
    backend_up: Configured<(), Gauge> = Configured::new("backend");
    /// What scanners said, by scanner.
    scans: Configured<ScanResult, Counter> = Configured::new("scanner");
    /// One question to one scanner.
    scan_seconds: Configured<(), Seconds> = Configured::new("scanner");
    /// Whether a scanner is asked: 0 while its circuit breaker is open.
    scanner_up: Configured<(), Gauge> = Configured::new("scanner");
    /// Bans in force.
    bans_active: Gauge = Gauge::default();
    /// Bans made, by reason.
    bans: Names<1, Counter> = Names::new(["reason"]);
    /// Keys held by a table of the limiter.
    limiter_entries: Names<1, Gauge> = Names::new(["table"]);
    /// Charges that no table of the limiter had room for; wider networks decided.
    limiter_overflows: Counter = Counter::default();
    /// Whether Redis is asked, if there is one: 0 while its circuit breaker is open.
    redis_up: Configured<(), Gauge> = Configured::new("server");
    /// Questions to Redis by what came of them.
    redis_questions: Table<Question, Counter> = Table::default();
    /// When a certificate ends, seconds since 1970.
    certificate_expiry_timestamp_seconds: Configured<(), Gauge> = Configured::new("certificate");
    /// Reloads by what was read again and how it went.
    reloads: Table<(Reload, Attempt), Counter> = Table::default();
    /// Whether the last reload went well; 1 before the first.
    reload_successful: Table<Reload, Gauge> = reloaded_well();
    /// Log lines lost because the output did not keep up.
    log_lines_dropped: Counter = Counter::default();
}

impl Metrics {
    /// Lets `refresh` set gauges whenever the metrics are about to be read. It
    /// must not block.
    pub fn on_scrape(&self, refresh: impl Fn(&Metrics) + Send + Sync + 'static) {
        let mut refreshes = self
            .refreshes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refreshes.push(Box::new(refresh));
    }

    /// Everything as OpenMetrics text 1.0.0.
    pub fn openmetrics(&self) -> String {
        let refreshes = self
            .refreshes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for refresh in refreshes.iter() {
            refresh(self);
        }
        drop(refreshes);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// The same as Prometheus text 0.0.4, for readers that know no OpenMetrics.
    pub fn plain(&self) -> String {
        text::plain(&self.openmetrics())
    }

    /// A session begins; it ends when the value is dropped.
    #[must_use = "dropped at once, the session would be over"]
    pub fn enter(&self, listener: Listener) -> Presence {
        let gauge = self.sessions.of(listener).clone();
        gauge.inc();
        Presence(gauge)
    }

    /// A TLS handshake begins; dropped before it ended, it counts as abandoned.
    #[must_use = "dropped at once, the handshake would be abandoned"]
    pub fn handshake(&self, side: Side) -> Handshake {
        Handshake {
            side,
            handshakes: self.tls_handshakes.clone(),
            end: (TlsVersion::None, Attempt::Abandoned),
        }
    }

    /// A command got a reply with this code.
    pub fn replied(&self, verb: &'static str, code: u16) {
        let class = match code {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.commands.of([verb, class]).inc();
    }

    /// Something was refused at a stage (a verb, or `connect`, `line`), or would
    /// have been.
    pub fn refused(&self, stage: &'static str, reason: &'static str, mode: Mode) {
        self.refusals.of([stage, reason, mode.name()]).inc();
    }

    /// Something was read again, or could not be.
    pub fn reloaded(&self, what: Reload, how: Attempt) {
        self.reloads.of((what, how)).inc();
        let well = i64::from(how == Attempt::Succeeded);
        self.reload_successful.of(what).set(well);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A session that is going on.
#[derive(Debug)]
pub struct Presence(Gauge);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A TLS handshake that is going on.
#[derive(Debug)]
pub struct Handshake {
    side: Side,
    handshakes: Table<(Side, TlsVersion, Attempt), Counter>,
    end: (TlsVersion, Attempt),
}

impl Handshake {
    /// It is done, with this version.
    pub fn succeeded(mut self, version: TlsVersion) {
        self.end = (version, Attempt::Succeeded);
    }

    /// It is over without one.
    pub fn failed(mut self) {
        self.end = (TlsVersion::None, Attempt::Failed);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let (version, attempt) = self.end;
        self.handshakes.of((self.side, version, attempt)).inc();
    }
}

fn reloaded_well() -> Table<Reload, Gauge> {
    let table: Table<Reload, Gauge> = Table::default();
    for reload in Reload::ALL {
        table.of(*reload).set(1);
    }
    table
}

/// The doc comment without what the encoder adds itself.
fn help(doc: &str) -> &str {
    doc.trim().trim_end_matches('.')
}
