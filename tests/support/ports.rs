//! Free loopback ports. They come from below the range that the kernel gives to
//! outgoing connections (32768 and up), so that no client can take one in between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An address on 127.0.0.1 that nobody listens on and that this process has not
/// handed out before. Processes start at different places of the range.
pub fn free_address() -> SocketAddr {
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if can_be_bound(address) {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Never listens: a child that another thread forks at this moment keeps the socket
/// for a while, and a listening one would take in a client and then reset it.
fn can_be_bound(address: SocketAddr) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).is_ok()
}
