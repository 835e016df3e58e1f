//! What Portcullis and a filter agree on before the first message: the steps
//! that are sent, the answers that are awaited, the macros that are wanted.
//!
//! Must never agree to a change of the envelope: who gets the message was
//! settled with the backend before the filter was asked.

use super::packet::{Answer, Command};

/// The version spoken here; a filter may answer with an older one, down to 2.
const VERSION: u32 = 6;
const OLDEST: u32 = 2;

/// `SMFIF_ADDHDRS`, `SMFIF_CHGBODY`, `SMFIF_CHGHDRS`, `SMFIF_QUARANTINE`,
/// `SMFIF_SETSYMLIST`. Not: `SMFIF_ADDRCPT`, `SMFIF_DELRCPT`, `SMFIF_CHGFROM`,
/// `SMFIF_ADDRCPT_PAR`.
const ACTIONS: u32 = 0x01 | 0x02 | 0x10 | 0x20 | 0x100;

/// `SMFIP_SKIP`: the answer SKIP is understood.
const SKIP: u32 = 0x400;
/// `SMFIP_HDR_LEADSPC`: the space behind the colon is part of a value.
const LEADING_SPACE: u32 = 0x10_0000;

/// Every step may be unwanted and may go unanswered; see [`Step`] for the bits
/// (`SMFIP_NO*`, `SMFIP_NR_*`), and `SMFIP_NOUNKNOWN`, `SMFIP_NR_UNKN` for
/// unknown commands, which are never sent. Not: `SMFIP_RCPT_REJ`, refused
/// recipients are no part of the message.
const PROTOCOL: u32 = 0x01
    | 0x02
    | 0x04
    | 0x08
    | 0x10
    | 0x20
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x1000
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | 0x4_0000
    | 0x8_0000
    | SKIP
    | LEADING_SPACE;

/// Stages at which macros can be asked for.
const STAGES: usize = 7;

/// Most macros sent at one stage; Sendmail sends 50 (`MAXFILTERMACROS`).
const MACROS_MAX: usize = 50;

/// A step of the dialogue about one message, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Helo,
    Mail,
    Rcpt,
    Data,
    Header,
    EndOfHeader,
    Body,
    EndOfBody,
}

impl Step {
    /// `SMFIP_NO*`: the filter does not want it. The end of the body is always sent.
    fn unwanted(self) -> u32 {
        match self {
            Self::Connect => 0x01,
            Self::Helo => 0x02,
            Self::Mail => 0x04,
            Self::Rcpt => 0x08,
            Self::Body => 0x10,
            Self::Header => 0x20,
            Self::EndOfHeader => 0x40,
            Self::Data => 0x200,
            Self::EndOfBody => 0,
        }
    }

    /// `SMFIP_NR_*`: the filter will not answer it.
    fn unanswered(self) -> u32 {
        match self {
            Self::Header => 0x80,
            Self::Connect => 0x1000,
            Self::Helo => 0x2000,
            Self::Mail => 0x4000,
            Self::Rcpt => 0x8000,
            Self::Data => 0x1_0000,
            Self::EndOfHeader => 0x4_0000,
            Self::Body => 0x8_0000,
            Self::EndOfBody => 0,
        }
    }

    /// The oldest version that knows the step.
    fn since(self) -> u32 {
        match self {
            Self::Data => 4,
            _ => OLDEST,
        }
    }

    /// `SMFIM_*`: how a filter calls the step when it asks for macros. There
    /// are none for single fields and pieces of a body.
    fn stage(self) -> Option<u32> {
        match self {
            Self::Connect => Some(0),
            Self::Helo => Some(1),
            Self::Mail => Some(2),
            Self::Rcpt => Some(3),
            Self::Data => Some(4),
            Self::EndOfBody => Some(5),
            Self::EndOfHeader => Some(6),
            Self::Header | Self::Body => None,
        }
    }

    /// The macros sent when the filter asks for none in particular: what
    /// Sendmail and Postfix send, as far as it is known here.
    fn usual_macros(self) -> &'static [&'static str] {
        match self {
            Self::Connect => &[
                "j",
                "_",
                "v",
                "{daemon_name}",
                "{client_addr}",
                "{client_name}",
                "{client_port}",
            ],
            Self::Helo => &["{tls_version}", "{cipher}"],
            Self::Mail => &[
                "i",
                "{auth_type}",
                "{auth_authen}",
                "{mail_addr}",
                "{mail_host}",
            ],
            Self::Rcpt => &["{rcpt_addr}", "{rcpt_host}"],
            // It is sent with MAIL too, but some filters look here only. Before
            // version 6 macros at this step were an error.
            Self::EndOfBody => &["i"],
            Self::Data | Self::Header | Self::EndOfHeader | Self::Body => &[],
        }
    }
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) version: u32,
    protocol: u32,
    symbols: Vec<(u32, String)>,
}

impl Terms {
    /// The offer that opens every dialogue.
    pub(super) fn offer() -> Command<'static> {
        Command::Negotiate {
            version: VERSION,
            actions: ACTIONS,
            protocol: PROTOCOL,
        }
    }

    /// Takes the filter's answer to the offer. Actions beyond the offer are not
    /// agreed to, and no fault either: rspamd names the same ones whatever it is
    /// offered. A filter that cannot do without them hangs up.
    pub(super) fn agree(answer: Answer) -> Result<Self, String> {
        let Answer::Negotiated {
            version,
            protocol,
            mut symbols,
            ..
        } = answer
        else {
            return Err("an answer other than its terms to the negotiation".to_owned());
        };
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(format!("protocol version {version}"));
        }
        symbols.truncate(STAGES);
        Ok(Self {
            version,
            protocol: protocol & PROTOCOL,
            symbols,
        })
    }

    /// Whether the step is to be sent.
    pub(super) fn sends(&self, step: Step) -> bool {
        self.protocol & step.unwanted() == 0 && self.version >= step.since()
    }

    /// Whether the filter answers the step.
    pub(super) fn awaits(&self, step: Step) -> bool {
        self.protocol & step.unanswered() == 0
    }

    /// Whether the space behind the colon is part of a value.
    pub(super) fn has_leading_space(&self) -> bool {
        self.protocol & LEADING_SPACE != 0
    }

    /// The names of the macros that go with the step.
    pub(super) fn macros(&self, step: Step) -> Vec<&str> {
        let asked = self
            .symbols
            .iter()
            .find(|(stage, _)| Some(*stage) == step.stage());
        match asked {
            Some((_, names)) => names.split_ascii_whitespace().take(MACROS_MAX).collect(),
            None if step == Step::EndOfBody && self.version < VERSION => Vec::new(),
            None => step.usual_macros().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
