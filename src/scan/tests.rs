//! All scanners at once, against ports on loopback where nobody listens or
//! nobody answers.

use super::*;
use crate::settings::{Positive, Value};
use crate::spool::{Settings as SpoolSettings, Spool};

async fn body(content: &[u8]) -> Body {
    let mut writer = Spool::new(&SpoolSettings::default()).unwrap().begin();
    writer.write(content).await.unwrap();
    writer.finish().await.unwrap()
}

fn message(body: &Body) -> Message<'_> {
    Message {
        client: None,
        hello: "mx.client.test",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "",
        recipients: &[],
        id: "ID",
        hostname: "mx.our.test",
        trace: b"",
        hop: b"",
        body,
    }
}

/// A port that nobody listens on.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn all_at(address: &str) -> Settings {
    Settings {
        spamassassin: OrOff::parse(address).unwrap(),
        clamav: OrOff::parse(address).unwrap(),
        rspamd: OrOff::parse(&format!("http://{address}")).unwrap(),
        ..Settings::default()
    }
}

const ALL: [Scanner; 3] = [Scanner::Spamassassin, Scanner::Clamav, Scanner::Rspamd];

#[test]
fn nothing_is_enabled_until_it_is_named() {
    assert!(!Scanners::new(&Settings::default()).is_enabled());
    let clamav = OrOff::parse("127.0.0.1:3310").unwrap();
    let settings = Settings {
        clamav,
        ..Settings::default()
    };
    assert!(Scanners::new(&settings).is_enabled());
}

#[tokio::test]
async fn a_session_may_move_between_threads_while_it_scans() {
    let scanners = Scanners::new(&Settings::default());
    let scan = async move {
        let body = body(b"\r\n").await;
        scanners.scan(&message(&body)).await
    };
    assert_eq!(tokio::spawn(scan).await.unwrap().opinions, []);
}

#[tokio::test]
async fn each_scanner_that_is_down_says_so_for_itself() {
    let scanners = Scanners::new(&all_at(&dead()));
    let body = body(b"\r\n").await;
    let said = scanners.scan(&message(&body)).await.opinions;
    let who: Vec<Scanner> = said.iter().map(|opinion| opinion.scanner).collect();
    assert_eq!(who, ALL);
    assert!(said.iter().all(|it| matches!(it.word, Word::Failed(_))));
    let pings = scanners.ping().await;
    assert_eq!(pings.len(), 3);
    assert!(pings.iter().all(|(_, answer)| answer.is_err()));
}

#[tokio::test]
async fn a_message_above_the_limit_is_shown_to_nobody() {
    let scanners = Scanners::new(&Settings {
        scan_max_size: Positive::parse("1K").unwrap(),
        ..all_at(&dead())
    });
    let large = body(&[b'x'; 1043]).await;
    let said = scanners.scan(&message(&large)).await.opinions;
    let expected: Vec<Opinion> = ALL
        .iter()
        .map(|scanner| Opinion::new(*scanner, Word::Unscanned))
        .collect();
    assert_eq!(said, expected);
    // A message of 1024 octets may have grown.
    let fits = body(&[b'x'; 1042]).await;
    let said = scanners.scan(&message(&fits)).await.opinions;
    assert!(said.iter().all(|it| it.word != Word::Unscanned));
}

#[tokio::test]
async fn the_deadline_is_one_for_all() {
    // Connections are accepted by the system and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let scanners = Scanners::new(&Settings {
        scan_timeout: ScanTimeout::parse("500ms").unwrap(),
        rspamd: OrOff::parse(&format!("http://{address}")).unwrap(),
        clamav: OrOff::parse(&dead()).unwrap(),
        ..Settings::default()
    });
    let body = body(b"\r\n").await;
    let start = Instant::now();
    let said = scanners.scan(&message(&body)).await.opinions;
    assert!(start.elapsed() < Duration::from_secs(5));
    let late = Word::Failed("no answer in time".to_owned());
    assert_eq!(said[1], Opinion::new(Scanner::Rspamd, late));
    assert_eq!(said[0].scanner, Scanner::Clamav);
}
