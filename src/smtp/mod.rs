//! The wire language of SMTP: parse strictly, print canonically, never do I/O.
//!
//! Every type here obeys `parse(print(x)) == x`. The backend only ever gets
//! what was printed from these types, so what is not understood cannot pass.

pub mod bdat;
pub mod command;
pub mod dot;
pub mod ehlo;
pub mod header;
pub mod line;
pub mod newline;
pub mod parameters;
pub mod path;
pub mod reply;
pub mod xtext;
