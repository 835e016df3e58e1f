//! Reaching a guarded server: its socket, or one of the addresses of its name.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::address::Place;
use crate::reach;
use crate::tls::Stream;

/// Our end and the other end of a TCP connection.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Connects. The caller holds all of it to `deadline`.
pub(super) async fn connect(
    place: &Place,
    deadline: Instant,
) -> io::Result<(Box<dyn Stream>, Option<Ends>)> {
    match place {
        Place::Unix(path) => Ok((Box::new(reach::unix(path).await?), None)),
        Place::Tcp(at) => {
            let addresses = lookup_host((at.host.as_str(), at.port)).await?;
            let addresses: Vec<_> = addresses.collect();
            let stream = first_that_answers(&addresses, deadline).await?;
            // A command must not wait for the acknowledgement of the last one.
            stream.set_nodelay(true)?;
            let ends = (stream.local_addr()?, stream.peer_addr()?);
            Ok((Box::new(stream), Some(ends)))
        }
    }
}

/// Each address but the last may take its share of the time that is left, so that
/// one where nothing answers leaves some to the next.
async fn first_that_answers(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let Some((last, others)) = addresses.split_last() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    };
    for (address, sharers) in others.iter().zip((2..=addresses.len()).rev()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(sharers).unwrap_or(u32::MAX);
        if let Ok(Ok(stream)) = timeout(share, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    TcpStream::connect(last).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};
    use tokio::time::timeout_at;

    use super::*;

    /// An address where nothing answers, while what is returned with it lives: its
    /// queue is full, and nobody takes anything out of it.
    fn black_hole() -> (SocketAddr, Vec<Socket>) {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&local.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut kept = vec![listener];
        loop {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if client
                .connect_timeout(&address, Duration::from_millis(200))
                .is_err()
            {
                return (address.as_socket().unwrap(), kept);
            }
            kept.push(client);
        }
    }

    #[tokio::test]
    async fn an_address_where_nothing_answers_leaves_time_for_the_next() {
        let (hole, _kept) = black_hole();
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = there.local_addr().unwrap();
        for addresses in [vec![hole, there], vec![hole, hole, there]] {
            let deadline = Instant::now() + Duration::from_secs(2);
            let reached = timeout_at(deadline, first_that_answers(&addresses, deadline));
            let stream = reached.await.expect("in time").unwrap();
            assert_eq!(stream.peer_addr().unwrap(), there);
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_time_and_none_at_all_is_an_error() {
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (there, closed) = (there.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = first_that_answers(&[closed, there], deadline).await;
        assert_eq!(stream.unwrap().peer_addr().unwrap(), there);
        let refused = first_that_answers(&[closed], deadline).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let nobody = first_that_answers(&[], deadline).await.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
    }
}
