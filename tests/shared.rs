//! Limits that two instances share through a real Redis, and what happens to
//! them when it freezes, dies or is flushed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use support::{Options, Portcullis, Postfix, Redis, Scripted, Smtp};
use support::{is_banned, letter, redis_questions, wait_for, with_redis_in_time};

const EXEMPT: (&str, &str) = ("LIMIT_EXEMPT", "127.0.0.1");

/// What Redis says of a key without an end; one that has just gone is -2.
const FOR_EVER: i64 = -1;

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 5, 5, 5);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);

/// Two instances before one backend, both in touch with Redis.
fn pair(backend: SocketAddr, redis: &Redis, settings: &[(&str, &str)]) -> [Portcullis; 2] {
    let url = redis.url();
    let mut all = vec![EXEMPT, ("REDIS", url.as_str())];
    all.extend_from_slice(settings);
    let pair = [(); 2].map(|()| Portcullis::guarding(backend, &all));
    for portcullis in &pair {
        portcullis.log_with("limits are shared through Redis");
    }
    pair
}

fn connect(portcullis: &Portcullis) -> (Smtp, String) {
    let mut client = Smtp::connect_from(CLIENT, portcullis.mx);
    let said = client.reply_or_end();
    (client, said)
}

fn connect_ten_times(pair: &[Portcullis; 2]) -> usize {
    let replies = (0..10).map(|visit| connect(&pair[visit % 2]).1);
    replies.filter(|said| said.starts_with("220")).count()
}

#[test]
fn two_instances_share_the_rate_of_connections() {
    let backend = Scripted::start(&[]);
    let settings = [("CONN_RATE", "1/h burst 4"), ("FLOOD_RATE", "off")];
    let start = |redis: &Redis| pair(backend.address, redis, &settings);
    with_redis_in_time(start, |_, pair| {
        assert_eq!(connect_ten_times(pair), 4);
        let (_, said) = connect(&pair[0]);
        assert!(
            said.starts_with("421 4.7.0 CONN_RATE reached by 127.5.5.5/32; try again in "),
            "{said}"
        );
        let mut other = Smtp::connect_from(OTHER, pair[1].mx);
        other.expect("220");
    });
}

#[test]
fn two_instances_share_messages_and_recipients() {
    let postfix = Postfix::start(Options::default());
    let settings = [("MSG_RATE", "1/h burst 3"), ("RCPT_RATE", "1/h burst 4")];
    let start = |redis: &Redis| pair(postfix.address, redis, &settings);
    with_redis_in_time(start, |_, pair| {
        let before = postfix.messages(0).len();
        let [mut first, mut second] = [0, 1].map(|which| {
            let mut client = Smtp::connect_from(CLIENT, pair[which].mx);
            client.expect("220");
            client.ask("EHLO client.test", "250");
            client
        });
        for client in [&mut first, &mut second] {
            let reply = client.deliver("a@sender.test", "b@example.org", letter("one").as_bytes());
            assert!(reply.starts_with("250"), "{reply}");
        }
        first.ask("MAIL FROM:<a@sender.test>", "250");
        second.ask(
            "MAIL FROM:<a@sender.test>",
            "450 4.7.1 MSG_RATE reached by 127.5.5.5/32",
        );
        for recipient in ["c", "d"] {
            first.ask(&format!("RCPT TO:<{recipient}@example.org>"), "250");
        }
        first.ask(
            "RCPT TO:<e@example.org>",
            "452 4.7.1 RCPT_RATE reached by 127.5.5.5/32",
        );
        assert_eq!(postfix.messages(before + 2).len(), before + 2);
    });
}

