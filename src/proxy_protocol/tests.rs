use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const BEHIND: &[u8] = b"EHLO client.example\r\n";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Reads a header that arrives whole with bytes behind it; also checks that
/// those bytes are still there.
fn read_before_smtp(header: &[u8]) -> Result<Option<Addresses>, ProxyError> {
    let input = [header, BEHIND].concat();
    let mut stream = input.as_slice();
    let result = block_on(read(&mut stream));
    if result.is_ok() {
        assert_eq!(stream, BEHIND, "octets behind the header were consumed");
    }
    result
}

/// Reads a header behind which the connection ends.
fn read_alone(mut header: &[u8]) -> Result<Option<Addresses>, ProxyError> {
    block_on(read(&mut header))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, block].concat()
}

const BLOCK_V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xcb, 0xcc, 0, 25];

#[track_caller]
fn assert_malformed(header: &[u8]) {
    let result = read_before_smtp(header);
    assert!(
        matches!(result, Err(ProxyError::Malformed)),
        "{:?} gave {result:?}",
        String::from_utf8_lossy(header)
    );
}

#[test]
fn reads_version_1() {
    let read = read_before_smtp(b"PROXY TCP4 192.0.2.1 198.51.100.2 52172 25\r\n").unwrap();
    let expected = Addresses {
        source: address("192.0.2.1:52172"),
        destination: address("198.51.100.2:25"),
    };
    assert_eq!(read, Some(expected));
    let read = read_before_smtp(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n").unwrap();
    let expected = Addresses {
        source: address("[2001:db8::1]:0"),
        destination: address("[2001:db8::2]:65535"),
    };
    assert_eq!(read, Some(expected));
}

#[test]
fn reads_version_2() {
    let expected = Addresses {
        source: address("192.0.2.1:52172"),
        destination: address("198.51.100.2:25"),
    };
    let read = read_before_smtp(&v2(0x21, 0x11, BLOCK_V4)).unwrap();
    assert_eq!(read, Some(expected));
}

#[test]
fn skips_the_tlvs_of_version_2_even_broken_ones() {
    let crc = [0x03, 0, 4, 1, 2, 3, 4].as_slice();
    let padding = [[0x04, 0x02, 0].as_slice(), &[0; 512]].concat();
    let truncated = [0x05, 0xff, 0xff, 1].as_slice();
    for tlvs in [crc, &padding, truncated] {
        let header = v2(0x21, 0x11, &[BLOCK_V4, tlvs].concat());
        let read = read_before_smtp(&header).unwrap().unwrap();
        assert_eq!(read.source, address("192.0.2.1:52172"));
    }
}

#[test]
fn a_health_check_of_the_balancer_has_no_addresses() {
    let headers = [
        local_v1(),
        local_v2(),
        b"PROXY UNKNOWN ffff::1 and whatever else 0 0\r\n".to_vec(),
        // LOCAL: the family and the block must be ignored, whatever they say.
        v2(0x20, 0x11, BLOCK_V4),
        v2(0x20, 0x11, &[]),
        v2(0x20, 0xff, &[7; 9]),
        v2(0x21, 0x00, &[]),
    ];
    for header in headers {
        let read = read_before_smtp(&header);
        assert!(matches!(read, Ok(None)), "{header:?} gave {read:?}");
    }
}

#[test]
fn a_unix_socket_client_has_no_addresses() {
    assert!(matches!(
        read_before_smtp(&v2(0x21, 0x31, &[0; 216])),
        Ok(None)
    ));
}

#[test]
fn unwraps_mapped_addresses_so_that_limits_see_ipv4() {
    let read = read_before_smtp(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n");
    let expected = Addresses {
        source: address("192.0.2.1:1"),
        destination: address("198.51.100.2:2"),
    };
    assert_eq!(read.unwrap(), Some(expected));
}

#[test]
fn every_cut_is_a_lost_connection_and_never_a_result() {
    let headers = [
        write_v1(address("192.0.2.1:1"), address("198.51.100.2:25")),
        write_v2(address("[2001:db8::1]:1"), address("[2001:db8::2]:25")),
        local_v1(),
        local_v2(),
        v2(0x21, 0x11, &[BLOCK_V4, &[4, 0, 1, 0]].concat()),
    ];
    for header in headers {
        for cut in 0..header.len() {
            let result = read_alone(&header[..cut]);
            assert!(matches!(result, Err(ProxyError::Gone(_))), "cut at {cut}");
        }
        assert!(read_alone(&header).is_ok());
    }
}

#[tokio::test]
async fn a_header_in_single_octets_is_read_like_a_whole_one() {
    let header = write_v2(address("192.0.2.1:1"), address("198.51.100.2:25"));
    let (mut balancer, mut proxy) = tokio::io::duplex(1);
    let sending = tokio::spawn(async move {
        balancer.write_all(&header).await.unwrap();
        balancer.write_all(BEHIND).await.unwrap();
    });
    let read = read(&mut proxy).await.unwrap().unwrap();
    assert_eq!(read.source, address("192.0.2.1:1"));
    let mut rest = Vec::new();
    proxy.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, BEHIND);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refuses_at_the_first_impossible_octet_without_waiting_for_more() {
    let starts: [&[u8]; 6] = [
        b"E",
        b"PROXX",
        b"POST / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\n\r",
        b"\n",
    ];
    for start in starts {
        let (mut balancer, mut proxy) = tokio::io::duplex(64);
        balancer.write_all(start).await.unwrap();
        let result = tokio::time::timeout(Duration::from_secs(1), read(&mut proxy)).await;
        assert!(
            matches!(result, Ok(Err(ProxyError::NotProxy))),
            "{start:?} gave {result:?}"
        );
    }
}

#[test]
fn refuses_a_line_of_version_1_that_bends_the_grammar() {
    let lines: [&[u8]; 18] = [
        b"PROXY \r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY unknown\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
        b"PROXY TCP4 \xff\xfe 198.51.100.2 1 2\r\n",
    ];
    for line in lines {
        assert_malformed(line);
    }
}

#[test]
fn refuses_a_line_of_version_1_that_does_not_end_in_crlf() {
    assert_malformed(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n");
    assert_malformed(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rX");
    assert_malformed(b"PROXY UNKNOWN\n");
    assert_malformed(b"PROXY UNKNOWN \r\r\n");
}

#[test]
fn reads_a_line_of_107_octets_and_refuses_a_longer_one() {
    let line = |length: usize| {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(length - 2, b'x');
        line.extend(b"\r\n");
        line
    };
    assert!(matches!(read_before_smtp(&line(107)), Ok(None)));
    assert_malformed(&line(108));
}

#[test]
fn refuses_a_header_of_version_2_that_bends_the_grammar() {
    assert_malformed(&v2(0x11, 0x11, BLOCK_V4)); // version 1 in binary
    assert_malformed(&v2(0x22, 0x11, BLOCK_V4)); // unknown command
    assert_malformed(&v2(0x21, 0x41, BLOCK_V4)); // unknown family
    assert_malformed(&v2(0x21, 0x12, BLOCK_V4)); // a datagram
    assert_malformed(&v2(0x21, 0x11, &BLOCK_V4[..11])); // too short for its family
    assert_malformed(&v2(0x21, 0x21, BLOCK_V4));
    assert_malformed(&v2(0x21, 0x31, &[0; 215]));
}

#[test]
fn reads_a_block_of_4096_octets_and_refuses_a_longer_one() {
    let block = |length| [BLOCK_V4, &vec![0; length - BLOCK_V4.len()]].concat();
    assert!(read_before_smtp(&v2(0x21, 0x11, &block(4096))).is_ok());
    assert_malformed(&v2(0x21, 0x11, &block(4097)));
}

#[test]
fn prints_one_family_even_when_the_ends_differ() {
    let (v4, v6) = (address("192.0.2.1:1"), address("[2001:db8::2]:25"));
    assert_eq!(
        write_v1(v4, v6),
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 25\r\n"
    );
    assert_eq!(
        write_v1(address("[::ffff:192.0.2.1]:1"), address("192.0.2.2:25")),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n"
    );
    let read = read_before_smtp(&write_v2(v4, v6)).unwrap().unwrap();
    assert_eq!((read.source, read.destination), (v4, v6));
}

fn socket_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #[test]
    fn reads_back_what_it_prints(source in socket_address(), destination in socket_address()) {
        let expected = Addresses { source: canonical(source), destination: canonical(destination) };
        for header in [write_v1(source, destination), write_v2(source, destination)] {
            prop_assert_eq!(read_before_smtp(&header).unwrap(), Some(expected));
        }
    }

    #[test]
    fn survives_any_octets(
        start in prop::sample::select(vec![b"".as_slice(), V1_START, b"PROXY TCP4 ", V2_SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = read_alone(&[start, &rest].concat());
    }
}
