//! Keywords of a backend print as keywords, and two lists meet in what both have.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::smtp::ehlo::Keywords;
use portcullis::smtp::reply::{Reply, ReplyParser};
use portcullis_fuzz::{assert_one_line, assert_reply_lines};

fuzz_target!(|data: &[u8]| {
    let (ours, theirs) = data.split_at(data.len() / 2);
    let [ours, theirs] = [ours, theirs].map(|half| {
        let text = String::from_utf8_lossy(half);
        Keywords::parse(&Reply::multiline(250, None, text.split('\n')))
    });
    for keywords in [&ours, &theirs] {
        keywords.lines().for_each(|line| assert_one_line(&line));
        let printed = keywords.to_reply("mx.example.org").to_string();
        assert_reply_lines(&printed, 512);
        if keywords.lines().all(|line| line.len() <= 500) && keywords.iter().count() < 128 {
            let mut buffer = BytesMut::from(printed.as_bytes());
            let reply = ReplyParser::new().feed(&mut buffer).unwrap().unwrap();
            assert_eq!(&Keywords::parse(&reply), keywords);
        }
        keywords.size();
        for mechanism in keywords.auth_mechanisms() {
            assert_one_line(&mechanism.to_string());
        }
    }
    let both = ours.intersection(&theirs);
    for (keyword, parameters) in both.iter() {
        let (ours, theirs) = (ours.get(keyword).unwrap(), theirs.get(keyword).unwrap());
        if keyword != "SIZE" {
            assert!(
                parameters
                    .iter()
                    .all(|one| ours.contains(one) && theirs.contains(one))
            );
        }
    }
});
