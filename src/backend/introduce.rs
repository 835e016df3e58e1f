//! Tells the backend who the client really is.
//!
//! Every value that goes out is typed and encoded (xtext, no CR LF): a hostile
//! name must not become a command.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reach::Ends;
use crate::settings::Value;
use crate::smtp::ehlo::Keywords;
use crate::smtp::path::{AddressError, HeloName};
use crate::smtp::xtext::{self, XCLIENT_VALUE_MAX};

/// `CLIENT_INFO`: how the backend shall learn of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientInfo {
    /// XCLIENT when the backend offers it with ADDR, else a trace header.
    Auto,
    /// XCLIENT or nothing goes through.
    Xclient,
    /// A PROXY header, version 1.
    ProxyV1,
    /// A PROXY header, version 2.
    ProxyV2,
    /// A Received header field (RFC 5321 4.4).
    Received,
    /// Not at all.
    None,
}

impl Value for ClientInfo {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "xclient" => Ok(Self::Xclient),
            "proxy-v1" => Ok(Self::ProxyV1),
            "proxy-v2" => Ok(Self::ProxyV2),
            "received" => Ok(Self::Received),
            "none" => Ok(Self::None),
            "transparent" => Err("transparent is not available in this version".to_owned()),
            _ => Err("must be auto, xclient, proxy-v1, proxy-v2, received or none".to_owned()),
        }
    }
}

/// How the backend has learnt of the client on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// By XCLIENT.
    Xclient,
    /// By a PROXY header.
    Proxy,
    /// By a trace header that is put before each message.
    Received,
    /// Not at all.
    None,
}

impl ClientInfo {
    /// What is used with a backend that offers `keywords`; `None` when it
    /// cannot be done as demanded.
    pub fn choose(self, keywords: &Keywords) -> Option<Introduction> {
        // Without ADDR nobody would learn who it is, and nobody add a trace header.
        let attributes = keywords.xclient_attributes();
        let xclient = attributes.iter().any(|attribute| attribute == "ADDR");
        match self {
            Self::Auto if xclient => Some(Introduction::Xclient),
            Self::Auto | Self::Received => Some(Introduction::Received),
            Self::Xclient => xclient.then_some(Introduction::Xclient),
            Self::ProxyV1 | Self::ProxyV2 => Some(Introduction::Proxy),
            Self::None => Some(Introduction::None),
        }
    }
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xclient => "xclient",
            Self::Proxy => "proxy",
            Self::Received => "received",
            Self::None => "none",
        })
    }
}

/// The client, as the backend shall see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its true address, and where it connected to. `None` where a balancer does
    /// not name it: what our address or the balancer's may, it may not.
    pub ends: Option<Ends>,
    /// What it calls itself.
    pub hello: HeloName,
    /// Whether it said EHLO.
    pub protocol: Dialect,
    /// Who signed in on an earlier connection of the same session.
    pub login: Option<String>,
}

/// Somebody whom no server knows: these networks are for examples (RFC 5737).
pub const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4711);

/// [`STRANGER`], and where it connected to.
pub(super) const STRANGERS_ENDS: Ends = (
    STRANGER,
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 25),
);

/// An address literal, since a server may look a name up (RFC 5321 4.1.3).
const HELLO: &str = "[192.0.2.1]";

impl Client {
    /// [`STRANGER`].
    ///
    /// # Errors
    /// None: its name is one.
    pub fn stranger() -> Result<Self, AddressError> {
        Ok(Self {
            ends: Some(STRANGERS_ENDS),
            hello: HeloName::parse(HELLO)?,
            protocol: Dialect::Esmtp,
            login: None,
        })
    }
}

/// HELO or EHLO, in the words of XCLIENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
}

/// What XCLIENT says of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// What they are.
    Address,
    /// That they are not known.
    Unavailable,
}

/// In the place of a value that there is none for.
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// One XCLIENT command: `NAME=value` pairs, all encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xclient(Vec<String>);

/// Postfix takes no more than 512 octets with the CRLF.
const LINE_MAX: usize = 510;

impl Xclient {
    /// The commands that carry all attributes in `listed`; two when one would be
    /// too long. The last one says who the client is: after it Postfix takes no
    /// more from where the client is, and it forgets a login at the next.
    pub fn commands(client: &Client, listed: &[String], naming: Naming) -> Vec<Self> {
        let pairs = |take: fn(&str) -> bool| {
            let taken = listed.iter().filter(|attribute| take(attribute));
            let pair = |attribute: &String| {
                let value = value(client, attribute, naming)?;
                Some(format!("{attribute}={value}"))
            };
            Self(taken.filter_map(pair).collect())
        };
        let whole = pairs(|_| true);
        let mut commands = if whole.len() <= LINE_MAX {
            vec![whole]
        } else {
            vec![pairs(|it| !says_who(it)), pairs(says_who)]
        };
        commands.retain(|command| !command.0.is_empty());
        commands
    }

    fn len(&self) -> usize {
        self.0
            .iter()
            .fold("XCLIENT".len(), |len, pair| len + 1 + pair.len())
    }
}

impl fmt::Display for Xclient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XCLIENT")?;
        self.0.iter().try_for_each(|pair| write!(f, " {pair}"))
    }
}

fn says_who(attribute: &str) -> bool {
    matches!(attribute, "ADDR" | "NAME" | "REVERSE_NAME" | "LOGIN")
}

