//! Buckets and bans.

use std::net::IpAddr;

use super::*;
use crate::limits::{self, Limits, Rate};
use crate::policy::{Finding, Mode};
use crate::settings::{LogAddresses, Networks};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn lets_the_burst_pass_and_then_one_token_per_period() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let period = Duration::from_millis(10);
    let token = [charge("a", period, 5, 1)];
    let start = Instant::now();
    let mut passed = 0;
    // However late the questions come.
    while passed < 40 {
        assert!(start.elapsed() < 30 * SECOND, "{passed} have passed");
        match instance.charge("nobody", &token).await.unwrap() {
            Ruling::Pass => passed += 1,
            Ruling::Refused { index: 0, wait } => assert!(wait <= period, "{wait:?}"),
            other => panic!("{other:?}"),
        }
    }
    let most = 5 + start.elapsed().as_millis() / 10 + 1;
    assert!(passed <= most, "{passed} of {most}");
}

#[tokio::test]
async fn two_instances_share_one_bucket() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    let token = [charge("a", 60 * SECOND, 4, 1)];
    for instance in [&one, &two, &one, &two] {
        assert_eq!(instance.charge("", &token).await, Some(Ruling::Pass));
    }
    for instance in [&one, &two] {
        let ruling = instance.charge("", &token).await;
        assert!(matches!(ruling, Some(Ruling::Refused { .. })), "{ruling:?}");
    }
}

#[tokio::test]
async fn tells_how_long_to_wait() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let cost = |cost| [charge("a", 60 * SECOND, 10, cost)];
    assert_eq!(instance.charge("", &cost(8)).await, Some(Ruling::Pass));
    let ruling = instance.charge("", &cost(5)).await;
    let Some(Ruling::Refused { index: 0, wait }) = ruling else {
        panic!("{ruling:?}");
    };
    // Two tokens are left, three more are needed.
    assert!(wait <= 180 * SECOND && wait > 170 * SECOND, "{wait:?}");

    // What it says is true: not before, and then at once.
    let cost = [charge("b", 3 * SECOND, 1, 1)];
    assert_eq!(instance.charge("", &cost).await, Some(Ruling::Pass));
    let Some(Ruling::Refused { wait, .. }) = instance.charge("", &cost).await else {
        panic!("passed");
    };
    tokio::time::sleep(wait).await;
    assert_eq!(instance.charge("", &cost).await, Some(Ruling::Pass));
}

#[tokio::test]
async fn charges_all_buckets_or_none() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let wide = |cost| charge("wide", 60 * SECOND, 5, cost);
    let narrow = charge("narrow", 60 * SECOND, 1, 1);
    let both = [wide(1), narrow.clone()];
    assert_eq!(instance.charge("", &both).await, Some(Ruling::Pass));
    for _ in 0..10 {
        let ruling = instance.charge("", &both).await;
        assert!(
            matches!(ruling, Some(Ruling::Refused { index: 1, .. })),
            "{ruling:?}"
        );
    }
    assert_eq!(instance.charge("", &[wide(4)]).await, Some(Ruling::Pass));
}

#[tokio::test]
async fn a_full_count_charges_no_bucket() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let count = |max| {
        [Count {
            key: "a".to_owned(),
            max,
        }]
    };
    let token = [charge("a", 60 * SECOND, 2, 1)];
    let admit = async |max| instance.admit("", &token, &count(max)).await;
    assert_eq!(admit(1).await, Some(Ruling::Pass));
    assert_eq!(admit(1).await, Some(Ruling::TooMany { index: 0 }));
    assert_eq!(admit(2).await, Some(Ruling::Pass), "a token was lost");
    // And a bucket that refuses takes no place.
    let ruling = admit(3).await;
    assert!(matches!(ruling, Some(Ruling::Refused { .. })), "{ruling:?}");
    assert_eq!(places_of(&server, "a"), [2]);
}

#[tokio::test]
async fn takes_a_cost_above_the_burst_as_the_burst() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let cost = |cost| [charge("a", 60 * SECOND, 5, cost)];
    assert_eq!(instance.charge("", &cost(9)).await, Some(Ruling::Pass));
    let ruling = instance.charge("", &cost(1)).await;
    assert!(matches!(ruling, Some(Ruling::Refused { .. })), "{ruling:?}");
}

/// What Lua's tostring() makes of it is not.
#[tokio::test]
async fn a_bucket_is_kept_to_the_microsecond() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let token = [charge("a", 60 * SECOND, 5, 1)];
    assert_eq!(instance.charge("", &token).await, Some(Ruling::Pass));
    let full_at: String = server.ask(|redis| redis.get("portcullis:bucket:a"));
    let full_at: u64 = full_at.parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let left = Duration::from_micros(full_at) - now;
    assert!(left <= 60 * SECOND && left > 50 * SECOND, "{left:?}");
}

