//! Reaching a service: its Unix socket, or one of the addresses of its name. It sets
//! no deadline: that is the caller's, who drops what takes too long.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::settings::HostPort;

/// How long one address of a name may keep silent before the next is tried beside it
/// (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How soon a socket whose queue is full is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(25);

/// Connects to whichever address of the name answers first. Small writes are sent at
/// once (`TCP_NODELAY`): a command must not wait for the acknowledgement of the last
/// one.
///
/// # Errors
/// When the name has no address, or nobody can be reached at any.
pub async fn tcp(at: &HostPort) -> io::Result<TcpStream> {
    let addresses = lookup_host((at.host.as_str(), at.port)).await?;
    let addresses: Vec<_> = addresses.collect();
    let stream = first_that_answers(&addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Tries the addresses in their order: the next one when one fails, and beside it when
/// it keeps silent. One where nothing answers then costs the others no time, and one
/// that is only slow is still waited for.
async fn first_that_answers(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    let mut untried = addresses.iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = untried.next() {
            attempts.spawn(TcpStream::connect(*address));
        }
        tokio::select! {
            biased;
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failure = error,
                Some(Err(broken)) => failure = broken.into(),
                None => return Err(failure),
            },
            () = sleep(ATTEMPT_DELAY), if untried.len() > 0 => {}
        }
    }
}

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
