//! Bodies while they are kept: a spool without room, bodies that break rules, a
//! backend that breaks off or refuses, clients that leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{
    Act, Arrived, Manner, Options, Portcullis, Postfix, Running, Scripted, Sham, Smtp, Spamd,
    deliver_in_chunks, dot_stuffed, letter, spam, torture, wait_for, wait_until_held,
};

const SENDER: &str = "a@sender.test";
const RECIPIENT: &str = "b@example.org";

#[track_caller]
fn deliver(client: &mut Smtp, message: &[u8]) -> String {
    client.deliver(SENDER, RECIPIENT, message)
}

#[test]
fn a_full_spool_is_a_452_to_one_client_and_nothing_to_the_next() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let address = sham.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", folder.path().to_str().unwrap()),
        ("SPOOL_MEMORY", "64K"),
        ("SPOOL_BUFFER", "16K"),
        ("SPOOL_DISK", "3M"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    // Two thirds of the disk, by somebody who is not done.
    let mut slow = Smtp::greeted(portcullis.mx);
    slow.open_data(SENDER, "slow@example.org");
    let wire = dot_stuffed(&torture("slow", 2 << 20));
    slow.send(&wire[..wire.len() - 3]);
    wait_until_held(&portcullis, folder.path(), 1);

    let mut client = Smtp::greeted(portcullis.mx);
    for _ in 0..2 {
        let reply = deliver(&mut client, &torture("no-room", 2 << 20));
        assert!(reply.starts_with("452 4.3.1"), "{reply}");
    }
    // There is room for little, and for the one who came first.
    let reply = deliver(&mut client, &torture("little", 300 << 10));
    assert!(reply.starts_with("250"), "{reply}");
    slow.send(b".\r\n");
    slow.expect("250");
    let reply = deliver(&mut client, &torture("room-again", 2 << 20));
    assert!(reply.starts_with("250"), "{reply}");
    wait_until_held(&portcullis, folder.path(), 0);

    let heard = backend.transactions(2).concat();
    assert!(!heard.contains("no-room") && heard.contains("room-again"));
}

/// A disk of 4 MiB, mounted where nobody else sees it, so that it goes with the
/// process that was started there.
const DISK: &str = "JUDGE_TEST_DISK";

#[test]
fn a_full_disk_is_a_452_to_one_client_and_nothing_to_the_next() {
    if let Some(dir) = std::env::var_os(DISK) {
        return fill(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=4m none \"$0\" && exec \"$@\"")
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_full_disk_is_a_452_to_one_client_and_nothing_to_the_next",
        ])
        .env(DISK, dir.path());
    let finished = Running::start(&mut command, b"").finish(Duration::from_secs(90));
    let finished = finished.assert_success();
    assert!(finished.stdout.contains("1 passed"), "{finished:?}");
}

