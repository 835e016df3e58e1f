//! The codec: exact octets, and properties of whatever may come.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn encoded(command: Command<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    out.to_vec()
}

/// A packet as a filter would send it.
fn packet(octet: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[octet], data].concat()
}

fn decoded(octets: &[u8]) -> Result<Option<Answer>, PacketError> {
    Answer::decode(&mut BytesMut::from(octets))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn writes_every_command_as_libmilter_reads_it() {
    let v4: SocketAddr = "192.0.2.1:2525".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:2525".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
    let connect = |name, address| Command::Connect { name, address };
    for (command, octet, data) in [
        (
            Command::Negotiate {
                version: 6,
                actions: 0x1f,
                protocol: 0x0102_0304,
            },
            b'O',
            &b"\0\0\0\x06\0\0\0\x1f\x01\x02\x03\x04"[..],
        ),
        (
            Command::Macros {
                before: b'C',
                values: &[("j", "mx"), ("{client_port}", "")],
            },
            b'D',
            b"Cj\0mx\0{client_port}\0\0",
        ),
        (connect("a", Some(v4)), b'C', b"a\x004\x09\xdd192.0.2.1\0"),
        (
            connect("a", Some(mapped)),
            b'C',
            b"a\x004\x09\xdd192.0.2.1\0",
        ),
        (connect("a", Some(v6)), b'C', b"a\x006\0\x192001:db8::1\0"),
        (connect("unknown", None), b'C', b"unknown\0U"),
        (Command::Helo("client"), b'H', b"client\0"),
        (Command::Mail("<>"), b'M', b"<>\0"),
        (Command::Rcpt("<a@b>"), b'R', b"<a@b>\0"),
        (Command::Data, b'T', b""),
        (
            Command::Header {
                name: b"Subject",
                value: b" one\n two",
            },
            b'L',
            b"Subject\0 one\n two\0",
        ),
        (Command::EndOfHeader, b'N', b""),
        (Command::Body(b"\0text\r\n"), b'B', b"\0text\r\n"),
        (Command::EndOfBody, b'E', b""),
        (Command::Abort, b'A', b""),
        (Command::Quit, b'Q', b""),
    ] {
        assert_eq!(encoded(command), packet(octet, data), "{command:?}");
    }
}

#[test]
fn never_lets_a_nul_begin_another_string() {
    let command = Command::Helo("client\0{auth_authen}\0root");
    assert_eq!(
        encoded(command),
        packet(b'H', b"client?{auth_authen}?root\0")
    );
}

#[test]
fn reads_every_answer() {
    let text = |text| bytes(text);
    for (octet, data, answer) in [
        (b'c', &b""[..], Answer::Continue),
        (b'a', b"", Answer::Accept),
        (b'r', b"", Answer::Reject),
        (b't', b"", Answer::Tempfail),
        (b'd', b"", Answer::Discard),
        (b'4', b"", Answer::Shutdown),
        (b'f', b"", Answer::ConnectionFailure),
        (b's', b"", Answer::Skip),
        (b'p', b"", Answer::Progress),
        (b'y', b"550 No\0", Answer::ReplyCode(text("550 No"))),
        (b'q', b"why\0", Answer::Quarantine(text("why"))),
        (
            b'h',
            b"X\0y\0",
            Answer::AddHeader {
                name: text("X"),
                value: text("y"),
            },
        ),
        (
            b'i',
            b"\0\0\0\x01X\0y\0",
            Answer::InsertHeader {
                index: 1,
                name: text("X"),
                value: text("y"),
            },
        ),
        (
            b'm',
            b"\0\0\0\x02X\0\0",
            Answer::ChangeHeader {
                index: 2,
                name: text("X"),
                value: text(""),
            },
        ),
        (b'b', b"\0\r\n", Answer::ReplaceBody(text("\0\r\n"))),
        (b'+', b"<a@b>\0", Answer::ChangeEnvelope(b'+')),
        (b'-', b"<a@b>\0", Answer::ChangeEnvelope(b'-')),
        (b'2', b"<a@b>\0NOTIFY=NEVER\0", Answer::ChangeEnvelope(b'2')),
        (b'e', b"<a@b>\0", Answer::ChangeEnvelope(b'e')),
        (
            b'O',
            b"\0\0\0\x06\0\0\x01\x01\0\0\0\x02\0\0\0\x05i j\0",
            Answer::Negotiated {
                version: 6,
                actions: 0x101,
                protocol: 2,
                symbols: vec![(5, "i j".to_owned())],
            },
        ),
    ] {
        assert_eq!(decoded(&packet(octet, data)), Ok(Some(answer)));
    }
}

#[test]
fn refuses_an_oversized_packet_by_its_length_alone() {
    assert_eq!(
        decoded(&[0xff, 0xff, 0xff, 0xff]),
        Err(PacketError::TooLong(u32::MAX))
    );
    let longest = u32::try_from(PACKET_MAX).unwrap();
    assert_eq!(decoded(&longest.to_be_bytes()), Ok(None));
    assert_eq!(
        decoded(&(longest + 1).to_be_bytes()),
        Err(PacketError::TooLong(longest + 1))
    );
    assert_eq!(decoded(&[0, 0, 0, 0]), Err(PacketError::Empty));
}

#[test]
fn refuses_data_that_an_answer_does_not_have() {
    for (octet, data) in [
        (b'c', &b"x"[..]),
        (b'r', b"\0"),
        (b'y', b"550 no nul"),
        (b'y', b"550 two\0strings\0"),
        (b'h', b"X\0"),
        (b'h', b"X\0y"),
        (b'i', b"\0\0\0"),
        (b'm', b"X\0y\0"),
        (b'O', b"\0\0\0\x06"),
        (b'O', b"\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x05i"),
    ] {
        assert_eq!(
            decoded(&packet(octet, data)),
            Err(PacketError::Malformed(octet)),
            "{} {}",
            char::from(octet),
            data.escape_ascii()
        );
    }
    assert_eq!(decoded(&packet(b'Z', b"")), Err(PacketError::Unknown(b'Z')));
}

/// Answers as filters give them, with some that are none.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        proptest::sample::select(b"OcartdysfpqhimbFC+-2e4".to_vec()),
        any::<u8>()
    ];
    let data = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\0\0\0\x01Name\0value\0".to_vec()),
        Just(b"Name\0value\0".to_vec()),
        Just(b"550 5.7.1 No\0".to_vec()),
    ];
    let one = (octet, data).prop_map(|(octet, data)| packet(octet, &data));
    proptest::collection::vec(one, 0..8).prop_map(|packets| packets.concat())
}

