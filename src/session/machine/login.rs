//! Reads the user's name out of an AUTH exchange, and never anything else.

use crate::smtp::command::{Auth, AuthLine, Base64Text};
use crate::smtp::reply::Reply;
use crate::smtp::xtext::{self, XCLIENT_VALUE_MAX};

/// What is known of who is signing in.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    mechanism: String,
    /// The name in the first thing that the client said; whatever follows is
    /// nearer to a password, even where the first could not be read.
    name: Option<String>,
    /// How many things it has said.
    said: u8,
    rounds: u8,
    /// As failed.
    counted: bool,
}

/// Longer names are not remembered: RFC 4616 bounds them to 255 octets.
const LOGIN_MAX: usize = 255;

impl Guess {
    pub(super) fn new(auth: &Auth) -> Self {
        let guess = Self {
            mechanism: auth.mechanism.as_str().to_owned(),
            name: None,
            said: 0,
            rounds: 0,
            counted: false,
        };
        match &auth.initial {
            Some(initial) => guess.with(initial),
            None => guess,
        }
    }

    /// The same after the client has answered a challenge.
    pub(super) fn after(self, line: &AuthLine) -> Self {
        let guess = Self {
            rounds: self.rounds.saturating_add(1),
            ..self
        };
        match line {
            AuthLine::Response(response) => guess.with(response),
            AuthLine::Cancel => guess,
        }
    }

    /// Who has signed in by what was said. Nobody is known who has said more than
    /// the mechanism has: the backend has ignored something, perhaps the name.
    pub(super) fn login(&self) -> Option<String> {
        let complete = match self.mechanism.as_str() {
            "PLAIN" => self.said == 1,
            "LOGIN" => self.said == 2,
            _ => false,
        };
        self.name.clone().filter(|_| complete)
    }

    /// Whether a backend that can be told who has signed in can be told this.
    pub(super) fn can_be_told(&self) -> bool {
        self.login()
            .is_some_and(|login| xtext::encode(&login).len() <= XCLIENT_VALUE_MAX)
    }

    /// Whether a challenge tells that what was said is wrong: one that holds anything does
    /// behind the token of the OAuth mechanisms (RFC 7628 3.2.2), and SCRAM's where it holds
    /// an error (RFC 5802 7).
    pub(super) fn is_told_of_failure(&self, challenge: &Reply) -> bool {
        let tells = match self.mechanism.as_str() {
            "XOAUTH2" | "OAUTHBEARER" => self.said >= 1 && !challenge.text().is_empty(),
            scram if scram.starts_with("SCRAM-") => {
                match AuthLine::parse(challenge.text().as_bytes()) {
                    Ok(AuthLine::Response(text)) => {
                        text.decode().is_some_and(|text| text.starts_with(b"e="))
                    }
                    Ok(AuthLine::Cancel) | Err(_) => false,
                }
            }
            _ => false,
        };
        tells && !self.counted
    }

    /// The same, counted as failed.
    pub(super) fn counted(self) -> Self {
        Self {
            counted: true,
            ..self
        }
    }

    /// Whether it has been counted as failed.
    pub(super) fn is_counted(&self) -> bool {
        self.counted
    }

    pub(super) fn rounds(&self) -> u8 {
        self.rounds
    }

