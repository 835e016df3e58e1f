//! The limits as a whole: who is let in, charged and banned.

use std::net::IpAddr;

use super::*;
use crate::settings::Value;

fn limits(change: impl FnOnce(&mut Settings)) -> Limits {
    let mut settings = Settings::default();
    change(&mut settings);
    let trusted = Networks::parse("203.0.113.0/24").unwrap();
    Limits::new(&settings, &trusted, Mode::Enforce, LogAddresses::Full)
}

fn rate(text: &str) -> Rate {
    Rate::parse(text).unwrap()
}

/// What needs no other instance is there at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("waits for somebody"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn refuses_connections_beyond_the_rate_and_says_how_long_to_wait() {
    let limits = limits(|settings| settings.conn_rate = rate("1/min burst 3"));
    let client = ip("192.0.2.1");
    for _ in 0..3 {
        assert!(limits.admit(client).is_ok());
    }
    match limits.admit(client).map(drop) {
        Err(Finding::Rate {
            limit: Limit::Connections,
            network,
            wait,
        }) => {
            assert_eq!(network, Some("192.0.2.1/32".parse().unwrap()));
            assert!(
                wait > Duration::from_secs(55) && wait <= Duration::from_secs(61),
                "{wait:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(limits.admit(ip("192.0.2.2")).is_ok());
}

#[test]
fn an_ipv4_mapped_address_is_the_same_client() {
    let limits = limits(|settings| settings.conn_rate = rate("1/h burst 1"));
    assert!(limits.admit(ip("::ffff:192.0.2.1")).is_ok());
    assert!(limits.admit(ip("192.0.2.1")).is_err());
}

#[test]
fn a_place_is_free_again_when_the_permit_is_dropped() {
    let limits = limits(|settings| settings.conn_max = ConnMax::parse("2").unwrap());
    let client = ip("192.0.2.1");
    let first = limits.admit(client).unwrap();
    let _second = limits.admit(client).unwrap();
    let crowd = limits.admit(client).map(drop).unwrap_err();
    assert!(matches!(crowd, Finding::Crowd { most: 2, .. }), "{crowd:?}");
    drop(first);
    assert!(limits.admit(client).is_ok());
}

#[test]
fn whoever_goes_on_being_refused_is_banned() {
    let limits = limits(|settings| {
        settings.conn_rate = rate("1/h burst 1");
        settings.flood_rate = rate("1/h burst 5");
    });
    let client = ip("192.0.2.1");
    let answers: Vec<_> = (0..10).map(|_| limits.admit(client).map(drop)).collect();
    assert!(answers[0].is_ok());
    assert!(
        answers[1..7]
            .iter()
            .all(|answer| matches!(answer, Err(Finding::Rate { .. })))
    );
    assert!(
        answers[7..]
            .iter()
            .all(|answer| matches!(answer, Err(Finding::Banned { .. })))
    );
    assert_eq!(limits.bans().len(), 1);
}

#[test]
fn failed_sign_ins_ban_the_source_for_everything() {
    let limits = limits(|settings| settings.auth_fail_rate = rate("1/h burst 5"));
    let client = ip("192.0.2.1");
    for _ in 0..5 {
        assert_eq!(now(limits.auth_failed(client)), Ok(()));
    }
    assert!(matches!(
        now(limits.auth_failed(client)),
        Err(Finding::Rate {
            limit: Limit::AuthFailures,
            ..
        })
    ));
    assert!(matches!(
        limits.admit(client).map(drop),
        Err(Finding::Banned { .. })
    ));
    assert!(matches!(
        now(limits.charge(client, Charge::Message)),
        Err(Finding::Banned { .. })
    ));
    assert!(limits.admit(ip("192.0.2.2")).is_ok());
}

#[test]
fn spraying_a_48_gains_no_more_guesses_than_the_48_may_have() {
    let limits = limits(|_| ());
    let base = u128::from("2001:db8:1::1".parse::<std::net::Ipv6Addr>().unwrap());
    let mut guesses = 0;
    for network in 0..10_000_u128 {
        let client = std::net::Ipv6Addr::from(base | network << 64).into();
        if limits.admit(client).is_ok() && now(limits.may_sign_in(client)).is_ok() {
            guesses += 1;
            let _ = now(limits.auth_failed(client));
        }
    }
    // Eight times the five of a client, and arrival times are rounded down.
    assert!((40..=41).contains(&guesses), "{guesses}");
}

#[test]
fn the_whole_client_network_is_banned_and_no_more() {
    let limits = limits(|settings| settings.offence_rate = rate("1/h burst 1"));
    limits.offended(ip("2001:db8::1"));
    limits.offended(ip("2001:db8::2"));
    assert!(limits.admit(ip("2001:db8::3")).is_err());
    assert!(limits.admit(ip("2001:db8:0:1::3")).is_ok());
}

#[test]
fn a_balancer_is_never_banned() {
    let limits = limits(|settings| settings.auth_fail_rate = rate("1/h burst 1"));
    let balancer = ip("203.0.113.5");
    for _ in 0..5 {
        let _ = now(limits.auth_failed(balancer));
    }
    assert!(limits.admit(balancer).is_ok());
    assert_eq!(limits.bans().len(), 0);
}

/// How many of these sign-ins reach the backend before it decides upon the first.
fn at_once(limits: &Limits, clients: impl Iterator<Item = IpAddr>) -> Vec<Attempt> {
    let attempts = clients.filter_map(|client| limits.set_aside(client).ok()?.ok());
    attempts.collect()
}

#[test]
fn guesses_at_once_gain_a_client_none() {
    let few = |settings: &mut Settings| settings.auth_fail_rate = rate("1/h burst 3");
    let limits = limits(few);
    let (client, balancer) = (ip("192.0.2.1"), ip("203.0.113.5"));
    let all = |client| std::iter::repeat_n(client, 100);
    let attempts = at_once(&limits, all(client));
    // With the fourth it is banned.
    assert_eq!(attempts.len(), 4);
    // Whose fate is decided makes room, but for failures.
    drop(attempts);
    assert_eq!(at_once(&limits, all(client)).len(), 4);
    let _ = now(limits.auth_failed(client));
    assert_eq!(at_once(&limits, all(client)).len(), 3);
    assert_eq!(at_once(&limits, all(balancer)).len(), 3);
    assert_eq!(limits.sign_ins.networks(), 0);
}

#[test]
fn guesses_at_once_gain_a_48_none() {
    let limits = limits(|_| ());
    let base = u128::from("2001:db8:1::1".parse::<std::net::Ipv6Addr>().unwrap());
    let clients = (0..160_u128).map(|network| std::net::Ipv6Addr::from(base | network << 64));
    let attempts = at_once(&limits, clients.clone().map(IpAddr::V6));
    assert_eq!(attempts.len(), 40);
    for client in clients.take(40) {
        let _ = now(limits.auth_failed(client.into()));
    }
    drop(attempts);
    let late = now(limits.may_sign_in(ip("2001:db8:1:ffff::1"))).map(drop);
    assert!(matches!(late, Err(Finding::Rate { .. })), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn who_signs_in_beside_others_waits_for_them_a_few_seconds() {
    let limits = limits(|settings| settings.auth_fail_rate = rate("1/h burst 3"));
    let client = ip("192.0.2.1");
    let attempts = at_once(&limits, std::iter::repeat_n(client, 4));
    let wait = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(attempts);
    };
    let (attempt, ()) = tokio::join!(limits.may_sign_in(client), wait);
    assert!(attempt.is_ok());
    drop(attempt);
    let _attempts = at_once(&limits, std::iter::repeat_n(client, 4));
    let began = tokio::time::Instant::now();
    let refused = limits.may_sign_in(client).await.map(drop);
    assert!(matches!(refused, Err(Finding::Rate { .. })), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_beside_guesses_is_let_in_no_more_once_they_have_failed() {
    let limits = limits(|settings| settings.auth_fail_rate = rate("1/h burst 3"));
    let client = ip("192.0.2.1");
    let attempts = at_once(&limits, std::iter::repeat_n(client, 4));
    let fail = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for attempt in attempts {
            let _ = limits.auth_failed(client).await;
            drop(attempt);
        }
    };
    let (waited, ()) = tokio::join!(limits.may_sign_in(client), fail);
    let waited = waited.map(drop);
    assert!(matches!(waited, Err(Finding::Banned { .. })), "{waited:?}");
}

#[test]
fn sign_ins_at_once_are_held_up_by_nothing_that_is_only_tried() {
    let settings = Settings {
        auth_fail_rate: rate("1/h burst 1"),
        ..Settings::default()
    };
    let nobody = Networks::default();
    let limits = Limits::new(&settings, &nobody, Mode::Monitor, LogAddresses::Full);
    let attempts: Vec<_> = (0..20)
        .map(|_| now(limits.may_sign_in(ip("192.0.2.1"))))
        .collect();
    assert!(attempts.iter().all(Result::is_ok));
}

/// How many of 20 guesses reach the backend, each from a new connection.
fn guesses(limits: &Limits, client: IpAddr) -> usize {
    let guess = |_: &i32| {
        let may = limits.admit(client).is_ok() && now(limits.may_sign_in(client)).is_ok();
        may && {
            let _ = now(limits.auth_failed(client));
            true
        }
    };
    (0..20).filter(guess).count()
}

#[test]
fn whoever_cannot_be_banned_gains_no_guesses_by_it() {
    let few = |settings: &mut Settings| settings.auth_fail_rate = rate("1/h burst 3");
    let unbanned = limits(|settings| {
        few(settings);
        settings.ban_time = Duration::ZERO;
    });
    assert_eq!(guesses(&unbanned, ip("192.0.2.1")), 3);
    let limits = limits(few);
    assert_eq!(guesses(&limits, ip("203.0.113.5")), 3, "a balancer");
    // With the fourth it is banned.
    assert_eq!(guesses(&limits, ip("192.0.2.1")), 4);
    assert_eq!(limits.bans().len(), 1);
}

#[test]
fn a_full_table_of_bans_gains_nobody_a_guess() {
    let mut limits = limits(|settings| {
        settings.auth_fail_rate = rate("1/h burst 3");
        settings.conn_rate = Rate::OFF;
    });
    limits.bans = Arc::new(Bans::new(Duration::from_secs(3600), bans::OCTETS));
    limits.ban(ip("198.51.100.1"), BanReason::Flood);
    let client = ip("192.0.2.1");
    assert_eq!(guesses(&limits, client), 3);
    // As soon as there is room, the next is the last.
    now(limits.lift("198.51.100.1/32".parse().unwrap()));
    assert_eq!(guesses(&limits, client), 1);
    assert!(limits.not_banned(client).is_err());
}

#[test]
fn the_exempt_are_outside_all_limits() {
    let limits = limits(|settings| {
        settings.limit_exempt = Networks::parse("192.0.2.0/28").unwrap();
        settings.conn_rate = rate("1/h burst 1");
        settings.msg_rate = rate("1/h burst 1");
        settings.auth_fail_rate = rate("1/h burst 1");
        settings.offence_rate = rate("1/h burst 1");
    });
    let client = ip("::ffff:192.0.2.1");
    let permits: Vec<_> = (0..100).map(|_| limits.admit(client).unwrap()).collect();
    let attempts: Vec<_> = (0..100).map(|_| now(limits.may_sign_in(client))).collect();
    assert!(attempts.iter().all(Result::is_ok));
    for _ in &permits {
        limits.offended(client);
        assert_eq!(now(limits.charge(client, Charge::Message)), Ok(()));
        assert_eq!(now(limits.auth_failed(client)), Ok(()));
    }
}

#[test]
fn messages_and_recipients_are_counted_apart() {
    let limits = limits(|settings| {
        settings.msg_rate = rate("1/h burst 2");
        settings.rcpt_rate = rate("1/h burst 3");
    });
    let client = ip("192.0.2.1");
    let passed = |what| {
        (0..10)
            .filter(|_| now(limits.charge(client, what)).is_ok())
            .count()
    };
    assert_eq!((passed(Charge::Message), passed(Charge::Recipient)), (2, 3));
}

#[test]
fn off_means_no_bound() {
    let limits = limits(|settings| {
        settings.conn_rate = Rate::OFF;
        settings.conn_max = ConnMax::parse("off").unwrap();
    });
    let client = ip("192.0.2.1");
    let permits: Vec<_> = (0..1000).map(|_| limits.admit(client)).collect();
    assert!(permits.iter().all(Result::is_ok));
}

#[test]
fn a_census_counts_what_is_there() {
    let limits = limits(|_| ());
    let _permit = limits.admit(ip("192.0.2.1")).unwrap();
    let census = limits.census();
    assert_eq!((census.buckets, census.networks, census.crowded), (2, 2, 0));
}

#[test]
fn nobody_is_banned_for_what_the_network_around_did() {
    let limits = limits(|settings| {
        settings.conn_rate = rate("1/h burst 1");
        settings.flood_rate = rate("1/h burst 5");
        settings.auth_fail_rate = rate("1/h burst 5");
        settings.offence_rate = rate("1/h burst 5");
    });
    // Each comes once: the /48 is over its rate, none of them is over its own.
    for network in 0..10_000_u128 {
        let base = u128::from("2001:db8:1::1".parse::<std::net::Ipv6Addr>().unwrap());
        let client = std::net::Ipv6Addr::from(base | network << 64).into();
        let _ = limits.admit(client);
        let _ = now(limits.auth_failed(client));
        limits.offended(client);
    }
    assert_eq!(limits.bans().len(), 0);
}

/// What happens to somebody in the same /24 (by its failure or by being
/// refused) after eight neighbours have used up what the /24 may do.
#[test]
fn neighbours_who_fail_to_sign_in_get_nobody_else_banned() {
    let limits = limits(|settings| settings.auth_fail_rate = rate("5/10min"));
    for host in 1..=9 {
        for _ in 0..5 {
            let _ = now(limits.auth_failed(ip(&format!("192.0.2.{host}"))));
        }
    }
    let honest = ip("192.0.2.200");
    let _ = now(limits.auth_failed(honest));
    assert!(
        limits.admit(honest).is_ok(),
        "banned for the first wrong password of its own"
    );
}

#[test]
fn neighbours_who_flood_get_nobody_else_banned() {
    let limits = limits(|settings| {
        settings.conn_rate = rate("1/h burst 1");
        settings.flood_rate = rate("1/h burst 5");
    });
    for host in 1..=50 {
        for _ in 0..10 {
            let _ = limits.admit(ip(&format!("192.0.2.{host}"))).map(drop);
        }
    }
    let honest = ip("192.0.2.200");
    let _ = limits.admit(honest).map(drop);
    let second = limits.admit(honest).map(drop).unwrap_err();
    assert!(
        matches!(second, Finding::Rate { .. }),
        "banned for being refused once: {second:?}"
    );
}

/// Who is over its own limits is refused by them, whatever its neighbours do.
#[test]
fn nobody_is_banned_for_going_on_where_neighbours_leave_no_room() {
    let limits = limits(|settings| {
        settings.conn_rate = rate("20/h");
        settings.conn_max = ConnMax::parse("2").unwrap();
        settings.prefix_factor = Factor::parse("1").unwrap();
        settings.flood_rate = rate("1/h burst 5");
    });
    let in_rate = ip("192.0.2.200");
    for host in 1..=20 {
        let _ = limits.admit(ip(&format!("192.0.2.{host}"))).map(drop);
    }
    for _ in 0..19 {
        let finding = limits.admit(in_rate).map(drop).unwrap_err();
        assert!(matches!(finding, Finding::Rate { .. }), "{finding:?}");
    }
    let _crowd = [1, 2].map(|host| limits.admit(ip(&format!("198.51.100.{host}"))).unwrap());
    let in_crowd = ip("198.51.100.200");
    for _ in 0..18 {
        let finding = limits.admit(in_crowd).map(drop).unwrap_err();
        assert!(matches!(finding, Finding::Crowd { .. }), "{finding:?}");
    }
    assert_eq!(limits.bans().len(), 0);
    // From now on it is over its own.
    for _ in 0..20 {
        let _ = limits.admit(in_crowd).map(drop);
    }
    assert_eq!(limits.bans().len(), 1);
}

#[test]
fn neighbours_who_offend_get_nobody_else_banned() {
    let limits = limits(|settings| settings.offence_rate = rate("10/10min"));
    for host in 1..=9 {
        for _ in 0..10 {
            limits.offended(ip(&format!("192.0.2.{host}")));
        }
    }
    let honest = ip("192.0.2.200");
    limits.offended(honest);
    assert!(limits.admit(honest).is_ok(), "banned for its first offence");
}

#[test]
fn one_spray_of_a_48_does_not_fill_the_table_of_bans() {
    let limits = limits(|settings| settings.limit_memory = LimitMemory(1 << 20));
    for network in 0..4000_u16 {
        let _ = limits
            .admit(ip(&format!("2001:db8:1:{network:x}::1")))
            .map(drop);
    }
    // One connection of each network.
    assert_eq!(limits.bans().len(), 0);
}

/// The same limits after a reload in which these settings changed.
fn renewed(old: &Limits, change: impl FnOnce(&mut Settings)) -> Limits {
    let mut settings = old.settings.clone();
    change(&mut settings);
    let trusted = old.never_banned.clone();
    old.renewed(&settings, &trusted, Mode::Enforce, LogAddresses::Full)
}

#[test]
fn a_reload_keeps_bans_and_goes_on_counting_what_has_not_changed() {
    let old = limits(|settings| {
        settings.conn_rate = rate("1/h burst 2");
        settings.msg_rate = rate("1/h burst 1");
        settings.conn_max = ConnMax::parse("2").unwrap();
    });
    let (client, banned) = (ip("192.0.2.1"), ip("192.0.2.9"));
    let stay = old.admit(client).unwrap();
    assert!(now(old.charge(client, Charge::Message)).is_ok());
    old.ban(banned, BanReason::Flood);

    let new = renewed(&old, |settings| settings.msg_rate = rate("1/h burst 3"));
    assert!(matches!(
        new.admit(banned).map(drop),
        Err(Finding::Banned { .. })
    ));
    assert!(now(new.charge(client, Charge::Message)).is_ok());
    let _second = new.admit(client).unwrap();
    assert!(matches!(
        new.admit(client).map(drop),
        Err(Finding::Rate { .. })
    ));
    // Old sessions are still counted, and count out where they counted in.
    assert_eq!(new.presence.networks(), old.presence.networks());
    drop(stay);
    old.ban(client, BanReason::Offences);
    assert!(matches!(
        new.admit(client).map(drop),
        Err(Finding::Banned { .. })
    ));
}

#[test]
fn bans_that_were_only_tried_do_not_come_into_force() {
    let settings = Settings::default();
    let by =
        |old: &Limits, mode| old.renewed(&settings, &Networks::default(), mode, LogAddresses::Full);
    let banned = ip("192.0.2.9");
    let tried = by(&limits(|_| ()), Mode::Monitor);
    tried.ban(banned, BanReason::Flood);
    assert_eq!(by(&tried, Mode::Monitor).bans().len(), 1);
    let enforced = by(&tried, Mode::Enforce);
    assert!(enforced.admit(banned).is_ok());
    // Nor do their strikes count.
    enforced.ban(banned, BanReason::Flood);
    let (_, ban) = enforced.bans()[0];
    assert_eq!(ban.strikes, 1);
    // Those that were meant stay, and the old limits know of them: who sweeps for one
    // sweeps for all.
    assert_eq!(by(&enforced, Mode::Enforce).bans().len(), 1);
    assert_eq!(tried.bans().len(), 1);
}

#[test]
fn a_reload_changes_no_width_and_no_memory() {
    let old = limits(|_| {});
    let new = renewed(&old, |settings| {
        settings.limit_memory = LimitMemory::parse("1M").unwrap();
        settings.prefix_v4 = PrefixV4::parse("24").unwrap();
        settings.ban_time = Duration::from_secs(5);
    });
    assert_eq!(new.settings.limit_memory, old.settings.limit_memory);
    assert_eq!(new.settings.prefix_v4, old.settings.prefix_v4);
    new.ban(ip("192.0.2.1"), BanReason::Flood);
    let (_, ban) = old.bans()[0];
    assert!(ban.until <= Instant::now() + Duration::from_secs(5));
}
