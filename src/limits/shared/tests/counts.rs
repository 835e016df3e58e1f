//! Places at once, and how they heal.

use super::*;

/// Heals quickly.
const SHORT: Timing = Timing {
    deadline: Duration::from_secs(2),
    lease: Duration::from_secs(3),
};

#[tokio::test]
async fn a_count_holds_across_instances() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    for instance in [&one, &two, &two] {
        assert_eq!(instance.take("a", 3).await, Some(Ruling::Pass));
    }
    for instance in [&one, &two] {
        let ruling = instance.take("a", 3).await;
        assert_eq!(ruling, Some(Ruling::TooMany { index: 0 }));
        assert_eq!(instance.take("b", 1).await, Some(Ruling::Pass));
        instance.give_back("b");
        eventually("given back", || places_of(&server, "b").is_empty()).await;
    }
    one.give_back("a");
    eventually_takes(&two, "a", 3).await;
    let ruling = one.take("a", 3).await;
    assert_eq!(ruling, Some(Ruling::TooMany { index: 0 }));
}

#[tokio::test]
async fn takes_all_places_or_none() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let count = |key: &str, max| Count {
        key: key.to_owned(),
        max,
    };
    let both = [count("wide", 9), count("narrow", 1)];
    assert_eq!(instance.admit("", &[], &both).await, Some(Ruling::Pass));
    for _ in 0..3 {
        let ruling = instance.admit("", &[], &both).await;
        assert_eq!(ruling, Some(Ruling::TooMany { index: 1 }));
    }
    assert_eq!(places_of(&server, "wide"), [1]);
}

/// Questions overtake each other on their way, and late ones run after all.
#[tokio::test]
async fn of_two_changes_the_later_one_stands() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let count = Count {
        key: "a".to_owned(),
        max: 9,
    };
    let admit = async |count_after, change| {
        let place = Place {
            count: count_after,
            change,
        };
        let ruling = instance.rule("", &[], &[(&count, place)]).await;
        assert_eq!(ruling, Some(Ruling::Pass));
    };
    admit(2, 100).await;
    admit(1, 99).await;
    assert_eq!(places_of(&server, "a"), [2]);
    let publish = |change: u32, places: u32| {
        let mut invocation = PUBLISH.prepare_invoke();
        invocation.key(count_key("a")).arg(instance.instance());
        invocation.arg(60_000).arg(change).arg(places);
        server.ask(|redis| invocation.invoke::<()>(redis));
    };
    publish(98, 0);
    assert_eq!(places_of(&server, "a"), [2]);
    publish(101, 1);
    assert_eq!(places_of(&server, "a"), [1]);
    publish(102, 0);
    assert!(places_of(&server, "a").is_empty());
}

/// A place taken by one that is refused got into what another one wrote.
#[tokio::test]
async fn a_refused_place_is_taken_out_of_what_was_written_meanwhile() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let count = [Count {
        key: "a".to_owned(),
        max: 9,
    }];
    let refused = Taken::new(&instance, &count);
    assert_eq!(instance.take("a", 9).await, Some(Ruling::Pass));
    assert_eq!(places_of(&server, "a"), [2]);
    refused.refused();
    eventually("taken out", || places_of(&server, "a") == [1]).await;
}

#[tokio::test]
async fn a_dead_instance_holds_no_places() {
    let server = Server::start();
    let dead = Instance::connected(&server.url(), SHORT).await;
    let alive = Instance::connected(&server.url(), SHORT).await;
    assert_eq!(dead.take("a", 2).await, Some(Ruling::Pass));
    assert_eq!(dead.take("a", 2).await, Some(Ruling::Pass));
    // A heartbeat holds for longer than the lease.
    tokio::time::sleep(SHORT.lease * 2).await;
    let full = Some(Ruling::TooMany { index: 0 });
    assert_eq!(alive.take("a", 2).await, full);
    drop(dead);
    let died = Instant::now();
    eventually_takes(&alive, "a", 2).await;
    assert!(died.elapsed() < SHORT.lease * 3, "{:?}", died.elapsed());
    assert_eq!(places_of(&server, "a"), [1], "the dead one's field is gone");
}

