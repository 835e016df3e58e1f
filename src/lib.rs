//! Portcullis: a transparent SMTP security proxy.
//!
//! The rooms, from the top down. A room imports only from rooms below its own
//! line; `tests/architecture.rs` reads the `use` lines and proves it.
//!
//! ```text
//! main            start, exit code
//! demo            an example backend and the proxy before it
//! config          puts the rooms' Settings together, checks them, explains them
//! server          the process: listen, accept, drain
//! session         one client connection
//! ----------------------------------------------- outside services (siblings)
//! backend         the guarded server
//! ----------------------------------------------- transport (siblings)
//! tls             certificates, handshakes        proxy_protocol
//! =============================================== pure: no tokio, no async, no clock, no logging
//! policy          stage + facts -> verdict
//! smtp            the wire language
//! settings        how a setting is declared, read and documented
//! ```

pub mod backend;
pub mod config;
pub mod demo;
pub mod policy;
pub mod proxy_protocol;
pub mod server;
pub mod session;
pub mod settings;
pub mod smtp;
pub mod tls;
