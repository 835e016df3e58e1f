//! The content scanners: all of them look at a message at once, under one
//! deadline, and each gives an opinion. What becomes of the message is for
//! policy to say; this room never judges and never changes a message.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::policy::content::{Opinion, Scanner, Word};
use crate::smtp::header::GROWTH_MAX;
use crate::spool::{Body, SpoolError};
use crate::tls::TlsDetails;

pub mod address;
pub mod clamav;
pub mod milter;
pub mod spamassassin;

mod breaker;
mod hear;
mod rspamd;
mod service;
mod settings;
mod tally;
#[cfg(test)]
mod tests;

pub use address::ServiceAddress;
pub use clamav::Clamav;
pub use milter::{Milter, MilterAddress};
pub use rspamd::{Rspamd, RspamdAddress};
pub use settings::{MilterList, OrOff, ScanTimeout, Settings};
pub use spamassassin::{Spamassassin, SpamdReport, SpamdUser};

use service::Service;

/// How long a scanner may take to say that it is there.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// A message that is to be judged, with the facts of its envelope.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The client, where known (`None`: a balancer that names nobody).
    pub client: Option<SocketAddr>,
    /// Its HELO or EHLO name.
    pub hello: &'a str,
    /// As in a trace header field: `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPSA`.
    pub protocol: &'a str,
    /// Who signed in, where known.
    pub user: Option<&'a str>,
    /// The client's TLS, if any.
    pub tls: Option<&'a TlsDetails>,
    /// Reverse-path without angle brackets; empty for the null path.
    pub sender: &'a str,
    /// Forward-paths without angle brackets.
    pub recipients: &'a [String],
    /// The id of this message in our log.
    pub id: &'a str,
    /// Our own name.
    pub hostname: &'a str,
    /// The trace header field that will stand before it, CRLF included, or
    /// empty; scanners see it as part of the message.
    pub trace: &'a [u8],
    /// The trace header field for a scanner that learns of the client from the
    /// message only, or that must know mail by its first octets; it is there
    /// whether or not the backend gets one.
    pub hop: &'a [u8],
    /// The decoded content: CRLF lines, no dot-stuffing, no final dot.
    pub body: &'a Body,
}

impl Message<'_> {
    /// Whether the client has signed in, known or not as whom; RFC 3848: the `A` at the
    /// end of ESMTPA and ESMTPSA.
    pub fn is_authenticated(&self) -> bool {
        self.user.is_some() || self.protocol.ends_with('A')
    }
}

/// Why a scanner gave no opinion. Its deadline is its caller's.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It cannot be reached, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It says what its protocol does not allow; what, in a few clean words.
    #[error("{0}")]
    Protocol(String),
    /// It answers that it cannot judge this message; why, in a few clean words.
    #[error("{0}")]
    Reported(String),
    /// The message is too large for it.
    #[error("the message is too large for it")]
    TooLarge,
    /// The body that it puts in the place of the message's own cannot be held.
    #[error("its new body cannot be held: {0}")]
    Spool(SpoolError),
}

/// What all scanners say of one message.
#[derive(Debug)]
pub struct Findings {
    /// At least one opinion of each that was asked.
    pub opinions: Vec<Opinion>,
    /// The body (CRLF lines) that is to be delivered in the place of the
    /// message's own, of the milter that wrote one.
    pub new_body: Option<Body>,
}

/// The scanners that the settings name.
#[derive(Debug)]
pub struct Scanners {
    spamassassin: Option<Service<Spamassassin>>,
    clamav: Option<Service<Clamav>>,
    rspamd: Option<Service<Rspamd>>,
    /// In the order in which they are asked.
    milters: Vec<Service<Milter>>,
    max_size: u64,
    spamassassin_max_size: u64,
    patience: Duration,
}

impl Scanners {
    /// The scanners that `settings` name. Nobody is asked yet.
    pub fn new(settings: &Settings) -> Self {
        let places = usize::from(settings.scan_concurrency.get());
        let patience = settings.scan_timeout.0;
        let spamassassin = settings.spamassassin.0.clone().map(|address| {
            let (user, report) = (
                settings.spamassassin_user.clone(),
                settings.spamassassin_report,
            );
            let client = Spamassassin::new(address, user, report);
            Service::new(Scanner::Spamassassin, client, places, patience)
        });
        let clamav =
            settings.clamav.0.clone().map(|address| {
                Service::new(Scanner::Clamav, Clamav::new(address), places, patience)
            });
        let rspamd = settings.rspamd.0.clone().map(|address| {
            let client = Rspamd::new(address, settings.rspamd_password.clone());
            Service::new(Scanner::Rspamd, client, places, patience)
        });
        let milters = (0..=u8::MAX).zip(settings.milters.0.iter().cloned());
        let milters = milters.map(|(position, address)| {
            let client = Milter::new(address, position);
            Service::new(Scanner::Milter(position), client, places, patience)
        });
        Self {
            spamassassin,
            clamav,
            rspamd,
            milters: milters.collect(),
            max_size: settings.scan_max_size.0.0,
            spamassassin_max_size: settings.spamassassin_max_size.0.0,
            patience,
        }
    }

