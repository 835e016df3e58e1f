//! Packets of the milter protocol: four octets of length, one that says what
//! it is, data.
//!
//! No document but the sources of libmilter describes the protocol
//! (`mfdef.h`, `engine.c`, version 6 since Sendmail 8.14). Must never hold
//! more than one packet of a bounded length, and never write a NUL inside a
//! string: it would end the string and begin the next one.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest packet taken from a filter, without the octets of its length. The
/// largest data size that libmilter knows is 1 MiB (`SMFIP_MDS_1M`).
pub const PACKET_MAX: usize = 1024 * 1024 + 1;

/// Most octets of data in a packet to a filter: libmilter hangs up at more
/// unless told otherwise (`MILTER_MAX_DATA_SIZE`).
pub const DATA_MAX: usize = 65_535;

/// What Portcullis says to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `SMFIC_OPTNEG`: what may be asked for.
    Negotiate {
        /// Version of the protocol.
        version: u32,
        /// `SMFIF_*`.
        actions: u32,
        /// `SMFIP_*`.
        protocol: u32,
    },
    /// `SMFIC_MACRO`: facts that go with the command sent next.
    Macros {
        /// The octet of that command.
        before: u8,
        /// Names, longer ones in braces, and values.
        values: &'a [(&'a str, &'a str)],
    },
    /// `SMFIC_CONNECT`: a client connected.
    Connect {
        /// Its name.
        name: &'a str,
        /// Where it came from; `None` if nobody knows.
        address: Option<std::net::SocketAddr>,
    },
    /// `SMFIC_HELO`: it greeted.
    Helo(&'a str),
    /// `SMFIC_MAIL`: the reverse-path in angle brackets.
    Mail(&'a str),
    /// `SMFIC_RCPT`: a forward-path in angle brackets.
    Rcpt(&'a str),
    /// `SMFIC_DATA`: the DATA command.
    Data,
    /// `SMFIC_HEADER`: one header field.
    Header {
        /// What stands before the colon.
        name: &'a [u8],
        /// What stands behind it.
        value: &'a [u8],
    },
    /// `SMFIC_EOH`: the end of the header section.
    EndOfHeader,
    /// `SMFIC_BODY`: a piece of the body.
    Body(&'a [u8]),
    /// `SMFIC_BODYEOB`: the end of the message.
    EndOfBody,
    /// `SMFIC_ABORT`: forget this message.
    Abort,
    /// `SMFIC_QUIT`: goodbye.
    Quit,
}

impl Command<'_> {
    /// The octet that names the command.
    pub fn octet(&self) -> u8 {
        match self {
            Self::Negotiate { .. } => b'O',
            Self::Macros { .. } => b'D',
            Self::Connect { .. } => b'C',
            Self::Helo(_) => b'H',
            Self::Mail(_) => b'M',
            Self::Rcpt(_) => b'R',
            Self::Data => b'T',
            Self::Header { .. } => b'L',
            Self::EndOfHeader => b'N',
            Self::Body(_) => b'B',
            Self::EndOfBody => b'E',
            Self::Abort => b'A',
            Self::Quit => b'Q',
        }
    }

    /// Appends the packet to `out`. What does not fit a packet is cut off.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut data = Data(BytesMut::new());
        match *self {
            Self::Negotiate {
                version,
                actions,
                protocol,
            } => [version, actions, protocol]
                .into_iter()
                .for_each(|number| data.0.put_u32(number)),
            Self::Macros { before, values } => {
                data.0.put_u8(before);
                for (name, value) in values {
                    data.pair(name.as_bytes(), value.as_bytes());
                }
            }
            Self::Connect { name, address } => data.connect(name, address),
            Self::Helo(text) | Self::Mail(text) | Self::Rcpt(text) => data.string(text.as_bytes()),
            Self::Header { name, value } => data.pair(name, value),
            Self::Body(octets) => data
                .0
                .extend_from_slice(octets.get(..DATA_MAX).unwrap_or(octets)),
            Self::Data | Self::EndOfHeader | Self::EndOfBody | Self::Abort | Self::Quit => {}
        }
        let length = u32::try_from(data.0.len() + 1).unwrap_or(u32::MAX);
        out.put_u32(length);
        out.put_u8(self.octet());
        out.extend_from_slice(&data.0);
    }
}

/// The data of a packet under construction, never above [`DATA_MAX`].
struct Data(BytesMut);

impl Data {
    /// As much of the string as there is room for, and the NUL behind it.
    fn string(&mut self, text: &[u8]) {
        let room = DATA_MAX.saturating_sub(self.0.len() + 1);
        let octets = text.iter().take(room);
        self.0
            .extend(octets.map(|octet| if *octet == 0 { b'?' } else { *octet }));
        self.0.put_u8(0);
    }

    /// Two strings; left out if not even the first one has room.
    fn pair(&mut self, first: &[u8], second: &[u8]) {
        if self.0.len() + first.len() + 2 <= DATA_MAX {
            self.string(first);
            self.string(second);
        }
    }

    fn connect(&mut self, name: &str, address: Option<std::net::SocketAddr>) {
        self.string(name.as_bytes());
        let Some(address) = address else {
            return self.0.put_u8(b'U');
        };
        let ip = address.ip().to_canonical();
        self.0.put_u8(if ip.is_ipv4() { b'4' } else { b'6' });
        self.0.put_u16(address.port());
        self.string(ip.to_string().as_bytes());
    }
}

/// What a filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `SMFIC_OPTNEG`: what it wants of what was offered.
    Negotiated {
        /// Version of the protocol.
        version: u32,
        /// `SMFIF_*`.
        actions: u32,
        /// `SMFIP_*`.
        protocol: u32,
        /// Stages (`SMFIM_*`) and the macros wanted there, between spaces.
        symbols: Vec<(u32, String)>,
    },
    /// `SMFIR_CONTINUE`: go on.
    Continue,
    /// `SMFIR_ACCEPT`: nothing more to see.
    Accept,
    /// `SMFIR_REJECT`.
    Reject,
    /// `SMFIR_TEMPFAIL`.
    Tempfail,
    /// `SMFIR_DISCARD`: take it and throw it away.
    Discard,
    /// `SMFIR_REPLYCODE`: refuse with these words.
    ReplyCode(Bytes),
    /// `SMFIR_SHUTDOWN`: end the connection with 421.
    Shutdown,
    /// `SMFIR_CONN_FAIL`: as if the connection had failed.
    ConnectionFailure,
    /// `SMFIR_SKIP`: no more packets of this kind.
    Skip,
    /// `SMFIR_PROGRESS`: still at it.
    Progress,
    /// `SMFIR_QUARANTINE`, with a reason.
    Quarantine(Bytes),
    /// `SMFIR_ADDHEADER`.
    AddHeader {
        /// Before the colon.
        name: Bytes,
        /// Behind it.
        value: Bytes,
    },
    /// `SMFIR_INSHEADER`.
    InsertHeader {
        /// Position among all fields, from 0.
        index: u32,
        /// Before the colon.
        name: Bytes,
        /// Behind it.
        value: Bytes,
    },
    /// `SMFIR_CHGHEADER`.
    ChangeHeader {
        /// Which field of that name, from 1.
        index: u32,
        /// Before the colon.
        name: Bytes,
        /// Behind it; empty deletes the field.
        value: Bytes,
    },
    /// `SMFIR_REPLBODY`: the next piece of the new body.
    ReplaceBody(Bytes),
    /// `SMFIR_ADDRCPT`, `SMFIR_DELRCPT`, `SMFIR_ADDRCPT_PAR`, `SMFIR_CHGFROM`:
    /// the octet that names it.
    ChangeEnvelope(u8),
}