fn value(client: &Client, attribute: &str, naming: Naming) -> Option<String> {
    match attribute {
        "ADDR" | "DESTADDR" if naming == Naming::Unavailable => Some(UNAVAILABLE.to_owned()),
        // The name of the client is not looked up; without this the backend would keep the proxy's.
        "NAME" | "REVERSE_NAME" => Some(UNAVAILABLE.to_owned()),
        "ADDR" | "PORT" | "DESTADDR" | "DESTPORT" => Some(match (attribute, client.ends) {
            (_, None) => UNAVAILABLE.to_owned(),
            ("ADDR", Some((source, _))) => address(source.ip()),
            ("PORT", Some((source, _))) => source.port().to_string(),
            ("DESTADDR", Some((_, destination))) => address(destination.ip()),
            (_, Some((_, destination))) => destination.port().to_string(),
        }),
        // The EHLO that follows carries it, too.
        "HELO" => Some(xtext::encode(client.hello.as_str()))
            .filter(|name| name.len() <= XCLIENT_VALUE_MAX),
        "PROTO" => Some(match client.protocol {
            Dialect::Smtp => "SMTP".to_owned(),
            Dialect::Esmtp => "ESMTP".to_owned(),
        }),
        "LOGIN" => client.login.as_deref().map(xtext::encode),
        _ => None,
    }
}

/// IPv6 addresses carry a prefix, as in an address literal.
fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPV6:{ip}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, login: Option<&str>) -> Client {
        Client {
            ends: Some((source.parse().unwrap(), "192.0.2.25:25".parse().unwrap())),
            hello: HeloName::parse("mail+x=y.example").unwrap(),
            protocol: Dialect::Esmtp,
            login: login.map(str::to_owned),
        }
    }

    fn listed(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn sends_all_that_the_backend_lists_and_nothing_else() {
        let all = listed("NAME ADDR PROTO HELO PORT LOGIN DESTADDR DESTPORT FUTURE");
        let printed: Vec<_> =
            Xclient::commands(&client("203.0.113.7:4711", None), &all, Naming::Address)
                .iter()
                .map(ToString::to_string)
                .collect();
        assert_eq!(
            printed,
            [
                "XCLIENT NAME=[UNAVAILABLE] ADDR=203.0.113.7 PROTO=ESMTP HELO=mail+2Bx+3Dy.example PORT=4711 DESTADDR=192.0.2.25 DESTPORT=25"
            ]
        );
    }

    #[test]
    fn marks_ipv6_and_unwraps_mapped_ipv4() {
        let one = |source| {
            Xclient::commands(&client(source, None), &listed("ADDR"), Naming::Address)[0]
                .to_string()
        };
        assert_eq!(one("[2001:db8::7]:1"), "XCLIENT ADDR=IPV6:2001:db8::7");
        assert_eq!(one("[::ffff:203.0.113.7]:1"), "XCLIENT ADDR=203.0.113.7");
    }

    /// Without a word on any of them the server would keep the proxy's.
    #[test]
    fn tells_nothing_of_where_a_client_is_that_nobody_names() {
        let unnamed = Client {
            ends: None,
            ..client("203.0.113.7:4711", None)
        };
        let listed = listed("ADDR PORT DESTADDR DESTPORT");
        let commands = Xclient::commands(&unnamed, &listed, Naming::Address);
        let expected: Vec<_> = listed
            .iter()
            .map(|it| format!("{it}=[UNAVAILABLE]"))
            .collect();
        assert_eq!(commands, [Xclient(expected)]);
    }

    #[test]
    fn a_hostile_login_cannot_become_a_command() {
        let commands = Xclient::commands(
            &client("203.0.113.7:1", Some("a\r\nRSET b=c+")),
            &listed("LOGIN"),
            Naming::Address,
        );
        assert_eq!(
            commands[0].to_string(),
            "XCLIENT LOGIN=a+0D+0ARSET+20b+3Dc+2B"
        );
    }

    #[test]
    fn leaves_out_a_name_that_is_too_long_when_encoded() {
        let listed = listed("ADDR HELO");
        let named = |name: &str| {
            let mut client = client("203.0.113.7:1", None);
            client.hello = HeloName::parse(name).unwrap();
            Xclient::commands(&client, &listed, Naming::Address)[0].to_string()
        };
        assert!(named(&"=".repeat(85)).ends_with(&"+3D".repeat(85)));
        assert_eq!(named(&"=".repeat(86)), "XCLIENT ADDR=203.0.113.7");
    }

    #[test]
    fn splits_what_does_not_fit_into_one_command() {
        let mut long = client("203.0.113.7:1", None);
        long.hello = HeloName::parse(&"=".repeat(80)).unwrap();
        long.login = Some("+".repeat(85));
        let listed = listed("NAME ADDR PROTO HELO PORT LOGIN DESTADDR DESTPORT");
        let commands = Xclient::commands(&long, &listed, Naming::Address);
        let printed: Vec<_> = commands.iter().map(ToString::to_string).collect();
        assert!(printed.iter().all(|command| command.len() <= LINE_MAX));
        let (name, login) = ("+3D".repeat(80), "+2B".repeat(85));
        assert_eq!(
            printed,
            [
                format!("XCLIENT PROTO=ESMTP HELO={name} PORT=1 DESTADDR=192.0.2.25 DESTPORT=25"),
                format!("XCLIENT NAME=[UNAVAILABLE] ADDR=203.0.113.7 LOGIN={login}"),
            ]
        );
    }
}
