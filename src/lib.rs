//! Portcullis: a transparent SMTP security proxy.
//!
//! The rooms, from the top down. A room imports only from rooms below its own
//! line; `tests/architecture.rs` reads the `use` lines and proves it.
//!
//! ```text
//! main            start, exit code
//! demo            an example backend and the proxy before it
//! check           looks for what is wrong before clients find out
//! config          puts the rooms' Settings together, checks them, explains them
//! server          the process: listen, accept, drain, reload, admin
//! session         one client connection
//! ----------------------------------------------- outside services (siblings)
//! backend         the guarded server              limits   how much, how often, who is banned
//! scan            content scanners
//! ----------------------------------------------- transport (siblings)
//! tls             certificates, handshakes        proxy_protocol
//! spool           a body held in bounded memory   reach    the sockets of services
//! =============================================== pure: no tokio, no async, no clock, no logging
//! policy          stage + facts -> verdict
//! smtp            the wire language
//! settings        how a setting is declared, read and documented
//! -----------------------------------------------
//! metrics         counters anybody may bump
//! ```
//!
//! Where this differs from the plan that the house was started from:
//!
//! - A room `settings` lies at the bottom: the rooms that obey settings declare
//!   them, so the way of declaring must be below them all.
//! - A room `reach` lies among the transports: scanners and backends, siblings, are
//!   connected to in the same way.
//! - The machine's files are `machine.rs` (state), `machine/vocabulary.rs`
//!   (events and steps), `machine/commands.rs` and `machine/answers.rs` (the
//!   transitions); `session/deeds.rs` holds the arms of the loop that are more
//!   than a line, so that the loop stays on a page.
//! - `session/door.rs` refuses in the accept loop, before there is a task or a
//!   session; `session/judge.rs` asks limits and policy; `session/content.rs`
//!   keeps, weighs and delivers bodies that are judged.
//! - The tables of rates never throw out a bucket that is not full for a
//!   newcomer: where there is no room, the wider network's bucket decides. A
//!   wider network is never banned, and nobody for its neighbours' deeds.
//! - `SESSIONS_MAX` belongs to `limits`: its places know who waits, and each has
//!   a bell of its own, so that a shutdown and stress reach sessions without a
//!   lock that all of them share.
//! - `BACKEND_CONN_MAX` belongs there too (`limits/seats.rs`): who must give up a
//!   connection to the backend is known where it is known who waits. The next one goes
//!   to the network that has the fewest: by arrival alone a few clients that ask again
//!   and again, hundreds at once, would keep it from all others.
//! - Sessions run on threads with a runtime each (`server/crew.rs`); the process's
//!   own runtime accepts, probes and answers the admin port.
//! - `session/group.rs` tells the backend together what a client has pipelined. The
//!   machine still takes one event after the other; it only foresees.
//! - A message that is judged gets an empty line before its first line that is no
//!   field, and a name before an mbox separator, so that scanners, the editor and the
//!   backend agree where its body begins.
//! - What is changed in a message (`Change`, `Editor`) lies in `smtp::header`,
//!   below policy, which decides about it.
//! - No milter, spamd or clamd client crate was sound enough (bounds, time, macros):
//!   the three are ours; rspamd is asked over hyper, Redis by its own crate.
//! - `MODE=monitor` keeps the relay guard where the backend takes the proxy for
//!   the client: to try limits must not open a relay.
//! - Landlock restricts files, by folders, and signals: rules for ports would stand
//!   in the way of a reload, rules for single files in that of a renewed certificate.
//!   Only files in the root have rules of their own.
//! - A transaction that broke, or whose MAIL went no further, stays so until it is
//!   ended: commands that the client had pipelined behind it get the same answer, so
//!   that no 503 turns a temporary failure into a bounce.
//! - Between the chunks of a message the client is on the clock as inside a body,
//!   whatever commands it sends meanwhile.
//! - Our trace field goes where no first line of the sender's can continue it:
//!   behind an mbox separator, and parted by an empty line from what is no field.
//! - A recipient's source route is refused to strangers and never printed
//!   (RFC 5321 appendix F.2 lets it be ignored).

pub mod backend;
pub mod check;
pub mod config;
pub mod demo;
pub mod limits;
pub mod metrics;
pub mod policy;
pub mod proxy_protocol;
pub mod reach;
pub mod scan;
pub mod server;
pub mod session;
pub mod settings;
pub mod smtp;
pub mod spool;
pub mod tls;
