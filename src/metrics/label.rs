//! The labels: enums whose values are all there are.

use std::fmt::{self, Debug};

use prometheus_client::encoding::{
    EncodeLabelKey, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder,
};

/// A set of labels of which every possible value is known beforehand.
pub trait Labels: Copy + Debug + Send + Sync + 'static {
    /// How many values there are.
    const COUNT: usize;

    /// All values, in the order of their places.
    fn all() -> impl Iterator<Item = Self>;

    /// Its place among them, below `COUNT`.
    fn place(self) -> usize;

    /// Writes keys and values.
    ///
    /// # Errors
    /// The writer's.
    fn encode(self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result;
}

/// Writes one label.
pub(super) fn encode_label(
    encoder: &mut LabelSetEncoder<'_>,
    key: &str,
    value: &str,
) -> fmt::Result {
    let mut label = encoder.encode_label();
    let mut encoder = label.encode_label_key()?;
    EncodeLabelKey::encode(&key, &mut encoder)?;
    let mut encoder = encoder.encode_label_value()?;
    EncodeLabelValue::encode(&value, &mut encoder)?;
    encoder.finish()
}

/// Labels in the form that the encoder wants.
pub(super) struct Set<L>(pub(super) L);

impl<L: Labels> EncodeLabelSet for Set<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl Labels for () {
    const COUNT: usize = 1;

    fn all() -> impl Iterator<Item = Self> {
        std::iter::once(())
    }

    fn place(self) -> usize {
        0
    }

    fn encode(self, _: &mut LabelSetEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<A: Labels, B: Labels> Labels for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn all() -> impl Iterator<Item = Self> {
        A::all().flat_map(|a| B::all().map(move |b| (a, b)))
    }

    fn place(self) -> usize {
        self.0.place() * B::COUNT + self.1.place()
    }

    fn encode(self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)?;
        self.1.encode(encoder)
    }
}

impl<A: Labels, B: Labels, C: Labels> Labels for (A, B, C) {
    const COUNT: usize = A::COUNT * B::COUNT * C::COUNT;

    fn all() -> impl Iterator<Item = Self> {
        A::all().flat_map(|a| <(B, C)>::all().map(move |(b, c)| (a, b, c)))
    }

    fn place(self) -> usize {
        (self.0, (self.1, self.2)).place()
    }

    fn encode(self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        (self.0, (self.1, self.2)).encode(encoder)
    }
}

/// Declares one label: its key, and its values with their names.
macro_rules! labels {
    ($(
        $(#[doc = $doc:literal])+
        $Label:ident: $key:literal { $($(#[doc = $about:literal])+ $Value:ident = $name:literal,)+ }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Label {
            $($(#[doc = $about])+ $Value,)+
        }

        impl $Label {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$Value,)+];

            /// How the value is written.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Value => $name,)+ }
            }
        }

        impl Labels for $Label {
            const COUNT: usize = Self::ALL.len();

            fn all() -> impl Iterator<Item = Self> {
                Self::ALL.iter().copied()
            }

            fn place(self) -> usize {
                self as usize
            }

            fn encode(self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
                encode_label(encoder, $key, self.name())
            }
        }

        impl fmt::Display for $Label {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}

labels! {
    /// On which kind of listener a client came in.
    Listener: "listener" {
        /// `LISTEN`.
        Mx = "mx",
        /// `LISTEN_TLS`.
        Tls = "tls",
        /// `LISTEN_SUBMISSION`.
        Submission = "submission",
    }

    /// What became of a connection.
    Admission: "result" {
        /// A session began.
        Accepted = "accepted",
        /// PROXY header or TLS, where it comes first, failed or took too long.
        FailedHandshake = "failed-handshake",
        /// `SESSIONS_MAX` was reached.
        Busy = "busy",
        /// A limit per client was reached.
        RefusedLimit = "refused-limit",
        /// The client is banned.
        Banned = "banned",
    }

    /// Which end of Portcullis a TLS connection is on.
    Side: "side" {
        /// Towards the client.
        Client = "client",
        /// Towards the backend.
        Backend = "backend",
    }

    /// The version that a TLS handshake agreed on.
    TlsVersion: "version" {
        /// None, for it did not come to its end.
        None = "none",
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }

    /// How something ended that can fail.
    Attempt: "result" {
        /// Well.
        Succeeded = "succeeded",
        /// It failed.
        Failed = "failed",
        /// It took too long, or nobody wanted it any more.
        Abandoned = "abandoned",
    }

    /// Whether a refusal was carried out.
    Mode: "mode" {
        /// `MODE=enforce`.
        Enforced = "enforced",
        /// `MODE=monitor`: it would have been refused.
        Would = "would",
    }

    /// What became of a message.
    Outcome: "outcome" {
        /// The backend took it.
        Delivered = "delivered",
        /// The backend refused it.
        RefusedByBackend = "refused by the backend",
        /// Portcullis refused it.
        Refused = "refused",
        /// It could not be kept for the scanners.
        NoRoom = "no room",
        /// The backend broke off.
        BackendLost = "backend lost",
        /// The client was too slow.
        ClientTooSlow = "client too slow",
        /// The client left.
        ClientGone = "client gone",
    }

    /// What a scanner said of a message.
    ScanResult: "result" {
        /// Nothing against it.
        Clean = "clean",
        /// Malware.
        Infected = "infected",
        /// A spam score, high or low.
        Scored = "scored",
        /// It is to be refused.
        Refuse = "refuse",
        /// It is to be put off.
        Defer = "defer",
        /// It is to be quarantined.
        Quarantine = "quarantine",
        /// It was not looked at.
        Unscanned = "unscanned",
        /// The scanner was down, late, or talked nonsense.
        Failed = "failed",
    }

    /// What came of a question to Redis.
    Question: "result" {
        /// An answer in time.
        Answered = "answered",
        /// No answer in time.
        Late = "late",
        /// An error.
        Failed = "failed",
        /// It was not asked: the circuit breaker is open.
        Skipped = "skipped",
    }

    /// What is read again while running.
    Reload: "what" {
        /// The settings.
        Config = "config",
        /// The certificates.
        Certificates = "certificates",
    }
}
