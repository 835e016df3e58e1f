//! Replies do not depend on the cuts; printed ones are bounded, clean, and
//! read as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::smtp::reply::{EnhancedCode, Reply, ReplyError, ReplyParser};
use portcullis_fuzz::{assert_reply_lines, pieces, steered};

fn read(reads: &[&[u8]]) -> Vec<Result<Reply, ReplyError>> {
    let (mut parser, mut buffer) = (ReplyParser::new(), BytesMut::new());
    let mut replies = Vec::new();
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match parser.feed(&mut buffer) {
                Ok(None) => break,
                Ok(Some(reply)) => replies.push(Ok(reply)),
                Err(error) => {
                    replies.push(Err(error));
                    return replies;
                }
            }
        }
        assert!(buffer.len() < 12_288, "{} octets held", buffer.len());
    }
    replies
}

fn check(reply: &Reply) {
    let printed = reply.to_string();
    // A challenge may be as long as a line of an exchange (RFC 4954 4).
    assert_reply_lines(&printed, if reply.code() == 334 { usize::MAX } else { 512 });
    // Beyond the bounds of the reader.
    if printed.len() > 12_000 || printed.matches('\n').count() > 128 {
        return;
    }
    let again = read(&[printed.as_bytes()]);
    let [Ok(again)] = again.as_slice() else {
        panic!("{printed:?} reads as {again:?}")
    };
    assert_eq!(again.code(), reply.code());
    assert_eq!(again.enhanced(), reply.enhanced());
    assert_eq!(again.to_string(), printed);
    if printed.matches('\n').count() == reply.lines().len() {
        assert_eq!(again, reply);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, data)) = steered(data) else {
        return;
    };
    let replies = read(&[data]);
    assert_eq!(read(&pieces(seed, data)), replies);
    replies.iter().flatten().for_each(check);

    let text = String::from_utf8_lossy(data);
    let code = [220, 250, 334, 354, 421, 450, 550, 554][usize::from(seed % 8)];
    let class = u8::try_from(code / 100).unwrap_or(5);
    // RFC 3463 2 has no other classes.
    let has_class = matches!(class, 2 | 4 | 5) && seed > 127;
    let enhanced = has_class.then_some(EnhancedCode::new(class, 7, 1));
    check(&Reply::new(code, enhanced, &text));
    let mut lines = Reply::multiline(code, enhanced, text.split('|'));
    lines.append(&format!(" [{text}]"));
    check(&lines);
});