    /// Whether there is any scanner, so that messages must be spooled.
    pub fn is_enabled(&self) -> bool {
        !self.enabled().is_empty()
    }

    /// Who is asked.
    pub fn enabled(&self) -> Vec<Scanner> {
        let others = [
            self.spamassassin.as_ref().map(Service::scanner),
            self.clamav.as_ref().map(Service::scanner),
            self.rspamd.as_ref().map(Service::scanner),
        ];
        let milters = self.milters.iter().map(Service::scanner);
        others.into_iter().flatten().chain(milters).collect()
    }

    /// What every scanner says of the message, at the latest when `SCAN_TIMEOUT`
    /// is over; a late one has failed. At least one opinion of each, but for
    /// milters behind one that refuses.
    pub async fn scan(&self, message: &Message<'_>) -> Findings {
        // What we have given it ourselves lets no message pass.
        if message.body.len() > self.max_size.saturating_add(GROWTH_MAX) {
            tracing::info!(
                id = message.id,
                size = message.body.len(),
                "message is above SCAN_MAX_SIZE and is not scanned"
            );
            let others = [
                self.spamassassin.as_ref().map(Service::pass_over),
                self.clamav.as_ref().map(Service::pass_over),
                self.rspamd.as_ref().map(Service::pass_over),
            ];
            let milters = self.milters.iter().map(Service::pass_over);
            return Findings {
                opinions: others.into_iter().flatten().chain(milters).collect(),
                new_body: None,
            };
        }
        let deadline = Instant::now() + self.patience;
        let spamassassin = async {
            let service = self.spamassassin.as_ref()?;
            if message.body.len() > self.spamassassin_max_size {
                return Some(vec![service.pass_over()]);
            }
            let scan = async { service.client.scan(message).await.map(|said| vec![said]) };
            Some(service.ask(message.id, deadline, scan).await)
        };
        let clamav = async {
            let service = self.clamav.as_ref()?;
            let scan = async { service.client.scan(message).await.map(|said| vec![said]) };
            Some(service.ask(message.id, deadline, scan).await)
        };
        let rspamd = async {
            let service = self.rspamd.as_ref()?;
            let scan = service.client.scan(message);
            Some(service.ask(message.id, deadline, scan).await)
        };
        let milters = self.ask_milters(message, deadline);
        let (spamassassin, clamav, rspamd, milters) =
            tokio::join!(spamassassin, clamav, rspamd, milters);
        let others = [spamassassin, clamav, rspamd].into_iter().flatten();
        Findings {
            opinions: others.flatten().chain(milters.opinions).collect(),
            new_body: milters.new_body,
        }
    }

    /// Asks the milters one after the other, until one refuses.
    async fn ask_milters(&self, message: &Message<'_>, deadline: Instant) -> Findings {
        let (mut opinions, mut new_body) = (Vec::new(), None);
        for service in &self.milters {
            let scan = async {
                let (opinion, body) = service.client.scan(message).await?;
                // It has not seen the other one, and would undo it.
                if body.is_some() && new_body.is_some() {
                    let what = "would replace the body that another milter has written";
                    return Err(ScanError::Reported(what.to_owned()));
                }
                new_body = body.or(new_body.take());
                Ok(vec![opinion])
            };
            let said = service.ask(message.id, deadline, scan).await;
            let refuses = said.iter().any(|opinion| {
                matches!(
                    opinion.word,
                    Word::Infected(_) | Word::Refuse { .. } | Word::Defer { .. }
                )
            });
            opinions.extend(said);
            if refuses {
                break;
            }
        }
        Findings { opinions, new_body }
    }

    /// Shows in the metrics who is in service.
    pub fn show(&self) {
        self.spamassassin.iter().for_each(Service::show);
        self.clamav.iter().for_each(Service::show);
        self.rspamd.iter().for_each(Service::show);
        self.milters.iter().for_each(Service::show);
    }

    /// Asks every scanner whether it is there: what it says of itself, or why
    /// it does not answer.
    pub async fn ping(&self) -> Vec<(Scanner, Result<String, ScanError>)> {
        let spamassassin = async {
            let service = self.spamassassin.as_ref()?;
            Some((service.scanner(), soon(service.client.ping()).await))
        };
        let clamav = async {
            let service = self.clamav.as_ref()?;
            Some((service.scanner(), soon(service.client.ping()).await))
        };
        let rspamd = async {
            let service = self.rspamd.as_ref()?;
            Some((service.scanner(), soon(service.client.ping()).await))
        };
        let milters = async {
            let mut pings = Vec::new();
            for service in &self.milters {
                pings.push((service.scanner(), soon(service.client.ping()).await));
            }
            pings
        };
        let (spamassassin, clamav, rspamd, milters) =
            tokio::join!(spamassassin, clamav, rspamd, milters);
        let others = [spamassassin, clamav, rspamd].into_iter().flatten();
        others.chain(milters).collect()
    }
}

async fn soon<T>(answer: impl Future<Output = Result<T, ScanError>>) -> Result<T, ScanError> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    timeout(PING_PATIENCE, answer).await.unwrap_or_else(late)
}