    /// Takes the name from the first thing that the client says.
    fn with(self, text: &Base64Text) -> Self {
        let said = self.said.saturating_add(1);
        if said > 1 {
            return Self { said, ..self };
        }
        let login = text
            .decode()
            .and_then(|octets| match self.mechanism.as_str() {
                // RFC 4616 2: [authzid] NUL authcid NUL passwd
                // Who acts for another could not be signed in again as either.
                "PLAIN" => {
                    let mut parts = octets.split(|octet| *octet == 0);
                    let acts_for = parts.next().unwrap_or_default();
                    parts
                        .next()
                        .filter(|name| acts_for.is_empty() || acts_for == *name)
                        .map(<[u8]>::to_vec)
                }
                "LOGIN" => Some(octets),
                _ => None,
            });
        let name = login
            .and_then(|octets| String::from_utf8(octets).ok())
            .filter(|name| {
                !name.is_empty() && name.len() <= LOGIN_MAX && !name.contains(char::is_control)
            });
        Self { name, said, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::command::Command;

    fn guess(line: &str) -> Guess {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Auth(auth)) => Guess::new(&auth),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_the_name_from_plain() {
        // NUL user NUL pass
        assert_eq!(
            guess("AUTH PLAIN AHVzZXIAcGFzcw==").login(),
            Some("user".to_owned())
        );
    }

    #[test]
    fn a_name_may_be_too_long_to_be_told() {
        let line = |text: &[u8]| AuthLine::parse(text).unwrap();
        // One octet is three when encoded: 85 plus signs fit.
        for (length, text, fits) in [
            (85, "Kysr".repeat(28) + "Kw==", true),
            (87, "Kysr".repeat(29), false),
        ] {
            let guess = guess("AUTH LOGIN").after(&line(text.as_bytes()));
            let guess = guess.after(&line(b"cGFzcw=="));
            assert_eq!(
                (guess.login(), guess.can_be_told()),
                (Some("+".repeat(length)), fits)
            );
        }
    }

    #[test]
    fn names_nobody_who_acts_for_another() {
        // other NUL user NUL pass
        assert_eq!(guess("AUTH PLAIN b3RoZXIAdXNlcgBwYXNz").login(), None);
    }

    #[test]
    fn reads_the_name_and_never_the_password_from_login() {
        let name = AuthLine::parse(b"dXNlcg==").unwrap();
        let password = AuthLine::parse(b"cGFzcw==").unwrap();
        let guess = guess("AUTH LOGIN").after(&name).after(&password);
        assert_eq!(guess.login(), Some("user".to_owned()));
        assert!(!format!("{guess:?}").contains("pass"));
    }

    #[test]
    fn a_name_that_cannot_be_read_is_never_made_up_for_by_the_password() {
        let password = AuthLine::parse(b"cGFzcw==").unwrap();
        // Latin-1, and nothing at all.
        for first in ["AUTH LOGIN bfxsbGVy", "AUTH LOGIN ="] {
            assert_eq!(guess(first).after(&password).login(), None, "{first}");
        }
    }

    /// A server may ignore the initial response, and then asks for the name anew: the
    /// client must not be remembered as whom it named in vain.
    #[test]
    fn names_nobody_who_says_more_than_the_mechanism_has() {
        let line = |text: &[u8]| AuthLine::parse(text).unwrap();
        let (user, other) = (line(b"dXNlcg=="), line(b"b3RoZXI="));
        let password = line(b"cGFzcw==");
        let initial = guess("AUTH LOGIN dXNlcg==");
        let honest = initial.clone().after(&password);
        assert_eq!(honest.login(), Some("user".to_owned()));
        assert_eq!(initial.after(&other).after(&password).login(), None);
        assert_eq!(guess("AUTH LOGIN").after(&user).login(), None);
        let plain = guess("AUTH PLAIN AHVzZXIAcGFzcw==");
        assert_eq!(plain.after(&line(b"AG90aGVyAHBhc3M=")).login(), None);
        let late = guess("AUTH PLAIN").after(&line(b"AHVzZXIAcGFzcw=="));
        assert_eq!(late.login(), Some("user".to_owned()));
    }

    #[test]
    fn a_challenge_tells_of_failure_behind_a_token_or_by_an_error() {
        let told = |line: &str, challenge: &str| {
            guess(line).is_told_of_failure(&Reply::new(334, None, challenge))
        };
        assert!(!told("AUTH XOAUTH2", ""));
        assert!(told("AUTH XOAUTH2 dXNlcg==", "eyJzdGF0dXMiOiI0MDEifQ=="));
        // A server that has ignored the token asks for it anew.
        assert!(!told("AUTH OAUTHBEARER dXNlcg==", ""));
        assert!(told(
            "AUTH OAUTHBEARER dXNlcg==",
            "eyJzdGF0dXMiOiI0MDEifQ=="
        ));
        // r=… and e=invalid-proof
        assert!(!told("AUTH SCRAM-SHA-256 biwsbj11", "cj1hYmM="));
        assert!(told("AUTH SCRAM-SHA-256 biwsbj11", "ZT1pbnZhbGlkLXByb29m"));
        assert!(!told("AUTH LOGIN dXNlcg==", "ZT1pbnZhbGlkLXByb29m"));
        let counted = guess("AUTH XOAUTH2 dXNlcg==").counted();
        assert!(!counted.is_told_of_failure(&Reply::new(334, None, "eyJ9")));
    }

    #[test]
    fn knows_nothing_of_other_mechanisms() {
        assert_eq!(
            guess("AUTH CRAM-MD5")
                .after(&AuthLine::parse(b"dXNlcg==").unwrap())
                .login(),
            None
        );
    }
}
