//! The process: what it listens to, what it logs, how it ends.

pub mod log;
