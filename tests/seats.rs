//! Connections to the guarded server run out: who only holds one gives it up, who is
//! at work keeps it, and nobody waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use support::{
    Act, Arrived, Options, Portcullis, Postfix, Scripted, Smtp, heard, letter, wait_for,
};

/// Longer than a client may have to wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Adds recipients for as long as it may; tells what it heard in the end.
fn dawdle(portcullis: &Portcullis, all_there: &Barrier, enough: impl Fn() -> bool) -> String {
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<slow@sender.test>", "250");
    all_there.wait();
    loop {
        let is_last = enough();
        client.say("RCPT TO:<b@example.org>");
        let reply = client.reply();
        if is_last || !reply.starts_with("250") {
            return reply;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn who_holds_one_without_getting_anything_done_gives_it_up_to_who_needs_it() {
    const DAWDLERS: usize = 3;
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("BACKEND_CONN_MAX", "3")]);
    let (all_there, served) = (Barrier::new(DAWDLERS + 1), std::sync::OnceLock::new());
    let message = letter("honest");
    let said: Vec<_> = std::thread::scope(|scope| {
        let slow: Vec<_> = (0..DAWDLERS)
            .map(|_| scope.spawn(|| dawdle(&portcullis, &all_there, || served.get().is_some())))
            .collect();
        all_there.wait();
        let mut client = Smtp::greeted(portcullis.mx);
        client.wait_up_to(PATIENCE);
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        // Before anybody is asked to do without an assertion: they wait for this.
        served.set(()).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        client.ask("QUIT", "221");
        slow.into_iter().map(|slow| slow.join().unwrap()).collect()
    });
    // One connection was wanted, so one client had to leave.
    let left: Vec<_> = said
        .iter()
        .filter(|said| !said.starts_with("250"))
        .collect();
    assert_eq!(left.len(), 1, "{said:?}");
    assert!(left[0].starts_with("421 4.4.2 Too busy"), "{left:?}");
    assert!(Arrived::at(&postfix, message.as_bytes()).added.is_empty());
}

/// Sends a body at this pace until it need not go on, and its end; tells the reply.
fn send_slowly(client: &mut Smtp, block: &[u8], enough: impl Fn() -> bool) -> String {
    client.open_data("a@sender.test", "b@example.org");
    client.wait_up_to(PATIENCE);
    let began = Instant::now();
    while !enough() && began.elapsed() < PATIENCE {
        if client.try_send(block).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = client.try_send(b"\r\n.\r\n");
    client.reply_or_end()
}

#[test]
fn who_is_at_work_keeps_it_and_who_waits_too_long_is_told_to_come_again() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("BACKEND_CONN_MAX", "1")]);
    let mut busy = Smtp::greeted(portcullis.mx);
    let mut waits = Smtp::greeted(portcullis.mx);
    waits.wait_up_to(PATIENCE);
    let began = Instant::now();
    // Some 20 KB/s.
    let block = [b"x".repeat(998).as_slice(), b"\r\n"].concat();
    let (reply, sent) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            waits.say("MAIL FROM:<c@sender.test>");
            waits.reply()
        });
        let sent = send_slowly(&mut busy, &block, || waiting.is_finished());
        (waiting.join().unwrap(), sent)
    });
    assert!(reply.starts_with("451 4.3.2"), "{reply}");
    assert!(reply.contains("BACKEND_CONN_MAX"), "{reply}");
    assert!(began.elapsed() >= Duration::from_secs(10));
    assert!(sent.starts_with("250"), "{sent}");

    busy.ask("QUIT", "221");
    let message = letter("second");
    let reply = waits.deliver("c@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    waits.ask("QUIT", "221");
    assert_eq!(heard(&postfix, ["data", "mail"], 2), [2, 2]);
}

#[test]
fn a_body_that_only_drips_gives_it_up_too() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("BACKEND_CONN_MAX", "1")]);
    let (mut slow, message) = (Smtp::greeted(portcullis.mx), letter("honest"));
    let served = std::sync::OnceLock::new();
    let said = std::thread::scope(|scope| {
        // Some 600 octets a second: enough for DATA_RATE_MIN.
        let block = b"a line of a letter that drips\r\n";
        let dripping = scope.spawn(|| send_slowly(&mut slow, block, || served.get().is_some()));
        std::thread::sleep(Duration::from_secs(1));
        let mut client = Smtp::greeted(portcullis.mx);
        client.wait_up_to(PATIENCE);
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        served.set(()).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
        dripping.join().unwrap()
    });
    assert!(!said.starts_with('2'), "{said}");
    assert!(Arrived::at(&postfix, message.as_bytes()).added.is_empty());
    assert_eq!(
        postfix.messages(0).len(),
        1,
        "the one that dripped is whole"
    );
}