/// An instance with newer settings must not wait for what the old ones allowed.
#[tokio::test]
async fn a_bucket_that_became_smaller_is_at_most_empty() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let big = [charge("a", 600 * SECOND, 1000, 1000)];
    assert_eq!(instance.charge("", &big).await, Some(Ruling::Pass));
    let small = [charge("a", Duration::from_millis(50), 2, 1)];
    let Some(Ruling::Refused { wait, .. }) = instance.charge("", &small).await else {
        panic!("passed");
    };
    assert!(wait <= Duration::from_millis(50), "{wait:?}");
}

#[tokio::test]
async fn bans_in_all_instances_and_doubles() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    let [first, longest] = [6 * SECOND, 20 * SECOND];
    for (instance, expected) in [(&one, 6), (&two, 12), (&one, 20), (&two, 20)] {
        let expected = Duration::from_secs(expected);
        assert_eq!(instance.ban("a", first, longest).await, Some(expected));
        for instance in [&one, &two] {
            let ruling = instance.charge("a", &[]).await;
            let Some(Ruling::Banned { left }) = ruling else {
                panic!("{ruling:?}");
            };
            assert!(left <= expected && !left.is_zero(), "{left:?}");
            assert_eq!(instance.charge("b", &[]).await, Some(Ruling::Pass));
        }
        server.command("DEL portcullis:ban:a");
    }
    let memory: i64 = server.ask(|redis| redis.ttl("portcullis:strikes:a"));
    assert!((86_000..=86_421).contains(&memory), "{memory}");
}

#[tokio::test]
async fn two_bans_for_one_offence_are_one_strike() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    let ban = async |instance: &Instance| instance.ban("a", 60 * SECOND, 600 * SECOND).await;
    assert_eq!(ban(&one).await, Some(60 * SECOND));
    assert!(ban(&two).await.unwrap() <= 60 * SECOND);
    let strikes: u32 = server.ask(|redis| redis.get("portcullis:strikes:a"));
    assert_eq!(strikes, 1);
}

#[tokio::test]
async fn every_key_has_a_time_to_live_and_the_prefix() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let token = [charge("a", SECOND, 5, 1), charge("b", SECOND / 1000, 2, 1)];
    let count = [Count {
        key: "a".to_owned(),
        max: 9,
    }];
    for _ in 0..2 {
        assert_eq!(instance.admit("", &token, &count).await, Some(Ruling::Pass));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    instance.ban("a", SECOND, SECOND).await.unwrap();
    instance.give_back("a");
    eventually("given back", || places_of(&server, "a") == [1]).await;

    let keys: Vec<String> = server.ask(|redis| redis.keys("*"));
    let mut kinds: Vec<_> = keys
        .iter()
        .filter_map(|key| key.split(':').nth(1))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["alive", "ban", "bucket", "count", "strikes"]);
    for key in keys {
        assert!(key.starts_with("portcullis:"), "{key}");
        let left: i64 = server.ask(|redis| redis.pttl(&key));
        // -2: it has just expired.
        assert!(left > 0 || left == -2, "{key} lives for ever: {left}");
    }
}

/// The limits of an instance that takes its time for Redis.
async fn limits(server: &Server) -> Arc<Limits> {
    let settings = limits::Settings {
        auth_fail_rate: Rate::parse("1/h burst 2").unwrap(),
        prefix_factor: limits::Factor::parse("2").unwrap(),
        ..limits::Settings::default()
    };
    let trusted = Networks::default();
    let mut limits = Limits::new(&settings, &trusted, Mode::Enforce, LogAddresses::Full);
    let url = RedisUrl::parse(&server.url()).unwrap();
    limits.shared = Some(Arc::new(Shared::new(&url, PATIENT)));
    let limits = Arc::new(limits);
    tokio::spawn(Arc::clone(&limits).keep_order());
    let connected = || limits.sharing().unwrap().1.available;
    eventually("connected", connected).await;
    limits
}

#[tokio::test]
async fn guesses_that_a_network_has_used_up_elsewhere_let_nobody_of_it_guess_here() {
    let server = Server::start();
    let (one, two) = (limits(&server).await, limits(&server).await);
    let client = |host| IpAddr::from([192, 0, 2, host]);
    for host in [1, 1, 2, 2] {
        assert_eq!(one.auth_failed(client(host)).await, Ok(()));
    }
    assert!(two.may_sign_in(client(3)).await.is_ok());
    let network = Some("192.0.2.0/24".parse().unwrap());
    let is_used_up = |answer: Result<(), Finding>| matches!(answer, Err(Finding::Rate { network: whose, .. }) if whose == network);
    assert!(is_used_up(two.auth_failed(client(3)).await));
    assert!(is_used_up(two.may_sign_in(client(4)).await.map(drop)));
    let stranger = IpAddr::from([198, 51, 100, 1]);
    assert!(two.may_sign_in(stranger).await.is_ok());
    assert_eq!(two.bans().len(), 0);
}
