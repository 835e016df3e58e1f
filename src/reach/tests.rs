//! Sockets whose queue is full, and such as nobody listens at.

use std::net::TcpListener;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_full_queue_is_waited_for_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = SockAddr::unix(&path).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(1).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);

    let mut reached = std::pin::pin!(unix(&path));
    let early = timeout(Duration::from_millis(200), &mut reached).await;
    assert!(early.is_err(), "{early:?}");
    let _first = listener.accept().unwrap();
    let reached = timeout(Duration::from_secs(10), reached).await;
    reached.expect("in time").unwrap();
}

#[tokio::test]
async fn a_socket_at_which_nobody_listens_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let missing = unix(&path).await.unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let deserted = unix(&path).await.unwrap_err();
    assert_eq!(deserted.kind(), io::ErrorKind::ConnectionRefused);
}

/// An address where nothing answers, while what is returned with it lives: the queue
/// of its listener, which comes first, is full, and nobody takes anything out of it.
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

/// An address where somebody listens, while the listener lives.
fn listening() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// Which of the addresses answers within so many seconds.
async fn first_of<const N: usize>(addresses: [SocketAddr; N], seconds: u64) -> SocketAddr {
    let reached = first_that_answers(&addresses);
    let reached = timeout(Duration::from_secs(seconds), reached).await;
    reached.expect("in time").unwrap().peer_addr().unwrap()
}

#[tokio::test]
async fn an_address_where_nothing_answers_leaves_time_for_the_next() {
    let (hole, _kept) = black_hole();
    let (there, _listener) = listening();
    assert_eq!(first_of([hole, there], 2).await, there);
    assert_eq!(first_of([hole, hole, there], 2).await, there);
    assert_eq!(first_of([there, hole], 2).await, there);
}

#[tokio::test]
async fn an_address_that_is_slow_is_waited_for_while_others_refuse() {
    let (slow, kept) = black_hole();
    let (closed, _) = listening();
    let accepting = tokio::task::spawn_blocking(move || {
        std::thread::sleep(3 * ATTEMPT_DELAY);
        let accepted = kept[0].accept().unwrap();
        (kept, accepted)
    });
    assert_eq!(first_of([slow, closed], 20).await, slow);
    drop(accepting.await.unwrap());
}

#[tokio::test]
async fn an_address_that_refuses_costs_no_time_and_none_at_all_is_an_error() {
    let (there, _listener) = listening();
    let (closed, _) = listening();
    assert_eq!(first_of([closed, there], 2).await, there);
    let refused = first_that_answers(&[closed]).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let nobody = first_that_answers(&[]).await.unwrap_err();
    assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_name_is_reached_and_small_writes_to_it_go_at_once() {
    let (there, _listener) = listening();
    let at = HostPort {
        host: "127.0.0.1".to_owned(),
        port: there.port(),
    };
    let stream = tcp(&at).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), there);
    assert!(stream.nodelay().unwrap());
}
