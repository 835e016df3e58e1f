//! The PROXY protocol, versions 1 and 2: reads one header, prints headers.
//!
//! It reads not one octet beyond the header, so that a TLS hello or the first
//! command behind it is still in the stream. Whether a peer may send a header
//! at all is decided before, by `PROXY_TRUSTED`; no header is ever guessed at.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::settings::Networks;

crate::settings::section! {
    /// Load balancers in front of the proxy.
    pub struct Settings {
        /// Load balancers whose PROXY header, version 1 or 2, is required and
        /// believed. From anybody else such a header is never parsed. A client that
        /// it does not name (`UNKNOWN`, `LOCAL`) is a stranger to the backend, too:
        /// unknown by XCLIENT, 192.0.2.1 in a PROXY header. Refused where it holds
        /// everybody and other settings trust addresses.
        proxy_trusted: Networks = "", example "10.0.0.0/8";
    }
}

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, CRLF included (PROXY protocol 2.1).
const V1_MAX: usize = 107;
/// The longest block behind the 16 fixed octets of version 2 that is read. The
/// addresses take at most 216; the rest leaves room for a TLS client's details.
const V2_BLOCK_MAX: usize = 4096;
/// Version 2, command LOCAL.
const V2_LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;

/// The two ends of the connection that the balancer accepted. IPv4-mapped
/// IPv6 addresses are unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The real client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// Why no header could be read. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The peer sent something that is no PROXY header at all.
    #[error("the peer sent no PROXY header")]
    NotProxy,
    /// The peer began a PROXY header and broke its grammar or its bounds.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// The connection ended before the header did.
    #[error("the peer left before its PROXY header was complete: {0}")]
    Gone(#[from] io::Error),
}

/// Reads exactly one header. `None` means that the balancer speaks for itself
/// (`LOCAL`, `UNKNOWN`, a health check) or for a client without an IP address:
/// the connection's own addresses count then. No deadline inside: wrap it in a
/// timeout.
///
/// # Errors
/// [`ProxyError`], as soon as the octets read can no longer become a header.
pub async fn read<S>(stream: &mut S) -> Result<Option<Addresses>, ProxyError>
where
    S: AsyncRead + Unpin,
{
    let mut header = Vec::with_capacity(V1_MAX);
    loop {
        header.push(stream.read_u8().await?);
        if header == V1_START {
            return read_v1(stream, header).await;
        }
        if header == V2_SIGNATURE {
            return read_v2(stream, header).await;
        }
        if !V1_START.starts_with(&header) && !V2_SIGNATURE.starts_with(&header) {
            return Err(ProxyError::NotProxy);
        }
    }
}

async fn read_v1<S>(stream: &mut S, mut line: Vec<u8>) -> Result<Option<Addresses>, ProxyError>
where
    S: AsyncRead + Unpin,
{
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_MAX {
            return Err(ProxyError::Malformed);
        }
        let octet = stream.read_u8().await?;
        if line.ends_with(b"\r") != (octet == b'\n') {
            return Err(ProxyError::Malformed);
        }
        line.push(octet);
    }
    if !is_strict_v1(&line) {
        return Err(ProxyError::Malformed);
    }
    parse(&line)
}

/// What the parser lets pass and the specification does not: a word that only
/// begins with UNKNOWN, and ports with a sign or with leading zeros.
fn is_strict_v1(line: &[u8]) -> bool {
    let text = line.trim_ascii_end();
    let mut words = text.split(|octet| *octet == b' ').skip(1);
    if words.next() == Some(b"UNKNOWN") {
        return true;
    }
    let ports = words.skip(2).collect::<Vec<_>>();
    let is_port = |port: &&[u8]| {
        port.iter().all(u8::is_ascii_digit) && (port.len() == 1 || !port.starts_with(b"0"))
    };
    ports.len() == 2 && ports.iter().all(is_port)
}

async fn read_v2<S>(stream: &mut S, mut header: Vec<u8>) -> Result<Option<Addresses>, ProxyError>
where
    S: AsyncRead + Unpin,
{
    let command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = stream.read_u16().await?;
    if usize::from(length) > V2_BLOCK_MAX {
        return Err(ProxyError::Malformed);
    }
    let mut block = vec![0; usize::from(length)];
    stream.read_exact(&mut block).await?;
    if command == V2_LOCAL {
        // The block, its family included, is to be ignored (PROXY protocol 2.2).
        return Ok(None);
    }
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(block);
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Option<Addresses>, ProxyError> {
    let (parsed, _) =
        ProxyHeader::parse(header, ParseConfig::default()).map_err(|_| ProxyError::Malformed)?;
    match parsed.proxied_address() {
        None => Ok(None),
        Some(address) if address.protocol == Protocol::Stream => Ok(Some(Addresses {
            source: canonical(address.source),
            destination: canonical(address.destination),
        })),
        // A datagram cannot have brought an SMTP connection.
        Some(_) => Err(ProxyError::Malformed),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The line of version 1 for a connection from `source` to `destination`.
pub fn write_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = (source.port(), destination.port());
    match one_family(source, destination) {
        Pair::V4(source, destination) => {
            format!("PROXY TCP4 {source} {destination} {from} {to}\r\n")
        }
        Pair::V6(source, destination) => {
            format!("PROXY TCP6 {source} {destination} {from} {to}\r\n")
        }
    }
    .into_bytes()
}

/// The header of version 2 for a connection from `source` to `destination`.
pub fn write_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match one_family(source, destination) {
        Pair::V4(source, destination) => (0x11, [source.octets(), destination.octets()].concat()),
        Pair::V6(source, destination) => (0x21, [source.octets(), destination.octets()].concat()),
    };
    // Two addresses and two ports: 12 or 36 octets.
    let length = addresses.len() as u8 + 4;
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([V2_PROXY, family, 0, length]);
    header.extend(addresses);
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    header
}

/// The line of version 1 for a connection that the proxy makes for itself.
pub fn local_v1() -> Vec<u8> {
    b"PROXY UNKNOWN\r\n".to_vec()
}

/// The header of version 2 for a connection that the proxy makes for itself.
pub fn local_v2() -> Vec<u8> {
    [V2_SIGNATURE, &[V2_LOCAL, 0, 0, 0]].concat()
}

/// A header can only name two addresses of one family.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// IPv4 when both ends are IPv4, else IPv4 is mapped into IPv6.
fn one_family(source: SocketAddr, destination: SocketAddr) -> Pair {
    let mapped = |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source, destination),
        (source, destination) => Pair::V6(mapped(source), mapped(destination)),
    }
}
