//! Visitors of all kinds, most of them no good: each comes for one thing, over and over
//! again, and knows how it has to end.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::{Doors, Guest, Portcullis, connect_from, trusting_config};

/// What a visitor comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visit {
    LooksIn,
    WantsToRelay,
    BreaksOffInABody,
    TalksRubbish,
    Smuggles,
    ShakesHands,
    ShakesHandsAgain,
    IsSlow,
    IsBanned,
}

/// How many come for each at one time, and how soon the next ones.
const VISITORS: [(Visit, usize, Duration); 9] = [
    (Visit::LooksIn, 4, Duration::ZERO),
    (Visit::WantsToRelay, 1, Duration::from_millis(20)),
    (Visit::BreaksOffInABody, 1, Duration::from_millis(20)),
    (Visit::TalksRubbish, 1, Duration::from_millis(20)),
    (Visit::Smuggles, 1, Duration::from_millis(50)),
    (Visit::ShakesHands, 1, Duration::from_millis(50)),
    (Visit::ShakesHandsAgain, 1, Duration::from_millis(50)),
    (Visit::IsSlow, 10, Duration::ZERO),
    (Visit::IsBanned, 1, Duration::from_millis(100)),
];

const ENVELOPE: [(&str, &str); 3] = [
    ("MAIL FROM:<ann@sender.test>", "250"),
    ("RCPT TO:<bob@example.org>", "250"),
    ("DATA", "354"),
];

impl Visit {
    /// One visit that ends as it should, or why not.
    async fn pay(self, house: &House) -> io::Result<()> {
        house.begun.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::LooksIn => house.enter().await?.dialogue(&[("QUIT", "221")]).await,
            Self::WantsToRelay => {
                let [mail, rcpt, _] = ENVELOPE;
                let foreign = ("RCPT TO:<eve@elsewhere.test>", "550 5.7.1");
                let lines = [mail, foreign, rcpt, ("RSET", "250"), ("QUIT", "221")];
                house.enter().await?.dialogue(&lines).await
            }
            Self::BreaksOffInABody => {
                let mut guest = house.enter().await?;
                guest.dialogue(&ENVELOPE).await?;
                guest.send(&[b'x'; 20_000]).await
            }
            Self::TalksRubbish => talk_rubbish(house.enter().await?).await.map(drop),
            Self::Smuggles => {
                let mut guest = house.enter().await?;
                guest.dialogue(&ENVELOPE).await?;
                guest
                    .send(b"one\r\n\n.\nMAIL FROM:<two@sender.test>\r\n.\r\n")
                    .await?;
                expect(&guest.reply().await?, "5")
            }
            Self::ShakesHands => {
                let kind = house.shake_hands(Arc::new(trusting_config())).await?;
                expect(&format!("{kind:?}"), "Some(Full")
            }
            Self::ShakesHandsAgain => {
                let kind = house.shake_hands(Arc::clone(&house.returning)).await?;
                expect(&format!("{kind:?}"), "Some(Resumed")
            }
            Self::IsSlow => {
                let mut guest = house.enter().await?;
                expect(&guest.drip(b"NOOP").await, "421 4.4.2")
            }
            Self::IsBanned => {
                // Each comes once, and its neighbours much later: they would be
                // refused for its sake.
                let number = house.abusers.fetch_add(1, Ordering::Relaxed);
                let [.., host, network] = number.to_be_bytes();
                let source = Ipv4Addr::new(127, 66, network, host);
                let (came, mut farewells) = (Instant::now(), Vec::new());
                for _ in 0..3 {
                    let farewell = talk_rubbish(house.enter_from(source).await?).await?;
                    farewells.push((came.elapsed(), farewell));
                }
                match house.enter_from(source).await {
                    Ok(_) => {
                        let after = came.elapsed();
                        let why = format!("{source} was let in after {after:?}: {farewells:?}");
                        Err(io::Error::other(why))
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                    Err(other) => Err(other),
                }
            }
        }
    }
}

