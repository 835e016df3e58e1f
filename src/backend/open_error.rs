//! Why a guarded server cannot be used.

use super::Lost;
use crate::smtp::reply::Reply;
use crate::tls::ConnectError;

/// Why a guarded server cannot be used for a client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No server is configured.
    #[error("no server")]
    NoServer,
    /// It cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// No greeting within `TIMEOUT_BACKEND_CONNECT`, or the steps up to a
    /// command took longer than `TIMEOUT_BACKEND_REPLY`.
    #[error("not ready in time")]
    TimedOut,
    /// It broke off while being greeted.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// It turns Portcullis away, before it knows of any client.
    #[error("turned away: {}", .0.text())]
    TurnedAway(Reply),
    /// It hangs up (421) once it knows of the client: for the client's sake or
    /// its own, nobody can tell. Another server may take the client.
    #[error("hangs up on the client: {}", .0.text())]
    Closing(Reply),
    /// It breaks off, or falls silent, once it knows of the client: again nobody can
    /// tell why. It may look up a name, which takes as long as that name's owner likes.
    #[error("breaks off on the client: {0}")]
    BreaksOff(Box<Self>),
    /// It refuses this client.
    #[error("client refused: {}", .0.text())]
    Refused(Reply),
    /// The client has signed in, and it cannot be told.
    #[error("takes no LOGIN by XCLIENT, and the client has signed in")]
    NoLogin,
    /// `BACKEND_TLS` demands encryption and it offers none.
    #[error("offers no STARTTLS, which BACKEND_TLS demands")]
    NoTls,
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(#[from] ConnectError),
    /// It broke off, or fell silent, where TLS was to begin.
    #[error("TLS: breaks off at STARTTLS: {0}")]
    TlsBroke(String),
    /// `CLIENT_INFO=xclient` demands XCLIENT and it offers none that tells addresses.
    #[error("offers no XCLIENT ADDR, which CLIENT_INFO demands")]
    NoXclient,
    /// It does not take what XCLIENT says of this client.
    #[error("XCLIENT fails: {}", .0.text())]
    Xclient(Reply),
}

impl OpenError {
    /// Whether it offers TLS and breaks at it: `opportunistic` then goes without.
    pub(super) fn breaks_at_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsBroke(_))
    }

    /// Whether it may be for this client's sake that the server cannot be used:
    /// then nothing is known of its use to others.
    pub(super) fn may_concern_the_client(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Closing(_) | Self::BreaksOff(_) | Self::Xclient(_)
        )
    }

    /// The same from a server that knows of the client.
    pub(super) fn knowing_the_client(self) -> Self {
        match self {
            Self::TurnedAway(reply) if reply.code() == 421 => Self::Closing(reply),
            Self::Lost(_) | Self::Tls(_) | Self::TlsBroke(_) => Self::BreaksOff(Box::new(self)),
            other => other,
        }
    }

    /// What may be told of it wherever client addresses may not: without the words of a
    /// server that knows the client.
    pub fn without_words(&self) -> String {
        match self {
            Self::Closing(reply) => format!("hangs up on the client: {}", reply.codes()),
            Self::Refused(reply) => format!("client refused: {}", reply.codes()),
            Self::Xclient(reply) => format!("XCLIENT fails: {}", reply.codes()),
            Self::BreaksOff(how) => format!("breaks off on the client: {}", how.without_words()),
            other => other.to_string(),
        }
    }

    /// The words of a server that knows the client.
    pub fn words(&self) -> Option<&Reply> {
        match self {
            Self::Closing(reply) | Self::Refused(reply) | Self::Xclient(reply) => Some(reply),
            Self::BreaksOff(how) => how.words(),
            _ => None,
        }
    }

    /// Whether it took too long.
    pub(super) fn is_late(&self) -> bool {
        match self {
            Self::BreaksOff(how) => how.is_late(),
            other => matches!(other, Self::TimedOut),
        }
    }

    /// Whether it is TLS that stands in the way.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::BreaksOff(how) => how.is_tls(),
            other => matches!(other, Self::NoTls | Self::Tls(_) | Self::TlsBroke(_)),
        }
    }
}