fn fill(dir: &Path) {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let address = sham.address.to_string();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", dir.to_str().unwrap()),
        ("SPOOL_BUFFER", "16K"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut slow = Smtp::greeted(portcullis.mx);
    slow.open_data(SENDER, "slow@example.org");
    let wire = dot_stuffed(&torture("slow", 2 << 20));
    slow.send(&wire[..wire.len() - 3]);
    wait_until_held(&portcullis, dir, 1);
    let mut client = Smtp::greeted(portcullis.mx);
    for size in [6 << 20, 3 << 20] {
        let reply = deliver(&mut client, &torture("no-room", size));
        assert!(reply.starts_with("452 4.3.1"), "{reply}");
    }
    let reply = deliver(&mut client, &torture("little", 1 << 20));
    assert!(reply.starts_with("250"), "{reply}");
    slow.send(b".\r\n");
    slow.expect("250");
    let reply = deliver(&mut client, &torture("room-again", 3 << 20));
    assert!(reply.starts_with("250"), "{reply}");
}

/// It was refused before the backend saw any of it: its connection is as good as new.
#[test]
fn a_body_that_breaks_rules_costs_the_backend_one_rset() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let address = sham.address.to_string();
    let settings = [("CLAMAV", address.as_str()), ("MAX_SIZE", "100K")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let smuggled = "smuggled\n.\r\nMAIL FROM:<x@y.test>\r\n";
    for (name, body, expected) in [
        (
            "bare-lf",
            format!("Subject: bad\r\n\r\n{smuggled}"),
            "554 5.6.0",
        ),
        (
            "bare-cr",
            "Subject: bad\r\n\r\none\rtwo\r\n".to_owned(),
            "554 5.6.0",
        ),
        (
            "nul",
            "Subject: bad\r\n\r\none\0two\r\n".to_owned(),
            "554 5.6.0",
        ),
        (
            "large",
            letter("bad") + &"A long letter\r\n".repeat(8_000),
            "552 5.3.4",
        ),
        ("good", letter("good"), "250"),
    ] {
        let sender = format!("{name}@sender.test");
        client.open_data(&sender, RECIPIENT);
        // As it stands: there is no dot at a line's start but the smuggler's.
        let stuffed = dot_stuffed(body.as_bytes());
        let wire = if name == "bare-lf" {
            [body.as_bytes(), b".\r\n"].concat()
        } else {
            stuffed
        };
        client.send(&wire);
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{name}: {reply}");
    }
    let [heard] = backend.transactions(1).try_into().unwrap();
    let after = |name: &str| {
        let (_, rest) = heard
            .split_once(&format!("MAIL FROM:<{name}@sender.test>"))
            .unwrap();
        rest.lines().skip(1).take(2).collect::<Vec<_>>().join("|")
    };
    for name in ["bare-lf", "bare-cr", "nul", "large"] {
        assert_eq!(after(name), format!("RCPT TO:<{RECIPIENT}>|RSET"));
    }
    assert_eq!(after("good"), format!("RCPT TO:<{RECIPIENT}>|DATA"));
    assert!(!heard.contains("bad") && !heard.contains("smuggled"));
    assert_eq!(sham.begun(), 1);
}

/// While the body comes in, or while it is judged.
#[test]
fn a_backend_that_hangs_up_before_data_is_a_451() {
    let goes = [
        Act::Say("250 2.1.5 fine"),
        Act::Wait(Duration::from_millis(100)),
        Act::Close,
    ];
    let backend = Scripted::start(&[("RCPT TO:<lost@", &goes)]);
    let sham = Sham::start(Manner::Clean);
    let address = sham.address.to_string();
    let portcullis = Portcullis::guarding(backend.address, &[("CLAMAV", &address)]);
    for manner in [Manner::Clean, Manner::Late(Duration::from_millis(700))] {
        let mut client = Smtp::greeted(portcullis.mx);
        sham.behave(manner);
        client.open_data(SENDER, "lost@example.org");
        if let Manner::Clean = manner {
            std::thread::sleep(Duration::from_millis(500));
        }
        client.send(&dot_stuffed(letter("lost").as_bytes()));
        let reply = client.expect("451 4.4.1");
        assert!(reply.contains("not available"), "{reply}");
        // Nor does it spoil the next one.
        let reply = deliver(&mut client, letter("next").as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    // The envelope is told once more where a body passed, and lost again.
    let heard = backend.transactions(6);
    let nexts = heard.iter().filter(|heard| heard.contains("Subject: next"));
    assert_eq!(nexts.count(), 2, "{heard:?}");
    for heard in heard
        .iter()
        .filter(|heard| heard.contains("RCPT TO:<lost@"))
    {
        assert!(!heard.contains("Subject: "), "{heard}");
    }
}

/// The message is judged, and the backend has the last word.
#[test]
fn what_the_backend_says_of_a_judged_message_is_what_the_client_hears() {
    for (place, acts, expected) in [
        (
            "DATA",
            vec![Act::Say("554 5.3.0 not today"), Act::Close],
            "554 5.3.0 not today",
        ),
        (
            ".",
            vec![Act::Say("452 4.2.2 box is full")],
            "452 4.2.2 box is full",
        ),
        (".", vec![Act::Close], "451 4.4.1"),
        ("body", vec![Act::Reset], "451 4.4.1"),
        (
            "body",
            vec![Act::Say("552 5.3.4 no more"), Act::Close],
            "552 5.3.4 no more",
        ),
    ] {
        let backend = Scripted::start(&[(place, &acts)]);
        let sham = Sham::start(Manner::Clean);
        let address = sham.address.to_string();
        let portcullis = Portcullis::guarding(backend.address, &[("CLAMAV", &address)]);
        let mut client = Smtp::greeted(portcullis.mx);
        for _ in 0..2 {
            let reply = deliver(&mut client, &torture("judged", 2 << 20));
            assert!(reply.starts_with(expected), "{place} {acts:?}: {reply}");
        }
        client.ask("QUIT", "221");
        assert_eq!(sham.whole(), 2);
    }
}

#[test]
fn of_a_refused_body_the_backend_hears_not_an_octet() {
    let (backend, spamd) = (Scripted::start(&[]), Spamd::start(&[]));
    let address = spamd.address.to_string();
    let settings = [("SPAMASSASSIN", address.as_str()), ("SCAN_TIMEOUT", "5min")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let reply = deliver(&mut client, spam("refused").as_bytes());
    assert!(reply.starts_with("550"), "{reply}");
    client.ask("QUIT", "221");
    let quit = wait_for(Duration::from_secs(10), || {
        let [heard] = backend.transactions(1).try_into().unwrap();
        heard.ends_with("QUIT\r\n").then_some(heard)
    });
    let heard = quit.unwrap_or_else(|| panic!("{:?}", backend.heard()));
    let (_, heard) = heard.split_once("EHLO client.test\r\n").unwrap();
    assert_eq!(
        heard,
        format!("MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nRSET\r\nQUIT\r\n")
    );
}

/// In the middle of a body or of a scan.
#[test]
fn a_client_that_leaves_takes_its_message_along() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let address = sham.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", folder.path().to_str().unwrap()),
        ("SPOOL_BUFFER", "16K"),
        ("SCAN_TIMEOUT", "5s"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let large = torture("half", 1 << 20);

    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data(SENDER, RECIPIENT);
    client.send(&dot_stuffed(&large)[..900 << 10]);
    wait_until_held(&portcullis, folder.path(), 1);
    drop(client);
    wait_until_held(&portcullis, folder.path(), 0);
    portcullis.log_with("client gone");
    assert_eq!(sham.begun(), 0);

    sham.behave(Manner::Mute);
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data(SENDER, RECIPIENT);
    client.send(&dot_stuffed(&large));
    wait_until_held(&portcullis, folder.path(), 1);
    drop(client);
    wait_until_held(&portcullis, folder.path(), 0);
    portcullis.log_with("no answer in time");

    // It would come again, and then the message would be there twice.
    sham.behave(Manner::Late(Duration::from_secs(3)));
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data(SENDER, RECIPIENT);
    client.send(&dot_stuffed(&large));
    wait_until_held(&portcullis, folder.path(), 1);
    drop(client);
    portcullis.log_with("clamav clean");
    wait_until_held(&portcullis, folder.path(), 0);

    for heard in backend.transactions(3) {
        assert!(!heard.contains("DATA"), "{heard}");
    }
}

#[test]
fn a_client_that_leaves_between_chunks_takes_them_along() {
    let (postfix, sham) = (
        Postfix::start(Options::default()),
        Sham::start(Manner::Clean),
    );
    let address = sham.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", folder.path().to_str().unwrap()),
        ("SPOOL_BUFFER", "16K"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let large = torture("half", 1 << 20);
    for leaving in ["", "RSET", "EHLO again.test", "QUIT"] {
        let mut client = Smtp::greeted(portcullis.mx);
        client.ask(&format!("MAIL FROM:<{SENDER}>"), "250");
        client.ask(&format!("RCPT TO:<{RECIPIENT}>"), "250");
        client.send(format!("BDAT {}\r\n", large.len()).as_bytes());
        client.send(&large);
        client.expect("250");
        wait_until_held(&portcullis, folder.path(), 1);
        if !leaving.is_empty() {
            client.ask(leaving, "2");
        }
        if matches!(leaving, "" | "QUIT") {
            drop(client);
            wait_until_held(&portcullis, folder.path(), 0);
            continue;
        }
        wait_until_held(&portcullis, folder.path(), 0);
        let sent = letter(&format!("behind-{}", &leaving[..4]));
        let reply = deliver_in_chunks(&mut client, SENDER, RECIPIENT, sent.as_bytes(), 64);
        assert!(reply.starts_with("250"), "{leaving}: {reply}");
        Arrived::at(&postfix, sent.as_bytes());
    }
    assert_eq!(postfix.messages(0).len(), 2);
}

/// What was kept of it is gone with the refusal, and what follows is no commands.
#[test]
fn chunks_that_are_refused_are_given_back_and_the_next_message_passes() {
    let (postfix, sham) = (
        Postfix::start(Options::default()),
        Sham::start(Manner::Clean),
    );
    let address = sham.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", folder.path().to_str().unwrap()),
        ("SPOOL_BUFFER", "16K"),
        ("SPOOL_DISK", "120K"),
        ("MAX_SIZE", "200K"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    let good = torture("chunk", 100 << 10);
    let smuggled = [&good[..9 << 10], b"bare\n.\nMAIL FROM:<x@y.test>\r\n"].concat();
    for (second, expected) in [
        (vec![b'x'; 120 << 10], "552 5.3.4"),
        (vec![b'\n'; 10 << 10], "554 5.6.0"),
        (smuggled, "554 5.6.0"),
        (good[..60 << 10].to_vec(), "452 4.3.1"),
    ] {
        client.ask(&format!("MAIL FROM:<{SENDER}>"), "250");
        client.ask(&format!("RCPT TO:<{RECIPIENT}>"), "250");
        // RFC 3030 2: all at once; each chunk is answered.
        let mut wire = Vec::new();
        for (chunk, last) in [(&good, ""), (&second, ""), (&good, " LAST")] {
            wire.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
        }
        wire.extend_from_slice(b"NOOP\r\n");
        client.send(&wire);
        client.expect("250");
        client.expect(expected);
        client.expect(expected);
        client.expect("250 2.0.0 OK");
        wait_until_held(&portcullis, folder.path(), 0);
    }
    // The last chunk may be empty.
    client.ask(&format!("MAIL FROM:<{SENDER}>"), "250");
    client.ask(&format!("RCPT TO:<{RECIPIENT}>"), "250");
    client.send(format!("BDAT {}\r\n", good.len()).as_bytes());
    client.send(&good);
    client.send(b"BDAT 0 LAST\r\n");
    client.expect("250 2.0.0 ");
    client.expect("250 2.0.0 Ok: queued");
    Arrived::at(&postfix, &good);
    assert_eq!(postfix.messages(0).len(), 1);
}

#[test]
fn a_body_that_stalls_or_never_ends_is_cut_off_and_given_back() {
    let (backend, sham) = (Scripted::start(&[]), Sham::start(Manner::Clean));
    let address = sham.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_DIR", folder.path().to_str().unwrap()),
        ("SPOOL_BUFFER", "16K"),
        ("TIMEOUT_DATA", "1s"),
        ("MAX_SIZE", "200K"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for (octets, expected) in [(100 << 10, "421 4.4.2"), (2 << 20, "552 5.3.4")] {
        let mut client = Smtp::greeted(portcullis.mx);
        client.open_data(SENDER, RECIPIENT);
        // The end of it may meet a closed connection.
        let wire = dot_stuffed(&torture("cut-off", octets));
        drop(client.try_send(&wire[..wire.len() - 3]));
        let reply = client.reply_or_end();
        assert!(reply.starts_with(expected), "{octets}: {reply}");
        wait_until_held(&portcullis, folder.path(), 0);
    }
    assert_eq!(sham.begun(), 0);
    assert!(!backend.transactions(2).concat().contains("cut-off"));
}

/// RFC 5321 3.8: whoever is asked to end does not drop a transaction.
#[test]
fn a_message_that_is_being_judged_is_still_delivered_when_the_program_ends() {
    let backend = Scripted::start(&[]);
    let sham = Sham::start(Manner::Late(Duration::from_secs(1)));
    let address = sham.address.to_string();
    let mut portcullis = Portcullis::guarding(backend.address, &[("CLAMAV", &address)]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data(SENDER, RECIPIENT);
    client.send(&dot_stuffed(letter("last").as_bytes()));
    let begun = wait_for(Duration::from_secs(10), || {
        (sham.whole() == 1).then_some(())
    });
    assert!(begun.is_some());
    portcullis.terminate();
    client.expect("250");
    client.expect("421");
    assert_eq!(portcullis.ended(Duration::from_secs(20)), Some(0));
    assert!(backend.transactions(1).concat().contains("Subject: last"));
}
