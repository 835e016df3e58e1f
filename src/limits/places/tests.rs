//! Who must get up, and when.

use super::*;

fn full_house() -> (Arc<Places>, Vec<Place>) {
    let places = Places::new(10);
    let taken = (0..10).map(|_| places.take().unwrap()).collect();
    (places, taken)
}

/// As if the client had kept us waiting since then.
fn waits_for(place: &Place, waited: Duration) {
    let since = place
        .places
        .now()
        .saturating_sub(u64::try_from(waited.as_millis()).unwrap());
    place.guest.waiting_since.store(since, Ordering::Relaxed);
}

#[test]
fn no_more_places_than_there_are() {
    let (places, mut taken) = full_house();
    assert!(places.take().is_none());
    assert_eq!(places.taken(), 10);
    taken.pop();
    assert!(places.take().is_some());
}

#[test]
fn stress_begins_above_80_per_cent() {
    let (places, mut taken) = full_house();
    assert!(places.stressed());
    taken.truncate(8);
    assert!(!places.stressed());
}

#[test]
fn the_useless_lose_patience_first() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
    for place in &taken {
        place.done();
        waits_for(place, Duration::from_secs(5));
    }
    let useless = house.guests.iter().next().unwrap().key().to_owned();
    house
        .guests
        .get(&useless)
        .unwrap()
        .useful
        .store(false, Ordering::Relaxed);
    assert_eq!(house.look_around(), 1);
    let place = taken
        .iter()
        .find(|place| place.guest.number == useless)
        .unwrap();
    assert!(futures_ready(place.must_leave()));
}

#[test]
fn the_useless_gain_nothing_by_a_command_now_and_then() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
    for place in &taken {
        for _ in 0..20 {
            waits_for(place, Duration::from_millis(600));
            place.works();
        }
        place.waits();
    }
    taken[0].done();
    assert_eq!(house.look_around(), 9);
}

#[test]
fn nobody_keeps_us_waiting_for_ever_in_small_pieces() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..9).map(|_| house.take().unwrap()).collect();
    for place in &taken {
        place.done();
        for _ in 0..4 {
            waits_for(place, Duration::from_secs(8));
            place.works();
        }
        waits_for(place, Duration::from_secs(1));
    }
    taken[0].done();
    assert_eq!(house.look_around(), 8);
}

#[test]
fn nobody_keeps_us_waiting_for_ten_seconds_under_stress() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..9).map(|_| house.take().unwrap()).collect();
    for place in &taken {
        place.done();
        waits_for(place, Duration::from_secs(11));
    }
    taken[0].works();
    assert_eq!(house.look_around(), 8);
}

#[test]
fn a_house_that_closes_calls_everybody_and_sends_nobody_away_at_once() {
    let (house, taken) = full_house();
    assert!(!taken[3].closing() && !futures_ready(taken[3].called()));
    house.close();
    assert!(taken[3].closing() && futures_ready(taken[3].called()));
    assert!(!futures_ready(taken[4].must_leave()));
}

/// As if a body had kept us waiting so long, and then so many octets had come.
fn body_takes(place: &Place, waited: Duration, octets: u64) {
    let meter = place.meter();
    let wait = meter.waits();
    waits_for(place, waited);
    drop(wait);
    meter.came(octets);
}

#[test]
fn under_stress_a_slow_body_uses_up_its_time_and_a_fast_one_does_not() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..9).map(|_| house.take().unwrap()).collect();
    let [done, slow, fast, ..] = &taken[..] else {
        panic!("there are nine");
    };
    done.done();
    for _ in 0..12 {
        body_takes(done, Duration::from_secs(1), 600);
        body_takes(slow, Duration::from_secs(1), 600);
        body_takes(fast, Duration::from_secs(1), BODY_RATE);
    }
    let meters = taken.iter().map(Place::meter).collect::<Vec<_>>();
    let _waits: Vec<_> = meters.iter().map(Meter::waits).collect();
    assert_eq!(house.look_around(), 1);
    assert!(futures_ready(meters[1].must_leave()));
    for _ in 0..30 {
        body_takes(done, Duration::from_secs(1), 600);
    }
    let _wait = meters[0].waits();
    assert_eq!(house.look_around(), 2);
    assert!(futures_ready(meters[0].must_leave()));
}

/// Who comes from afar may lose a packet or two.
#[test]
fn under_stress_a_body_may_pause_and_a_command_may_not() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
    let meter = taken[0].meter();
    let _wait = meter.waits();
    for place in &taken {
        waits_for(place, Duration::from_secs(5));
    }
    assert_eq!(house.look_around(), 9);
    assert!(!futures_ready(meter.must_leave()));
}

#[test]
fn a_body_is_not_cut_for_a_call_that_came_before_it() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..10).map(|_| house.take().unwrap()).collect();
    waits_for(&taken[0], Duration::from_secs(5));
    assert_eq!(house.look_around(), 1);
    taken[0].works();
    let meter = taken[0].meter();
    let _wait = meter.waits();
    assert!(!futures_ready(meter.must_leave()));
}

#[test]
fn without_stress_everybody_may_stay() {
    let house = Places::long_open(10);
    let taken: Vec<_> = (0..8).map(|_| house.take().unwrap()).collect();
    for place in &taken {
        waits_for(place, Duration::from_secs(50));
    }
    assert_eq!(house.look_around(), 0);
}

#[test]
fn patience_shrinks_with_the_places_left() {
    let house = Places::new(100);
    let mut taken: Vec<_> = (0..80).map(|_| house.take().unwrap()).collect();
    assert_eq!(house.patience_with_the_useless(), PATIENCE);
    taken.extend((0..10).map(|_| house.take().unwrap()));
    assert_eq!(
        house.patience_with_the_useless(),
        Duration::from_millis(5500)
    );
    taken.extend((0..10).map(|_| house.take().unwrap()));
    assert_eq!(house.patience_with_the_useless(), SHORTEST_PATIENCE);
}

fn futures_ready(future: impl Future<Output = ()>) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}