#[test]
fn two_instances_share_connections_at_once_and_a_dead_one_holds_none() {
    let backend = Scripted::start(&[]);
    let settings = [
        ("CONN_MAX", "3"),
        ("CONN_RATE", "off"),
        ("FLOOD_RATE", "off"),
    ];
    let start = |redis: &Redis| pair(backend.address, redis, &settings);
    with_redis_in_time(start, |_, [first, second]| {
        let held: Vec<_> = (0..2).map(|_| connect(first)).collect();
        assert!(held.iter().all(|(_, said)| said.starts_with("220")));
        let (mut third, said) = connect(second);
        assert!(said.starts_with("220"), "{said}");
        let (_, said) = connect(second);
        assert!(
            said.starts_with("421 4.7.0 CONN_MAX reached: 127.5.5.5/32 has 3"),
            "{said}"
        );
        third.ask("QUIT", "221");
        // By the word of Redis: when it is late, the second counts only its own.
        let free = || {
            let before = redis_questions(second, "answered");
            let (client, said) = connect(second);
            let is_sure = redis_questions(second, "answered") > before;
            (is_sure && said.starts_with("220")).then_some(client)
        };
        let third = wait_for(Duration::from_secs(10), free);
        let _third = third.expect("a place given back stays taken");
        // So that it gives nothing back itself.
        first.kill();
        let after_death = wait_for(Duration::from_secs(60), free);
        assert!(after_death.is_some(), "a dead instance holds its places");
    });
}

#[test]
fn a_ban_counts_for_all() {
    let backend = Scripted::start(&[]);
    let settings = [
        ("CONN_RATE", "1/h burst 1"),
        ("FLOOD_RATE", "1/h burst 2"),
        ("BAN_TIME", "10min"),
    ];
    let start = |redis: &Redis| pair(backend.address, redis, &settings);
    with_redis_in_time(start, |redis, [first, second]| {
        for _ in 0..5 {
            is_banned(CLIENT, first.mx);
        }
        let told = wait_for(Duration::from_secs(10), || {
            let mut keys = redis.keys().into_iter();
            keys.any(|(key, _)| key.contains(":ban:")).then_some(())
        });
        assert!(told.is_some(), "{}", first.log());
        // At the first try: after some more it would be banned for those.
        assert!(is_banned(CLIENT, second.mx), "{}", second.log());
        let mut other = Smtp::connect_from(OTHER, second.mx);
        other.expect("220");
    });
}

#[test]
fn what_one_instance_only_monitors_is_refused_by_no_other() {
    let (backend, redis) = (Scripted::start(&[]), Redis::start());
    let url = redis.url();
    let trial = [
        EXEMPT,
        ("REDIS", url.as_str()),
        ("MODE", "monitor"),
        ("CONN_RATE", "1/h burst 1"),
        ("FLOOD_RATE", "1/h burst 1"),
    ];
    let monitoring = Portcullis::guarding(backend.address, &trial);
    let enforcing = Portcullis::guarding(backend.address, &trial[..2]);
    for portcullis in [&monitoring, &enforcing] {
        portcullis.log_with("limits are shared through Redis");
    }
    for _ in 0..6 {
        assert!(connect(&monitoring).1.starts_with("220"));
    }
    monitoring.log_with("\"would\":\"ban\"");
    std::thread::sleep(Duration::from_millis(300));
    assert!(connect(&enforcing).1.starts_with("220"));
    assert!(connect(&enforcing).1.starts_with("220"));
}

#[test]
fn an_instance_without_bans_bans_nobody_for_others_either() {
    let (backend, redis) = (Scripted::start(&[]), Redis::start());
    let settings = [("CONN_RATE", "1/h burst 2"), ("FLOOD_RATE", "1/h burst 1")];
    let [first, _second] = pair(backend.address, &redis, &settings);
    let url = redis.url();
    let without = [EXEMPT, ("REDIS", url.as_str()), ("BAN_TIME", "0s")];
    let without = Portcullis::guarding(backend.address, &without);
    without.log_with("limits are shared through Redis");
    for _ in 0..4 {
        let mut client = Smtp::connect_from(CLIENT, first.mx);
        client.reply_or_end();
    }
    first.log_with("\"banned\"");
    let (_, said) = connect(&without);
    // Not reset; the other's rate is longer than the own one, so that it is refused.
    assert!(!said.is_empty(), "{}", without.log());
}

