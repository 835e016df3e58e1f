//! What becomes of scanners that are late, broken or over-asked, by a clock
//! that stands still until everybody waits.

use std::time::Duration;

use super::*;
use crate::policy::content::{Change, Place};
use crate::spool::SpoolError;

const SECOND: Duration = Duration::from_secs(1);

fn service(places: usize) -> Service<()> {
    Service::new(Scanner::Clamav, (), places, 60 * SECOND)
}

fn clean() -> Result<Vec<Opinion>, ScanError> {
    Ok(vec![Opinion::new(Scanner::Clamav, Word::Clean)])
}

fn broken() -> Result<Vec<Opinion>, ScanError> {
    Err(ScanError::Protocol("nonsense".to_owned()))
}

/// The words of a service that is asked now and waited for a minute.
async fn ask(
    service: &Service<()>,
    scan: impl Future<Output = Result<Vec<Opinion>, ScanError>>,
) -> Vec<Word> {
    let deadline = Instant::now() + 60 * SECOND;
    let opinions = service.ask("id", deadline, scan).await;
    opinions.into_iter().map(|opinion| opinion.word).collect()
}

fn failed(how: &str) -> Vec<Word> {
    vec![Word::Failed(how.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn a_late_scanner_fails_at_the_deadline() {
    let start = Instant::now();
    let said = ask(&service(1), std::future::pending()).await;
    assert_eq!(said, failed("no answer in time"));
    assert_eq!(start.elapsed(), 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_that_scanner_alone() {
    let service = service(1);
    let scan = async {
        tokio::time::sleep(SECOND).await;
        panic!("a fault of the client");
    };
    assert_eq!(ask(&service, scan).await, failed("its client broke down"));
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn a_scanner_out_of_service_is_not_asked() {
    let service = service(1);
    for _ in 0..3 {
        assert_eq!(ask(&service, async { broken() }).await, failed("nonsense"));
    }
    let never = async { panic!("was asked") };
    assert_eq!(ask(&service, never).await, failed("out of service"));
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn what_it_admits_itself_counts_as_a_failure_too() {
    let service = service(1);
    for _ in 0..3 {
        let opinion = Opinion::new(Scanner::Clamav, Word::Failed("down".to_owned()));
        let said = ask(&service, async { Ok(vec![opinion]) }).await;
        assert_eq!(said, failed("down"));
    }
    assert_eq!(
        ask(&service, async { clean() }).await,
        failed("out of service")
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_it_is_no_failure() {
    let service = service(1);
    for _ in 0..5 {
        let said = ask(&service, async { Err(ScanError::TooLarge) }).await;
        assert_eq!(said, [Word::Unscanned]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_at_once_than_there_are_places() {
    let service = service(2);
    let slow = || async {
        tokio::time::sleep(40 * SECOND).await;
        clean()
    };
    let said = tokio::join!(
        ask(&service, slow()),
        ask(&service, slow()),
        ask(&service, slow()),
        ask(&service, async { clean() })
    );
    let (one, other, third, fourth) = said;
    assert_eq!((one, other), (vec![Word::Clean], vec![Word::Clean]));
    // It had a place after 40 seconds, and 20 were left.
    assert_eq!(third, failed("no answer in time"));
    assert_eq!(fourth, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_place_in_vain_does_not_open_the_breaker() {
    let service = service(1);
    let holder = service.places.acquire().await.unwrap();
    for _ in 0..4 {
        let said = ask(&service, async { clean() }).await;
        assert_eq!(said, failed("no place in time"));
    }
    drop(holder);
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn a_scanner_is_not_blamed_for_time_that_others_took() {
    let service = service(1);
    for _ in 0..4 {
        let never = async { panic!("was asked") };
        let said = service.ask("id", Instant::now(), never).await;
        let late = Word::Failed("no time left for it".to_owned());
        assert_eq!(said, [Opinion::new(Scanner::Clamav, late)]);
    }
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn signs_opinions_and_leaves_out_changes_that_could_not_be_printed() {
    let add = |value: &str| Change::Add {
        place: Place::Last,
        name: "X-Seen".to_owned(),
        value: value.to_owned(),
    };
    let mut opinion = Opinion::new(Scanner::Milter(0), Word::Clean);
    opinion.changes = vec![add("good"), add("evil\r\nX-Spam-Flag: NO")];
    let deadline = Instant::now() + SECOND;
    let said = service(1)
        .ask("id", deadline, async { Ok(vec![opinion]) })
        .await;
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].scanner, Scanner::Clamav);
    assert_eq!(said[0].changes, [add("good")]);
}

/// An archive bomb at which clamd gives up is no reason to leave everybody
/// else's mail unscanned or refused.
#[tokio::test(start_paused = true)]
async fn a_message_that_it_says_it_cannot_judge_does_not_put_it_out_of_service() {
    let service = service(1);
    for _ in 0..4 {
        let gives_up = Err(ScanError::Reported(
            "reports: time limit reached".to_owned(),
        ));
        let said = ask(&service, async { gives_up }).await;
        assert_eq!(said, failed("reports: time limit reached"));
    }
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

#[tokio::test(start_paused = true)]
async fn a_scanner_that_had_less_than_half_of_the_time_is_not_blamed_for_being_late() {
    let service = service(1);
    for _ in 0..4 {
        let deadline = Instant::now() + 29 * SECOND;
        let said = service.ask("id", deadline, std::future::pending()).await;
        let late = Word::Failed("no answer in time".to_owned());
        assert_eq!(said, [Opinion::new(Scanner::Clamav, late)]);
    }
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}

/// spamd that hangs says so of each message when its `--timeout-child` is over.
#[tokio::test(start_paused = true)]
async fn a_scanner_that_takes_half_of_the_time_to_give_up_is_put_out_of_service() {
    let service = service(1);
    for _ in 0..3 {
        let gives_up = async {
            tokio::time::sleep(30 * SECOND).await;
            Err(ScanError::Reported("reports: EX_TIMEOUT".to_owned()))
        };
        let said = ask(&service, gives_up).await;
        assert_eq!(said, failed("reports: EX_TIMEOUT"));
    }
    let never = async { panic!("was asked") };
    assert_eq!(ask(&service, never).await, failed("out of service"));
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_is_not_the_fault_of_a_scanner_however_long_it_took() {
    let service = service(1);
    for _ in 0..4 {
        let no_room = async {
            tokio::time::sleep(30 * SECOND).await;
            Err(ScanError::Spool(SpoolError::Full))
        };
        let how = "its new body cannot be held: no room for the message";
        assert_eq!(ask(&service, no_room).await, failed(how));
    }
    assert_eq!(ask(&service, async { clean() }).await, [Word::Clean]);
}