/// Why the octets read are no answer. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A length of 0.
    #[error("empty packet")]
    Empty,
    /// A length above [`PACKET_MAX`].
    #[error("packet of {0} octets")]
    TooLong(u32),
    /// An octet that names no answer.
    #[error("unknown answer {:?}", char::from(*.0))]
    Unknown(u8),
    /// Data that the answer does not have, or not enough of it.
    #[error("malformed data in the answer {:?}", char::from(*.0))]
    Malformed(u8),
}

impl Answer {
    /// Takes one answer off the front of `input`; `None` when octets are missing.
    ///
    /// # Errors
    /// The first offence.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, PacketError> {
        let Some((length, _)) = input.split_first_chunk() else {
            return Ok(None);
        };
        let stated = u32::from_be_bytes(*length);
        let length = match usize::try_from(stated) {
            Ok(0) => return Err(PacketError::Empty),
            Ok(length @ 1..=PACKET_MAX) => length,
            _ => return Err(PacketError::TooLong(stated)),
        };
        if input.len() < 4 + length {
            return Ok(None);
        }
        input.advance(4);
        let mut data = input.split_to(length).freeze();
        let octet = data.get_u8();
        Self::parse(octet, data).map(Some)
    }

    fn parse(octet: u8, mut data: Bytes) -> Result<Self, PacketError> {
        let answer = match octet {
            b'O' => Self::negotiated(&mut data),
            b'c' => Some(Self::Continue),
            b'a' => Some(Self::Accept),
            b'r' => Some(Self::Reject),
            b't' => Some(Self::Tempfail),
            b'd' => Some(Self::Discard),
            b'y' => string(&mut data).map(Self::ReplyCode),
            b'4' => Some(Self::Shutdown),
            b'f' => Some(Self::ConnectionFailure),
            b's' => Some(Self::Skip),
            b'p' => Some(Self::Progress),
            b'q' => string(&mut data).map(Self::Quarantine),
            b'h' => pair(&mut data).map(|(name, value)| Self::AddHeader { name, value }),
            b'i' => indexed(&mut data).map(|(index, name, value)| Self::InsertHeader {
                index,
                name,
                value,
            }),
            b'm' => indexed(&mut data).map(|(index, name, value)| Self::ChangeHeader {
                index,
                name,
                value,
            }),
            b'b' => Some(Self::ReplaceBody(std::mem::take(&mut data))),
            b'+' | b'-' | b'2' | b'e' => {
                data.clear();
                Some(Self::ChangeEnvelope(octet))
            }
            _ => return Err(PacketError::Unknown(octet)),
        };
        answer
            .filter(|_| data.is_empty())
            .ok_or(PacketError::Malformed(octet))
    }

    fn negotiated(data: &mut Bytes) -> Option<Self> {
        let version = data.try_get_u32().ok()?;
        let actions = data.try_get_u32().ok()?;
        let protocol = data.try_get_u32().ok()?;
        let mut symbols = Vec::new();
        while !data.is_empty() {
            let stage = data.try_get_u32().ok()?;
            let names = string(data)?;
            symbols.push((stage, String::from_utf8_lossy(&names).into_owned()));
        }
        Some(Self::Negotiated {
            version,
            actions,
            protocol,
            symbols,
        })
    }
}

/// Octets up to a NUL, which is taken off too.
fn string(data: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(0, data)?;
    let text = data.split_to(end);
    data.advance(1);
    Some(text)
}

fn pair(data: &mut Bytes) -> Option<(Bytes, Bytes)> {
    Some((string(data)?, string(data)?))
}

fn indexed(data: &mut Bytes) -> Option<(u32, Bytes, Bytes)> {
    let index = data.try_get_u32().ok()?;
    let (name, value) = pair(data)?;
    Some((index, name, value))
}

#[cfg(test)]
mod tests;