#[test]
fn every_key_has_an_end() {
    let (postfix, redis) = (Postfix::start(Options::default()), Redis::start());
    let settings = [
        ("FLOOD_RATE", "1/h burst 1"),
        ("CONN_RATE", "1/h burst 3"),
        ("BAN_TIME", "10min"),
    ];
    let pair = pair(postfix.address, &redis, &settings);
    let (mut client, _) = connect(&pair[0]);
    client.ask("EHLO client.test", "250");
    client.deliver("a@sender.test", "b@example.org", letter("keys").as_bytes());
    for _ in 0..6 {
        is_banned(CLIENT, pair[0].mx);
    }
    let kinds = [
        "bucket:conn:",
        "bucket:msg:",
        "bucket:rcpt:",
        "count:",
        "alive:",
        "ban:",
    ];
    let all = wait_for(Duration::from_secs(10), || {
        let keys = redis.keys();
        let there = |kind: &&str| {
            keys.iter()
                .any(|(key, _)| key.starts_with(&format!("portcullis:{kind}")))
        };
        kinds.iter().all(there).then_some(keys)
    });
    let keys = all.unwrap_or_else(|| panic!("{:?}", redis.keys()));
    assert!(keys.iter().all(|(_, life)| *life != FOR_EVER), "{keys:?}");
}

#[test]
fn a_frozen_redis_delays_nobody_and_the_own_limits_decide() {
    let (backend, redis) = (Scripted::start(&[]), Redis::start());
    let settings = [("CONN_RATE", "1/h burst 5"), ("FLOOD_RATE", "off")];
    let [first, _second] = pair(backend.address, &redis, &settings);
    redis.daemon.stop();
    let began = Instant::now();
    let welcome = (0..20)
        .filter(|_| connect(&first).1.starts_with("220"))
        .count();
    // Twenty questions of a second each would show.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(welcome, 5);
    first.log_with("Redis lost, each instance limits for itself");
    redis.daemon.cont();
    first.log_with("Redis is back, limits are shared again");
}

#[test]
fn redis_killed_in_the_middle_costs_no_message_and_comes_back() {
    let (postfix, mut redis) = (Postfix::start(Options::default()), Redis::start());
    let settings = [
        ("CONN_RATE", "1/h burst 100"),
        ("MSG_RATE", "1/h burst 15"),
        ("FLOOD_RATE", "off"),
    ];
    let [first, second] = pair(postfix.address, &redis, &settings);
    let (mut client, said) = connect(&first);
    assert!(said.starts_with("220"));
    client.ask("EHLO client.test", "250");
    let mut send = |number: usize| {
        client.say("MAIL FROM:<a@sender.test>");
        let reply = client.reply();
        if reply.starts_with("450 4.7.1 MSG_RATE") {
            return false;
        }
        assert!(reply.starts_with("250"), "{reply}");
        client.ask("RCPT TO:<b@example.org>", "250");
        client.ask("DATA", "354");
        client.send(&support::dot_stuffed(
            letter(&number.to_string()).as_bytes(),
        ));
        client.expect("250");
        true
    };
    for number in 0..5 {
        assert!(send(number));
    }
    redis.daemon.kill();
    // Not let through without a limit: the own bucket has been charged all the while.
    let sent = (5..30).filter(|number| send(*number)).count();
    assert_eq!(sent, 10);
    first.log_with("Redis lost");
    let address = redis.address();
    drop(redis);
    let _redis = Redis::start_at(address);
    first.log_with("Redis is back");
    second.log_with("Redis is back");
    assert_eq!(postfix.messages(15).len(), 15);
}

#[test]
fn a_redis_that_is_not_there_at_the_start_holds_nothing_up() {
    let backend = Scripted::start(&[]);
    let nobody = format!("redis://{}/0", support::free_address());
    let settings = [
        EXEMPT,
        ("REDIS", nobody.as_str()),
        ("CONN_RATE", "1/h burst 2"),
        ("FLOOD_RATE", "off"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    portcullis.log_with("Redis lost");
    let welcome = (0..5)
        .filter(|_| connect(&portcullis).1.starts_with("220"))
        .count();
    assert_eq!(welcome, 2);
}

#[test]
fn a_password_in_the_url_is_never_shown() {
    let backend = Scripted::start(&[]);
    let url = format!("redis://portcullis:hunter2@{}/0", support::free_address());
    let portcullis = Portcullis::guarding(backend.address, &[("REDIS", &url)]);
    let log = portcullis.log_with("Redis lost");
    assert!(!log.contains("hunter2"), "{log}");
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("REDIS", "http://portcullis:hunter2@127.0.0.1/0"),
    ]);
    assert!(
        !finished.output().contains("hunter2"),
        "{}",
        finished.output()
    );
    assert!(
        finished.output().contains("PORTCULLIS_REDIS"),
        "{}",
        finished.output()
    );
}
