//! Reaching a guarded server where its address says.

use std::io;
use std::net::SocketAddr;

use super::address::Place;
use crate::reach;
use crate::tls::Stream;

/// Our end and the other end of a TCP connection.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Connects. The deadline is the caller's.
pub(super) async fn connect(place: &Place) -> io::Result<(Box<dyn Stream>, Option<Ends>)> {
    match place {
        Place::Unix(path) => Ok((Box::new(reach::unix(path).await?), None)),
        Place::Tcp(at) => {
            let stream = reach::tcp(at).await?;
            let ends = (stream.local_addr()?, stream.peer_addr()?);
            Ok((Box::new(stream), Some(ends)))
        }
    }
}
