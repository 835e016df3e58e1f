//! How a setting is declared, read and documented.
//!
//! A setting belongs to the room that obeys it: name, default, example and doc
//! comment stand there once, in a [`section!`](crate::settings::section). This
//! room owns the macro, the value types and the reader. It never knows which
//! sections exist, and it never logs.

pub mod clean;
pub mod privacy;
pub mod secret;
pub mod value;

mod file;
mod host_port;
mod list;
mod networks;
mod positive;
mod problem;
mod reader;
mod section;
mod size;
#[cfg(test)]
mod tests;

pub use file::read_text;
pub use host_port::HostPort;
pub use list::{List, expand_list};
pub use networks::Networks;
pub use positive::Positive;
pub use privacy::LogAddresses;
pub use problem::{Problem, Problems};
pub use reader::{Origin, Reader, nearest};
pub use secret::Secret;
pub use section::{Spec, section};
pub use size::Size;
pub use value::{Value, choice};