#[tokio::test]
async fn who_said_farewell_holds_no_places() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    assert_eq!(one.take("a", 1).await, Some(Ruling::Pass));
    assert_eq!(two.take("a", 1).await, Some(Ruling::TooMany { index: 0 }));
    one.alive.abort();
    one.farewell().await;
    assert_eq!(two.take("a", 1).await, Some(Ruling::Pass));
    assert_eq!(one.take("a", 1).await, None);
}

#[tokio::test]
async fn places_return_after_redis_lost_its_memory() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), SHORT).await;
    let two = Instance::connected(&server.url(), SHORT).await;
    assert_eq!(one.take("a", 2).await, Some(Ruling::Pass));
    assert_eq!(one.take("a", 2).await, Some(Ruling::Pass));
    server.command("FLUSHALL");
    eventually("written anew", || places_of(&server, "a") == [2]).await;
    let full = Some(Ruling::TooMany { index: 0 });
    assert_eq!(two.take("a", 2).await, full);
    one.give_back("a");
    one.give_back("a");
    one.give_back("a");
    eventually("given back", || places_of(&server, "a").is_empty()).await;
    assert_eq!(two.take("a", 2).await, Some(Ruling::Pass));
    assert_eq!(two.take("a", 2).await, Some(Ruling::Pass));
    assert_eq!(two.take("a", 2).await, full);
}

#[tokio::test]
async fn counts_who_was_admitted_while_redis_was_away() {
    let mut server = Server::start();
    server.kill();
    let one = Instance::new(&server.url(), SHORT);
    assert_eq!(one.take("a", 2).await, None);
    assert_eq!(one.take("a", 2).await, None);
    assert_eq!(one.take("a", 2).await, None);
    one.give_back("a");
    server.restart();
    let two = Instance::connected(&server.url(), SHORT).await;
    eventually("written", || places_of(&server, "a") == [2]).await;
    let full = Some(Ruling::TooMany { index: 0 });
    assert_eq!(two.take("a", 2).await, full);
    one.give_back("a");
    eventually_takes(&two, "a", 2).await;
}

#[tokio::test]
async fn counts_who_was_admitted_while_the_breaker_was_open() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    while !instance.breaker.is_open() {
        instance.breaker.failed();
    }
    assert_eq!(instance.take("a", 1).await, None);
    eventually("written", || places_of(&server, "a") == [1]).await;
}

/// A session whose count nobody touches outlives the key.
#[tokio::test]
async fn a_held_place_does_not_expire() {
    let timing = Timing {
        lease: Duration::from_millis(90),
        ..SHORT
    };
    let server = Server::start();
    let instance = Instance::connected(&server.url(), timing).await;
    assert_eq!(instance.take("a", 2).await, Some(Ruling::Pass));
    tokio::time::sleep(instance.count_life() + timing.lease * 5).await;
    // It may have missed a beat, have another name now, and stand there twice.
    assert!(places_of(&server, "a").contains(&1));
}

#[tokio::test]
async fn a_dropped_question_gives_its_place_back() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    server.command("CLIENT PAUSE 300 ALL");
    let asked = tokio::time::timeout(Duration::from_millis(50), one.take("a", 1)).await;
    assert!(asked.is_err(), "answered by a paused server: {asked:?}");
    assert_eq!(one.places.keys(), Vec::<String>::new());
    eventually_takes(&two, "a", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_pass_the_maximum_and_leave_nothing_behind() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), PATIENT).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    let mut sessions = tokio::task::JoinSet::new();
    let inside = Arc::new(std::sync::atomic::AtomicI64::new(0));
    for number in 0..64 {
        let shared = Arc::clone(if number % 2 == 0 {
            &one.shared
        } else {
            &two.shared
        });
        let inside = Arc::clone(&inside);
        sessions.spawn(async move {
            let count = [Count {
                key: "a".to_owned(),
                max: 5,
            }];
            for _ in 0..30 {
                match shared.admit("", &[], &count).await {
                    Some(Ruling::Pass) => {
                        let before = inside.fetch_add(1, Ordering::SeqCst);
                        assert!(before < 5, "{before} were inside");
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        shared.leave(&["a".to_owned()]);
                    }
                    Some(Ruling::TooMany { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.unwrap();
    }
    eventually("all given back", || places_of(&server, "a").is_empty()).await;
    assert!(one.places.keys().is_empty() && two.places.keys().is_empty());
}
