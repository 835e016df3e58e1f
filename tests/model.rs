//! Whole sessions against a model: a client that does anything in any order, a backend
//! in any mood, the real program between them; and what must hold whatever they do.
//!
//! No message is acknowledged that the backend did not acknowledge, none comes to it
//! twice, no yes is invented, and no state leaks across RSET, EHLO, STARTTLS, AUTH or
//! transactions. `MODEL_CASES` sets how many cases each thread tries, `MODEL_SEED`
//! which. A failure prints the shortest list of what client and backend did.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use support::actor::{Actor, Body, Chunk, Command, Group, Letter};
use support::fickle::{Fickle, Mood, Record};
use support::meant::parted;
use support::{Manner, Portcullis, Sham, Smtp, wait_for};

/// Cases of each thread, unless told otherwise.
const CASES: u32 = 250;

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => Just(Command::Ehlo),
        1 => Just(Command::Helo),
        1 => Just(Command::StartTls),
        1 => any::<bool>().prop_map(Command::SignIn),
        3 => parameter().prop_map(Command::Mail),
        4 => Just(Command::Rcpt),
        1 => Just(Command::ForeignRcpt),
        3 => body().prop_map(Command::Data),
        4 => chunk().prop_map(Command::Bdat),
        2 => Just(Command::Rset),
        1 => Just(Command::Noop),
        1 => Just(Command::Quit),
        1 => Just(Command::HangUp),
    ]
}

fn parameter() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "",
        "",
        "",
        "",
        " SIZE=1000",
        " SIZE=999999999",
        " BODY=8BITMIME",
        " RET=HDRS",
        " FOO=bar",
    ])
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        9 => Just(Body::Good),
        1 => Just(Body::Bad),
        1 => Just(Body::HalfThenGone),
        1 => Just(Body::WholeThenGone),
    ]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![
        5 => Just(Chunk::More),
        5 => Just(Chunk::Last),
        1 => Just(Chunk::EmptyLast),
        1 => Just(Chunk::Bad),
        1 => Just(Chunk::HalfThenGone),
        1 => Just(Chunk::LastThenGone),
    ]
}

/// What a client does that wants to get somewhere.
fn transaction() -> impl Strategy<Value = Vec<Group>> {
    let recipient = prop_oneof![9 => Just(Command::Rcpt), 1 => Just(Command::ForeignRcpt)];
    let content = prop_oneof![
        3 => body().prop_map(|body| vec![Command::Data(body)]),
        2 => (vec(Just(Chunk::More), 0..3), chunk()).prop_map(|(mut chunks, end)| {
            chunks.push(end);
            chunks.into_iter().map(Command::Bdat).collect()
        }),
    ];
    let parts = (
        prop::bool::weighted(0.6),
        any::<bool>(),
        parameter(),
        vec(recipient, 1..4),
        content,
    );
    parts.prop_map(|(hello, pipelined, parameter, recipients, content)| {
        let mut commands = vec![Command::Mail(parameter)];
        commands.extend(recipients);
        commands.extend(content);
        let mut groups = if hello {
            vec![vec![Command::Ehlo]]
        } else {
            Vec::new()
        };
        if pipelined {
            groups.push(commands);
        } else {
            groups.extend(commands.into_iter().map(|command| vec![command]));
        }
        groups
    })
}

fn script() -> impl Strategy<Value = Vec<Group>> {
    let scene = prop_oneof![
        3 => command().prop_map(|command| vec![vec![command]]),
        1 => vec(command(), 2..5).prop_map(|group| vec![group]),
        1 => Just(vec![vec![Command::StartTls]]),
        1 => Just(vec![vec![Command::StartTls], vec![Command::Ehlo]]),
        1 => sign_in(),
        4 => transaction(),
    ];
    let begin = prop_oneof![2 => Just(vec![vec![Command::Ehlo]]), 1 => sign_in()];
    (begin, vec(scene, 1..7)).prop_map(|(begin, scenes)| [begin, scenes.concat()].concat())
}

fn sign_in() -> impl Strategy<Value = Vec<Group>> {
    prop::bool::weighted(0.8).prop_map(|knows| {
        let commands = [
            Command::Ehlo,
            Command::StartTls,
            Command::Ehlo,
            Command::SignIn(knows),
        ];
        commands.map(|command| vec![command]).to_vec()
    })
}