/// A server that has hung up serves nobody by that connection any more.
#[test]
fn who_has_lost_one_needs_not_wait_for_it() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_timeout = 2s",
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, &[("BACKEND_CONN_MAX", "1")]);
    let mut client = Smtp::greeted(portcullis.mx);
    for number in 0..2 {
        let message = letter(&format!("message-{number}"));
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        assert_eq!(portcullis.metric("portcullis_backend_connections"), 1.0);
        // Postfix ends its side with 421 meanwhile.
        std::thread::sleep(Duration::from_secs(4));
    }
    assert_eq!(postfix.messages(2).len(), 2);
}

#[test]
fn who_has_a_connection_that_is_of_no_more_use_does_not_keep_it() {
    let backend = Scripted::start(&[("RSET", &[Act::Say("500 5.5.1 what")])]);
    let portcullis = Portcullis::guarding(backend.address, &[("BACKEND_CONN_MAX", "1")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RSET", "250");
    let held = || portcullis.metric("portcullis_backend_connections");
    let free = wait_for(Duration::from_secs(5), || (held() == 0.0).then_some(()));
    assert!(free.is_some(), "nobody waits, so nobody would take it away");
    client.ask("MAIL FROM:<a@sender.test>", "250");
}

/// However many commands it spreads its waiting over.
#[test]
fn who_never_gets_anything_done_is_gone_by_its_deadline() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("TIMEOUT_COMMAND", "3s")]);
    let mut client = Smtp::greeted(portcullis.mx);
    let began = Instant::now();
    client.ask("MAIL FROM:<slow@sender.test>", "250");
    let reply = loop {
        std::thread::sleep(Duration::from_secs(1));
        if client.try_send(b"NOOP\r\n").is_err() {
            break client.rest();
        }
        let reply = client.reply_or_end();
        if !reply.starts_with("250") {
            break reply;
        }
        assert!(began.elapsed() < PATIENCE, "is still there");
    };
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    assert!(began.elapsed() >= Duration::from_secs(5), "{reply}");

    // Whoever gets something done begins anew.
    let mut client = Smtp::greeted(portcullis.mx);
    for number in 0..8 {
        std::thread::sleep(Duration::from_secs(1));
        let message = letter(&format!("message-{number}"));
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
}

/// What comes between its chunks is no waiting between commands.
#[test]
fn a_message_in_many_chunks_has_the_time_of_its_body() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("TIMEOUT_COMMAND", "2s")]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<a@sender.test>", "250");
    client.ask("RCPT TO:<b@example.org>", "250");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        client.send(b"BDAT 3\r\nx\r\n");
        client.expect("250");
        std::thread::sleep(Duration::from_millis(500));
    }
    client.ask("BDAT 0 LAST", "250");
    assert_eq!(postfix.messages(1).len(), 1);
}

/// The pauses before its replies are ours, and yet it is the client that waits.
#[test]
fn who_asks_for_nothing_but_refusals_gives_it_up_too() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[("BACKEND_CONN_MAX", "1"), ("TARPIT", "1s")]);
    let mut greedy = Smtp::greeted(portcullis.mx);
    greedy.ask("MAIL FROM:<slow@sender.test>", "250");
    // For two minutes and more.
    let asked = "RCPT TO:<x@foreign.test>\r\n".repeat(1500);
    let message = letter("honest");
    std::thread::scope(|scope| {
        // Not all of it is taken, if all is well.
        scope.spawn(|| drop(greedy.try_send(asked.as_bytes())));
        let mut client = Smtp::greeted(portcullis.mx);
        client.wait_up_to(PATIENCE);
        let reply = client.deliver("a@sender.test", "b@example.org", message.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        client.ask("QUIT", "221");
    });
    assert!(Arrived::at(&postfix, message.as_bytes()).added.is_empty());
}

/// By who came first alone, it would wait behind all of them.
#[test]
fn who_has_none_is_served_before_who_has_many_and_wants_more() {
    const GREEDY: usize = 2;
    const MORE: usize = 16;
    let postfix = Postfix::start(Options::default());
    let settings = [
        ("BACKEND_CONN_MAX", "2"),
        ("LIMIT_EXEMPT", ""),
        ("CONN_RATE", "off"),
        ("MSG_RATE", "off"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let from = |network: u8| Smtp::connect_from(Ipv4Addr::new(127, network, 0, 1), portcullis.mx);
    let greeted = |network: u8| {
        let mut client = from(network);
        client.wait_up_to(PATIENCE);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client
    };
    let mut greedy: Vec<_> = (0..GREEDY + MORE).map(|_| greeted(1)).collect();
    let (holding, waiting) = greedy.split_at_mut(GREEDY);
    for client in holding {
        client.ask("MAIL FROM:<greedy@sender.test>", "250");
    }
    for client in waiting.iter_mut() {
        client.say("MAIL FROM:<greedy@sender.test>");
    }
    // So that they are all in the line.
    std::thread::sleep(Duration::from_secs(1));
    let message = letter("honest");
    let reply = greeted(2).deliver("a@sender.test", "b@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let refused = waiting.iter_mut().map(Smtp::reply);
    let refused = refused.filter(|reply| reply.starts_with("451 4.3.2"));
    assert!(refused.count() > MORE / 2, "they had not to wait at all");
    assert!(Arrived::at(&postfix, message.as_bytes()).added.is_empty());
}
