use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::*;

const FACTOR: NonZeroU32 = NonZeroU32::new(8).unwrap();

fn seats(most: u32) -> Arc<Seats> {
    Seats::new(ConnMax(NonZeroU32::new(most)), FACTOR)
}

/// Guests of a house that has stood for long.
fn guests(count: usize) -> Vec<Place> {
    let house = Places::long_open(100);
    (0..count).map(|_| house.take().unwrap()).collect()
}

/// As if it had been sat there for so long, and waited for ever since.
fn holds_for(place: &Place, held: Duration) {
    let since = place.places().now() - u64::try_from(held.as_millis()).unwrap();
    place.guest().holds_since.store(since, Ordering::Relaxed);
    place.guest().waiting_since.store(since, Ordering::Relaxed);
}

fn is_called(place: &Place) -> bool {
    let mut called = std::pin::pin!(place.called());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    called.as_mut().poll(&mut context).is_ready()
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_than_there_are() {
    let (seats, guests) = (seats(2), guests(3));
    let first = guests[0].sit(&seats, &[]).await.unwrap();
    let _second = guests[1].sit(&seats, &[]).await.unwrap();
    let began = Instant::now();
    assert!(guests[2].sit(&seats, &[]).await.is_none());
    assert_eq!(began.elapsed(), WAIT);
    drop(first);
    assert!(guests[2].sit(&seats, &[]).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_next_one() {
    let (seats, guests) = (seats(1), guests(2));
    let held = guests[0].sit(&seats, &[]).await.unwrap();
    let (seat, ()) = tokio::join!(guests[1].sit(&seats, &[]), async {
        tokio::time::sleep(WAIT / 2).await;
        drop(held);
    });
    assert!(seat.is_some());
    assert_eq!(guests[1].places().standing.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn fewer_are_reached_as_connections_end_and_more_at_once() {
    let (seats, guests) = (seats(4), guests(6));
    let mut held = Vec::new();
    for guest in &guests[..3] {
        held.push(guest.sit(&seats, &[]).await.unwrap());
    }
    let most = |most| ConnMax(NonZeroU32::new(most));
    assert!(Arc::ptr_eq(&seats.resized(most(1)), &seats));
    // Three where one may be.
    for _ in 0..2 {
        held.pop();
        assert!(guests[3].sit(&seats, &[]).await.is_none());
    }
    held.pop();
    held.push(guests[3].sit(&seats, &[]).await.unwrap());
    assert!(guests[4].sit(&seats, &[]).await.is_none());

    let (seat, _) = tokio::join!(guests[4].sit(&seats, &[]), async { seats.resized(most(2)) });
    held.push(seat.expect("who waits gets the new one"));
    // What was too much and is allowed again has not to go first.
    seats.resized(most(1));
    seats.resized(most(3));
    held.push(guests[5].sit(&seats, &[]).await.unwrap());
    assert!(guests[0].sit(&seats, &[]).await.is_none());
    held.pop();
    assert!(guests[0].sit(&seats, &[]).await.is_some());

    let unbounded = seats.resized(ConnMax(None));
    assert!(guests[1].sit(&unbounded, &[]).await.is_some());
    assert!(Arc::ptr_eq(&unbounded.resized(ConnMax(None)), &unbounded));
}

#[tokio::test]
async fn without_a_bound_everybody_sits() {
    let (seats, guests) = (Seats::new(ConnMax(None), FACTOR), guests(50));
    let mut held = Vec::new();
    for guest in &guests {
        held.push(guest.sit(&seats, &[]).await.unwrap());
    }
}

#[tokio::test]
async fn those_leave_that_have_sat_longest_for_nothing() {
    let (seats, guests) = (seats(5), guests(7));
    let mut held = Vec::new();
    for (guest, seconds) in guests.iter().zip([30, 20, 50, 9, 60]) {
        held.push(guest.sit(&seats, &[]).await.unwrap());
        holds_for(guest, Duration::from_secs(seconds));
    }
    // We work for it: it is no idler, whatever it came to before.
    guests[4].works();
    guests[5].waits();
    let house = guests[0].places();
    assert_eq!(house.free_seats(), 0, "nobody waits for one");

    let waiting = [Standing::begin(house), Standing::begin(house)];
    assert_eq!(house.free_seats(), 2);
    let called: Vec<_> = guests.iter().map(is_called).collect();
    assert_eq!(called, [true, false, true, false, false, false, false]);

    // Whoever gets something done begins anew.
    guests[2].done();
    guests[0].done();
    assert_eq!(house.free_seats(), 1);
    assert!(is_called(&guests[1]));
    drop(waiting);
    assert_eq!(house.free_seats(), 0);
}

#[tokio::test]
async fn nobody_leaves_because_the_server_is_slow_or_a_call_is_past() {
    let (seats, guests) = (seats(1), guests(2));
    let _held = guests[0].sit(&seats, &[]).await.unwrap();
    holds_for(&guests[0], Duration::from_secs(60));
    let house = guests[0].places();
    let waiting = Standing::begin(house);
    assert_eq!(house.free_seats(), 1);
    // The command comes at the same moment.
    guests[0].works();
    guests[0].done();
    guests[0].waits();
    assert!(!is_called(&guests[0]));

    holds_for(&guests[0], Duration::from_secs(60));
    guests[0].waits();
    assert_eq!(house.free_seats(), 0, "it has only just begun to wait");
    drop(waiting);
}

#[tokio::test]
async fn a_late_goodbye_does_not_hide_the_next_connection() {
    let (seats, guests) = (seats(2), guests(1));
    let first = guests[0].sit(&seats, &[]).await.unwrap();
    let second = guests[0].sit(&seats, &[]).await.unwrap();
    let holds = || guests[0].guest().holds_since.load(Ordering::Relaxed) != 0;
    drop(first);
    assert!(holds());
    drop(second);
    assert!(!holds());
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Asks for one in a task of its own; it has asked when this returns. Those that are
/// served say their names, and hold it until they are told.
async fn queue_up(
    seats: &Arc<Seats>,
    place: Place,
    of: Vec<IpNet>,
    name: &'static str,
    served: &mpsc::UnboundedSender<(&'static str, Seat)>,
) -> JoinHandle<()> {
    let (seats, served) = (Arc::clone(seats), served.clone());
    let task = tokio::spawn(async move {
        if let Some(seat) = place.sit(&seats, &of).await {
            served.send((name, seat)).unwrap();
        }
    });
    tokio::task::yield_now().await;
    task
}

#[tokio::test(start_paused = true)]
async fn whose_network_has_the_fewest_is_next_and_then_who_came_first() {
    let (seats, mut guests) = (seats(3), guests(9));
    let (sender, mut served) = mpsc::unbounded_channel();
    let greedy = networks(&["192.0.2.1/32", "192.0.2.0/24"]);
    let of = |text: &str| networks(&[text]);
    let mut held = Vec::new();
    for _ in 0..3 {
        let place = guests.pop().unwrap();
        held.push((place.sit(&seats, &greedy).await.unwrap(), place));
    }
    let mut tasks = Vec::new();
    for (networks, name) in [
        (greedy.clone(), "greedy"),
        (greedy.clone(), "greedier"),
        (of("198.51.100.1/32"), "first"),
        (of("198.51.100.1/32"), "its second"),
        (of("203.0.113.1/32"), "second"),
        (of("198.51.100.1/32"), "gone"),
    ] {
        let place = guests.pop().unwrap();
        tasks.push(queue_up(&seats, place, networks, name, &sender).await);
    }
    tasks.pop().unwrap().abort();
    tokio::task::yield_now().await;
    held.pop();
    for expected in ["first", "second", "its second", "greedy", "greedier"] {
        // Each gives back what it got when it has been looked at.
        let (name, _seat) = served.recv().await.unwrap();
        assert_eq!(name, expected);
    }
    drop((held, sender));
    assert!(served.recv().await.is_none(), "who has gone gets none");
}

#[tokio::test(start_paused = true)]
async fn a_wider_network_may_have_more_than_a_client() {
    let (seats, mut guests) = (seats(17), guests(24));
    let (sender, mut served) = mpsc::unbounded_channel();
    let mut held = Vec::new();
    // Sixteen clients of a network weigh as two connections of one.
    for host in 1..=16 {
        let place = guests.pop().unwrap();
        let own = format!("192.0.2.{host}/32");
        let networks = networks(&[&own, "192.0.2.0/24"]);
        held.push(place.sit(&seats, &networks).await.unwrap());
    }
    let other = networks(&["198.51.100.1/32", "198.51.100.0/24"]);
    held.push(guests.pop().unwrap().sit(&seats, &other).await.unwrap());
    for (own, wider, name) in [
        ("192.0.2.99/32", "192.0.2.0/24", "of the crowd"),
        ("198.51.100.1/32", "198.51.100.0/24", "twice"),
        ("203.0.113.1/32", "203.0.113.0/24", "once"),
    ] {
        let place = guests.pop().unwrap();
        queue_up(&seats, place, networks(&[own, wider]), name, &sender).await;
    }
    // Neither has any, but the network around the first has.
    for (own, wider, name) in [
        ("198.51.100.2/32", "198.51.100.0/24", "beside twice"),
        ("203.0.114.1/32", "203.0.114.0/24", "late stranger"),
    ] {
        let place = guests.pop().unwrap();
        queue_up(&seats, place, networks(&[own, wider]), name, &sender).await;
    }
    held.pop();
    for expected in [
        "once",
        "late stranger",
        "beside twice",
        "twice",
        "of the crowd",
    ] {
        let (name, _seat) = served.recv().await.unwrap();
        assert_eq!(name, expected);
    }
}

#[tokio::test]
async fn whose_networks_had_many_leave_first() {
    let (seats, guests) = (seats(4), guests(4));
    let mut held = Vec::new();
    for (guest, (of, seconds)) in guests.iter().zip([
        ("198.51.100.1/32", 50),
        ("192.0.2.1/32", 40),
        ("192.0.2.1/32", 30),
        ("192.0.2.1/32", 20),
    ]) {
        held.push(guest.sit(&seats, &networks(&[of])).await.unwrap());
        holds_for(guest, Duration::from_secs(seconds));
    }
    let house = guests[0].places();
    let mut waiting = Vec::new();
    for expected in [
        [false, false, false, true],
        [false, false, true, true],
        [true, false, true, true],
        [true, true, true, true],
    ] {
        waiting.push(Standing::begin(house));
        house.free_seats();
        let called: Vec<_> = guests.iter().map(is_called).collect();
        assert_eq!(called, expected);
    }
}

/// Who sits there for nothing must not hide among strangers.
#[tokio::test]
async fn a_few_of_one_provider_leave_no_sooner_than_a_stranger() {
    let (seats, guests) = (seats(4), guests(4));
    let mut held = Vec::new();
    for (guest, (own, wider, seconds)) in guests.iter().zip([
        ("192.0.2.1/32", "192.0.2.0/24", 20),
        ("192.0.2.2/32", "192.0.2.0/24", 20),
        ("192.0.2.3/32", "192.0.2.0/24", 20),
        ("198.51.100.1/32", "198.51.100.0/24", 60),
    ]) {
        held.push(guest.sit(&seats, &networks(&[own, wider])).await.unwrap());
        holds_for(guest, Duration::from_secs(seconds));
    }
    let house = guests[0].places();
    let _waiting = Standing::begin(house);
    house.free_seats();
    let called: Vec<_> = guests.iter().map(is_called).collect();
    assert_eq!(called, [false, false, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_in_whatever_moment_none_is_lost_and_none_is_too_much() {
    let (seats, house) = (seats(3), Places::long_open(100));
    let here = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for client in 0..40_u64 {
        let (seats, house, here) = (Arc::clone(&seats), Arc::clone(&house), Arc::clone(&here));
        crowd.spawn(async move {
            let networks = networks(&[&format!("192.0.2.{}/32", client % 7)]);
            let place = house.take().unwrap();
            let mut served = 0;
            for round in 0..200 {
                let patience = Duration::from_micros((client * 31 + round * 17) % 300);
                let seat = timeout(patience, place.sit(&seats, &networks)).await;
                if let Ok(Some(_seat)) = seat {
                    assert!(here.fetch_add(1, Ordering::SeqCst) < 3);
                    tokio::task::yield_now().await;
                    here.fetch_sub(1, Ordering::SeqCst);
                    served += 1;
                }
            }
            served
        });
    }
    let served: usize = crowd.join_all().await.into_iter().sum();
    assert!(served > 100, "{served}");
    let guests = guests(4);
    let mut held = Vec::new();
    for guest in &guests[..3] {
        held.push(guest.sit(&seats, &[]).await.unwrap());
    }
    let none = timeout(Duration::from_millis(50), guests[3].sit(&seats, &[])).await;
    assert!(none.is_err());
    assert!(seats.bound.as_ref().unwrap().is_forgotten());
}
