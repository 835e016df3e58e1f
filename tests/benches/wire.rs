//! What the wire language costs: cutting lines, parsing commands and replies, taking
//! dots off and putting them back, checking chunks. Rates are of octets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub
)]
#![allow(missing_docs)]

use bytes::BytesMut;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use portcullis::smtp::bdat::ChunkChecker;
use portcullis::smtp::command::Command;
use portcullis::smtp::dot::{BareNewline, Decoder, Encoder};
use portcullis::smtp::line::LineCutter;
use portcullis::smtp::reply::{Reply, ReplyParser};

/// Octets of a body: of a small message, and of what is read at once of a large one
/// many times over.
const SIZES: [usize; 2] = [4 << 10, 1 << 20];

const LINE_MAX: usize = 2048;

/// What a client with pipelining sends at once.
const GROUP: &[u8] = b"MAIL FROM:<alice@sender.test> SIZE=4096 BODY=8BITMIME\r\n\
    RCPT TO:<bob@example.org>\r\n\
    RCPT TO:<carol@example.org>\r\n\
    RCPT TO:<dave@example.org>\r\n\
    DATA\r\n";

const COMMANDS: [&str; 8] = [
    "EHLO mail.sender.test",
    "MAIL FROM:<>",
    "MAIL FROM:<alice@sender.test> SIZE=4096 BODY=8BITMIME",
    "RCPT TO:<bob@example.org>",
    "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.org",
    "DATA",
    "BDAT 4096 LAST",
    "QUIT",
];

const REPLIES: [&str; 3] = [
    "250 2.1.5 Ok\r\n",
    "550 5.1.1 <bob@example.org>: Recipient address rejected: User unknown\r\n",
    "250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-STARTTLS\r\n\
     250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n",
];

fn main() {
    divan::main();
}

/// Lines of 70 octets, of which one in nine begins with a dot.
fn content(size: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(size + 80);
    for line in 0_usize.. {
        if content.len() >= size {
            break;
        }
        if line.is_multiple_of(9) {
            content.push(b'.');
        }
        content.extend((0..70).map(|at| b'a' + ((line + at) % 26) as u8));
        content.extend(b"\r\n");
    }
    content
}

/// As it is sent, with its final dot.
fn wire(size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut encoder = Encoder::new();
    encoder.encode(&content(size), &mut wire);
    encoder.finish(&mut wire);
    wire
}

#[divan::bench]
fn cut_lines_of_a_group(bencher: Bencher) {
    bencher
        .counter(BytesCount::of_slice(GROUP))
        .with_inputs(|| BytesMut::from(GROUP))
        .bench_values(|mut buffer| {
            let mut cutter = LineCutter::new();
            let mut lines = 0;
            while let Ok(Some(line)) = cutter.cut(&mut buffer, LINE_MAX) {
                black_box(line);
                lines += 1;
            }
            assert_eq!(lines, 5);
        });
}

#[divan::bench(args = COMMANDS)]
fn parse_command(bencher: Bencher, line: &str) {
    bencher
        .counter(BytesCount::of_str(line))
        .bench(|| Command::parse(black_box(line.as_bytes())).unwrap());
}

#[divan::bench(args = COMMANDS)]
fn print_command(bencher: Bencher, line: &str) {
    let command = Command::parse(line.as_bytes()).unwrap();
    bencher.bench(|| black_box(&command).to_string());
}

#[divan::bench(args = REPLIES)]
fn parse_reply(bencher: Bencher, text: &str) {
    bencher
        .counter(BytesCount::of_str(text))
        .with_inputs(|| BytesMut::from(text))
        .bench_values(|mut buffer| -> Reply {
            ReplyParser::new().feed(&mut buffer).unwrap().unwrap()
        });
}

#[divan::bench(args = SIZES)]
fn decode_data(bencher: Bencher, size: usize) {
    let wire = wire(size);
    let mut content = Vec::with_capacity(wire.len());
    bencher
        .counter(BytesCount::of_slice(&wire))
        .bench_local(|| {
            content.clear();
            let mut decoder = Decoder::new(BareNewline::Reject, Some(1000));
            let decoded = decoder.decode(black_box(&wire), &mut content);
            assert!(decoded.ended);
        });
}

#[divan::bench(args = SIZES)]
fn encode_data(bencher: Bencher, size: usize) {
    let content = content(size);
    let mut wire = Vec::with_capacity(content.len() * 2);
    bencher
        .counter(BytesCount::of_slice(&content))
        .bench_local(|| {
            wire.clear();
            let mut encoder = Encoder::new();
            encoder.encode(black_box(&content), &mut wire);
            encoder.finish(&mut wire);
        });
}

#[divan::bench(args = SIZES)]
fn check_chunk(bencher: Bencher, size: usize) {
    let content = content(size);
    bencher.counter(BytesCount::of_slice(&content)).bench(|| {
        let mut checker = ChunkChecker::new();
        checker.check(black_box(&content));
        checker.finish();
        assert_eq!(checker.offence(), None);
    });
}
