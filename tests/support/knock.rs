//! Clients that only knock: what the first thing is that they get at the door.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// What a connection from there gets: octets, or the error that ends it. The reset of
/// one that is banned may come before the connection is seen to be there.
pub fn first_octets(source: Ipv4Addr, server: SocketAddr) -> Result<Vec<u8>, ErrorKind> {
    first_octets_after(source, server, b"")
}

/// The same when it says something itself first.
pub fn first_octets_after(
    source: Ipv4Addr,
    server: SocketAddr,
    said: &[u8],
) -> Result<Vec<u8>, ErrorKind> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket
        .connect(&server.into())
        .map_err(|error| error.kind())?;
    let mut stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(said).map_err(|error| error.kind())?;
    let mut octets = vec![0; 512];
    let length = stream.read(&mut octets).map_err(|error| error.kind())?;
    octets.truncate(length);
    Ok(octets)
}

/// Whether who knocks from there is reset without a word. Silence is no ban, and
/// neither is a closed door.
#[track_caller]
pub fn is_banned(source: Ipv4Addr, server: SocketAddr) -> bool {
    match first_octets(source, server) {
        Ok(_) => false,
        Err(ErrorKind::ConnectionReset) => true,
        Err(other) => panic!("{source} is neither heard nor banned: {other}"),
    }
}