/// Everything that comes out, with the octets handed over in pieces.
fn decode_all(pieces: &[&[u8]]) -> (Vec<Answer>, Option<PacketError>, usize) {
    let (mut input, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match Answer::decode(&mut input) {
                Ok(Some(answer)) => found.push(answer),
                Ok(None) => break,
                Err(error) => return (found, Some(error), 0),
            }
        }
    }
    (found, None, input.len())
}

proptest! {
    #[test]
    fn finds_the_same_answers_wherever_they_are_cut(octets in answers(), cut in any::<prop::sample::Index>()) {
        let whole = decode_all(&[&octets]);
        let (front, back) = octets.split_at(cut.index(octets.len() + 1));
        prop_assert_eq!(&decode_all(&[front, back]), &whole);
        let single: Vec<_> = octets.chunks(1).collect();
        prop_assert_eq!(&decode_all(&single), &whole);
    }

    #[test]
    fn survives_any_octets(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_, error, left) = decode_all(&[&octets]);
        prop_assert!(error.is_some() || left <= octets.len());
    }

    #[test]
    fn writes_packets_that_libmilter_takes(name in "\\PC{0,40}", value in proptest::collection::vec(any::<u8>(), 0..200), times in 0usize..1000) {
        let value = value.repeat(times);
        let commands = [
            Command::Header { name: name.as_bytes(), value: &value },
            Command::Body(&value),
            Command::Helo(&name),
        ];
        for command in commands {
            let octets = encoded(command);
            let length = u32::from_be_bytes(octets[..4].try_into().unwrap()) as usize;
            prop_assert_eq!(length + 4, octets.len());
            prop_assert!(length <= DATA_MAX + 1);
            if !matches!(command, Command::Body(_)) {
                let nuls = octets[5..].iter().filter(|octet| **octet == 0).count();
                let strings = if matches!(command, Command::Helo(_)) { 1 } else { 2 };
                prop_assert_eq!(nuls, strings);
                prop_assert_eq!(octets.last(), Some(&0));
            }
        }
    }
}
