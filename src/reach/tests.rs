//! Sockets whose queue is full, and such as nobody listens at.

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