fn moods() -> impl Strategy<Value = Vec<Mood>> {
    let refusals = vec![421, 450, 451, 452, 500, 502, 503, 550, 554];
    let mood = prop_oneof![
        180 => Just(Mood::Honest),
        9 => prop::sample::select(refusals).prop_map(Mood::Refuses),
        3 => Just(Mood::Late),
        3 => Just(Mood::Leaves),
        4 => Just(Mood::Closes),
        4 => Just(Mood::AnswersAndCloses),
        4 => Just(Mood::AnswersTwice),
        4 => Just(Mood::Errs),
        3 => Just(Mood::Babbles),
        1 => Just(Mood::Sulks),
    ];
    vec(mood, 0..30)
}

fn greetings() -> impl Strategy<Value = Vec<Mood>> {
    let refusals = vec![421, 450, 500, 554];
    let mood = prop_oneof![
        30 => Just(Mood::Honest),
        3 => prop::sample::select(refusals).prop_map(Mood::Refuses),
        1 => Just(Mood::Late),
        1 => Just(Mood::Leaves),
        1 => Just(Mood::Closes),
        1 => Just(Mood::AnswersAndCloses),
        1 => Just(Mood::AnswersTwice),
        1 => Just(Mood::Errs),
        1 => Just(Mood::Babbles),
    ];
    vec(mood, 0..4)
}

/// What the scanner says of every message of a case.
fn verdict() -> impl Strategy<Value = Manner> {
    prop_oneof![
        8 => Just(Manner::Clean),
        1 => Just(Manner::Late(Duration::from_millis(20))),
        2 => Just(Manner::Says(FOUND)),
    ]
}

const FOUND: &[u8] = b"stream: Model.Test FOUND\0";

/// Who acknowledges DATA by 354.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The backend: bodies are relayed.
    Relayed,
    /// The program: bodies are kept for a scanner.
    Judged,
}

/// What must hold of a client and what the backend knows of it.
fn check(client: &Actor, backend: &Record, way: Way) -> Result<(), TestCaseError> {
    prop_assert!(client.faults.is_empty(), "{:?}", client.faults);
    prop_assert!(
        backend.offences.is_empty(),
        "the backend {:?}",
        backend.offences
    );
    for promise in &client.promised {
        let is_own = way == Way::Judged && promise.starts_with("DATA ");
        let is_next = backend.out_of_step && promise.starts_with("RCPT ");
        let kept = is_own || is_next || backend.promised.contains(promise);
        prop_assert!(kept, "a yes to {promise} that the backend did not give");
    }
    // Between a chunk and its answer there is no 354 to show that they belong together.
    let in_step = |letter: &Letter| !(backend.out_of_step && letter.in_chunks);
    for letter in client.acknowledged.iter().filter(|it| in_step(it)) {
        let at_backend = backend
            .whole
            .iter()
            .filter(|whole| whole.sender == letter.sender);
        let acknowledged = at_backend.filter(|whole| whole.acknowledged).count();
        prop_assert_eq!(acknowledged, 1, "acknowledgements of {:?}", letter);
    }
    for whole in &backend.whole {
        let sent = client
            .ended
            .iter()
            .find(|letter| letter.sender == whole.sender);
        let Some(sent) = sent else {
            return Err(TestCaseError::fail(format!("nobody sent {whole:?}")));
        };
        prop_assert_eq!(&whole.hello, &sent.hello, "the hello of {:?}", whole);
        prop_assert_eq!(&whole.user, &sent.user, "who sent {:?}", whole);
        prop_assert_eq!(&whole.recipients, &sent.recipients, "of {:?}", whole);
        // What is told of the size is ours to change.
        let [told, asked] = [&whole.parameters, &sent.parameters].map(|text| {
            let words = text.split_whitespace();
            words
                .filter(|it| !it.starts_with("SIZE="))
                .collect::<Vec<_>>()
        });
        if whole.plain {
            // Of what it does not offer, this alone may be left out (RFC 3461 4.3).
            prop_assert!(told.is_empty(), "told without an offer: {whole:?}");
            let may_go = asked.iter().all(|word| *word == "RET=HDRS");
            prop_assert!(may_go, "left out of {sent:?}");
        } else {
            prop_assert_eq!(told, asked, "the parameters of {:?}", whole);
        }
        let content = match way {
            Way::Relayed => sent.content.clone(),
            Way::Judged => parted(&sent.content),
        };
        prop_assert!(whole.content == content, "{whole:?} was sent as {sent:?}");
        let times = backend
            .whole
            .iter()
            .filter(|other| other.sender == whole.sender);
        prop_assert_eq!(times.count(), 1, "times that {:?} came", whole);
        // What the backend has taken must not be sent again.
        let refused = client.refused.contains(&whole.sender);
        prop_assert!(
            !(whole.acknowledged && refused && in_step(sent)),
            "refused, but taken: {whole:?}"
        );
    }
    Ok(())
}