/// Goes on until it is shown the door; returns the last it heard.
async fn talk_rubbish<S: AsyncRead + AsyncWrite + Unpin>(
    mut guest: Guest<S>,
) -> io::Result<String> {
    let mut last = String::new();
    for line in [
        "rubbish",
        "MAIL FORM:<a@b.test>",
        "RCPT",
        "\u{80}\u{ff}",
        "nul\0",
    ] {
        guest.send(format!("{line}\r\n").as_bytes()).await?;
        last = guest.reply().await?;
        expect(&last, "5")?;
    }
    loop {
        match guest.ask("more of it").await {
            Ok(heard) => {
                expect(&heard, "5").or_else(|_| expect(&heard, "421"))?;
                last = heard;
            }
            // Nobody answers, and nobody has closed.
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(error),
            Err(_) => return Ok(last),
        }
    }
}

fn expect(heard: &str, begin: &str) -> io::Result<()> {
    if heard.starts_with(begin) {
        return Ok(());
    }
    Err(io::Error::other(heard.to_owned()))
}

/// How the visits of one kind ended.
#[derive(Clone, Debug, Default)]
pub struct Paid {
    pub well: usize,
    pub badly: usize,
    /// The last reason for the latter.
    pub why: String,
}

/// All of them, coming and going until [`Self::finish`].
pub struct Visitors {
    house: Arc<House>,
    thread: std::thread::JoinHandle<()>,
}

impl Visitors {
    /// They come from 127.0.0.1, and from 127.66.0.0/16 to be banned.
    pub fn start(portcullis: &Portcullis) -> Self {
        let kinds = VISITORS.map(|(visit, ..)| (visit, Paid::default()));
        let house = Arc::new(House {
            doors: Doors::from(portcullis),
            returning: Arc::new(trusting_config()),
            closing: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            abusers: AtomicUsize::new(0),
            paid: Mutex::new(BTreeMap::from(kinds)),
        });
        let own = Arc::clone(&house);
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let mut visitors = JoinSet::new();
                for (visit, at_once, pause) in VISITORS {
                    for _ in 0..at_once {
                        visitors.spawn(Arc::clone(&own).receive(visit, pause));
                    }
                }
                visitors.join_all().await;
            });
        });
        Self { house, thread }
    }

    /// Visits so far.
    pub fn visits(&self) -> usize {
        self.house.begun.load(Ordering::Relaxed)
    }

    /// Waits for those who are there.
    pub fn finish(self) -> BTreeMap<Visit, Paid> {
        self.house.closing.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let paid = self.house.paid.lock().unwrap();
        paid.clone()
    }
}

/// Where they come to, and what is known of them.
struct House {
    doors: Doors,
    /// Of a client that comes again.
    returning: Arc<ClientConfig>,
    closing: AtomicBool,
    begun: AtomicUsize,
    abusers: AtomicUsize,
    paid: Mutex<BTreeMap<Visit, Paid>>,
}

impl House {
    async fn enter(&self) -> io::Result<Guest<TcpStream>> {
        self.enter_from(Ipv4Addr::LOCALHOST).await
    }

    async fn enter_from(&self, source: Ipv4Addr) -> io::Result<Guest<TcpStream>> {
        let mut guest = Guest::new(connect_from(source, self.doors.mx).await?);
        expect(&guest.reply().await?, "220")?;
        guest.dialogue(&[("EHLO visitor.test", "250")]).await?;
        Ok(guest)
    }

    async fn shake_hands(&self, config: Arc<ClientConfig>) -> io::Result<Option<HandshakeKind>> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, self.doors.tls).await?;
        let name = ServerName::try_from("mx.portcullis.test").unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let kind = stream.get_ref().1.handshake_kind();
        let mut guest = Guest::new(stream);
        expect(&guest.reply().await?, "220")?;
        guest.dialogue(&[("QUIT", "221")]).await?;
        Ok(kind)
    }

    async fn receive(self: Arc<Self>, visit: Visit, pause: Duration) {
        if visit == Visit::ShakesHandsAgain {
            // Who comes again has been there before.
            drop(self.shake_hands(Arc::clone(&self.returning)).await);
        }
        while !self.closing.load(Ordering::Relaxed) {
            let outcome = visit.pay(&self).await;
            self.write_down(visit, outcome);
            sleep(pause).await;
        }
    }

    fn write_down(&self, visit: Visit, outcome: io::Result<()>) {
        let mut paid = self.paid.lock().unwrap();
        let paid = paid.entry(visit).or_default();
        match outcome {
            Ok(()) => paid.well += 1,
            Err(error) => {
                paid.badly += 1;
                paid.why = error.to_string();
            }
        }
    }
}
