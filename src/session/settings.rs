//! The settings that a session obeys.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::settings::{List, Positive, Size, Value, choice, section};
use crate::smtp::command::Verb;
use crate::smtp::dot::BareNewline;

section! {
    /// One client's session.
    pub struct Settings {
        /// On `LISTEN`: refuse MAIL before STARTTLS (`530 5.7.0`).
        tls_require: bool = "false", example "true";
        /// Recipients of one message; also announced (LIMITS RCPTMAX, RFC 9422).
        rcpt_max: NonZeroU32 = "100", example "50";
        /// Protocol errors of one session before `421`.
        error_max: u32 = "10", example "5";
        /// Commands that move no mail (NOOP, RSET, HELO, EHLO, VRFY, EXPN, ETRN, HELP, an empty chunk) between two messages of a session; each one more is an error.
        junk_max: u32 = "30", example "10";
        /// Longest pause before the reply to a client in error. The third error is held up for a quarter of a second, each further one twice as long; beyond fifty refusals in a row, each one for a tenth of a second. `0s` for none.
        tarpit: Duration = "5s", example "0s";
        /// Pause before the greeting; whoever speaks first is refused (`554`).
        greet_delay: Duration = "0s", example "2s";
        /// Message size, but never more than the backend's SIZE, which alone counts when unset; `25M` when there is neither.
        max_size: Option<Positive<Size>>, example "50M";
        /// Longest wait for one whole command line, first byte or last; twice that for all of them between two messages, chunks of one not counted (`TIMEOUT_DATA`); ten seconds when `SESSIONS_MAX` is nearly reached.
        timeout_command: Positive<Duration> = "5min", example "1min";
        /// A whole PROXY header plus a whole TLS handshake.
        timeout_handshake: Positive<Duration> = "30s", example "10s";
        /// Longest pause inside a body, also between its chunks.
        timeout_data: Positive<Duration> = "3min", example "1min";
        /// Slowest accepted body in bytes/s, measured once the grace is over; `0` for no bound. When `SESSIONS_MAX` is nearly reached, bodies below 8 KiB/s are cut too.
        data_rate_min: u64 = "500", example "1000";
        /// How long a body may be slower than `DATA_RATE_MIN`.
        data_rate_grace: Positive<Duration> = "30s", example "1min";
        /// Longest command line in octets, its CRLF included (AUTH lines: 12288, RFC 4954).
        line_max: LineMax = "2048", example "1000";
        /// Longest line of a message in octets, its CRLF included. RFC 5321 4.5.3.1.6 says 1000, yet honest mail breaks it daily; set it for a backend that cannot bear more (CHUNKING is not offered then).
        body_line_max: BodyLineMax = "off", example "1000";
        /// A CR or LF alone in a message: `reject` (`554`, an error for `ERROR_MAX`), or `normalize` to CRLF (CHUNKING is not offered then). The end of the message is CRLF.CRLF only, always.
        bare_newline: BareNewline = "reject", example "normalize";
        /// Verbs passed on although unsafe by default: `VRFY`, `EXPN`, `ETRN`, `HELP`.
        commands_allow: List<AllowedVerb> = "", example "VRFY, ETRN";
    }
}

/// The size when neither `MAX_SIZE` nor the backend gives one, octets.
pub(super) const SIZE_FALLBACK: u64 = 25 * 1024 * 1024;

/// Octets of a command line: RFC 5321 4.5.3.1.4 asks for 512 at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineMax(pub usize);

impl Value for LineMax {
    fn parse(text: &str) -> Result<Self, String> {
        let octets = usize::parse(text)?;
        if (512..=65_536).contains(&octets) {
            Ok(Self(octets))
        } else {
            Err("is not between 512 and 65536".to_owned())
        }
    }
}

/// Octets of a body line, or no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLineMax(pub Option<usize>);

impl Value for BodyLineMax {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        match usize::parse(text)? {
            octets @ 1000.. => Ok(Self(Some(octets))),
            _ => Err("is below 1000, which every server must take (RFC 5321 4.5.3.1.6)".to_owned()),
        }
    }
}

/// A verb that is off unless allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedVerb(pub Verb);

impl Value for AllowedVerb {
    fn parse(text: &str) -> Result<Self, String> {
        let choices = [
            ("VRFY", Verb::Vrfy),
            ("EXPN", Verb::Expn),
            ("ETRN", Verb::Etrn),
            ("HELP", Verb::Help),
        ];
        choice(text, &choices).map(Self)
    }
}

impl Value for BareNewline {
    fn parse(text: &str) -> Result<Self, String> {
        choice(
            text,
            &[("reject", Self::Reject), ("normalize", Self::Normalize)],
        )
    }
}
