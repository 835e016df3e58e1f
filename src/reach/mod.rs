//! Reaching a service at a socket of this machine. It sets no deadline: that is the
//! caller's, who drops what takes too long.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::sleep;

/// How soon a socket whose queue is full is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(25);

/// Connects to a Unix stream socket, and waits while its queue is full, as TCP does
/// by itself: Linux refuses at once (`EAGAIN`) what does not want to block. A server
/// that is busy for a moment is not down.
///
/// # Errors
/// When nobody listens there.
pub async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(QUEUE_FULL_PAUSE).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