/// Tries many cases on one instance of the program before one backend, which offers
/// PIPELINING or not.
fn try_many(way: Way, pipelining: bool, seed: u64) {
    let (backend, clamd) = (Fickle::start(pipelining), Sham::start(Manner::Clean));
    let scanner = clamd.address.to_string();
    let mut settings = vec![
        ("CLIENT_INFO", "none"),
        ("AUTH_FAIL_RATE", "off"),
        ("ERROR_MAX", "1000"),
        ("JUNK_MAX", "1000"),
        ("LISTEN_TLS", "off"),
        ("LISTEN_SUBMISSION", "off"),
        ("LOG_LEVEL", "warn"),
        ("TIMEOUT_BACKEND_REPLY", "1s"),
    ];
    if way == Way::Judged {
        settings.push(("CLAMAV", &scanner));
    }
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let learned = wait_for(Duration::from_secs(20), || {
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let keywords = client.ask("EHLO probe.test", "250");
        keywords.contains("CHUNKING").then_some(())
    });
    learned.expect("the backend's keywords are not known");

    let config = Config {
        cases: number("MODEL_CASES").map_or(CASES, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        // Of a case that nobody answers, each try takes as long as the client waits.
        max_shrink_time: 600_000,
        ..Config::default()
    };
    let (tried, taken) = (Cell::new(0_u32), Cell::new(0));
    let signed = Cell::new(0);
    let cases = (script(), greetings(), moods(), verdict());
    let result = TestRunner::new(config).run(&cases, |(script, greetings, moods, verdict)| {
        tried.set(tried.get() + 1);
        let name = format!("c{}", tried.get());
        clamd.behave(verdict);
        backend.prepare(&name, &greetings, &moods);
        let mut client = Actor::new(portcullis.mx, &name);
        client.play(&script);
        let record = backend.record(&name);
        taken.set(taken.get() + client.acknowledged.len());
        let by_users = client.acknowledged.iter().filter(|it| it.user.is_some());
        signed.set(signed.get() + by_users.count());
        if way == Way::Judged && matches!(verdict, Manner::Says(_)) {
            let passed = client.acknowledged.len() + record.whole.len();
            prop_assert_eq!(passed, 0, "messages that the scanner refused");
        }
        check(&client, &record, way)
    });
    let (tried, taken) = (tried.get(), taken.get());
    let signed = signed.get();
    println!("{way:?}: {tried} cases, {taken} messages acknowledged, {signed} of them of users");
    if let Err(failure) = result {
        panic!("{way:?}, MODEL_SEED={seed}: {failure}");
    }
    assert!(taken as u32 > tried / 10, "hardly anything was taken");
    assert!(signed > 0, "nobody signed in");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// With several threads, as most of the time somebody waits for somebody.
fn try_in_threads(way: Way) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = number("MODEL_SEED").unwrap_or(now.subsec_nanos().into());
    std::thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || try_many(way, number > 0, seed + number));
        }
    });
}

#[test]
fn nothing_is_lost_doubled_invented_or_leaked_where_bodies_are_relayed() {
    try_in_threads(Way::Relayed);
}

#[test]
fn nothing_is_lost_doubled_invented_or_leaked_where_bodies_are_judged() {
    try_in_threads(Way::Judged);
}
