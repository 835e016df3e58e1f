//! A byte stream, encrypted or not, that nobody above needs to tell apart.

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that octets can be read from and written to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
