//! What a guarded server takes from a stranger: offers it foreign recipients as
//! they would come through the proxy without its guard (the open-relay probe), and
//! some of our own, and takes them back.
//!
//! Never DATA: there is no message that could be delivered.

use std::fmt;

use super::{Fault, Finding};
use crate::backend::{Backend, Client, Conversation, Introduction, Lost, OpenError, STRANGER};
use crate::policy::{self, Mode, Relay};
use crate::smtp::command::{Command, CommandError};
use crate::smtp::path::AddressError;
use crate::smtp::reply::Reply;

/// A sender of nobody's.
const STRANGER_SENDER: &str = "portcullis-check@example.com";

/// Tried in turn: some servers take no null reverse-path.
const SENDERS: [&str; 2] = ["", STRANGER_SENDER];

/// No mailbox of anybody's. The first domain exists, the second never will
/// (RFC 2606): a server may refuse either for that, and still relay.
const RECIPIENTS: [&str; 2] = [
    "RCPT TO:<portcullis-check@example.com>",
    "RCPT TO:<portcullis-check@open-relay-probe.invalid>",
];

/// Every server must take this one (RFC 5321 4.5.1).
const CONTROL: &str = "RCPT TO:<postmaster>";

/// Own domains that are tried: servers lose patience with who errs often.
const DOMAINS_MAX: usize = 5;

/// What one visit has found out.
struct Probed {
    seen: Seen,
    /// About foreign recipients.
    answer: Answer,
    /// Answers to recipients of our own, as far as it went.
    ours: Vec<(String, Reply)>,
}

/// What the server makes of foreign recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It takes one.
    Taken,
    /// It does not relay for such a client; its words.
    Refused(String),
    /// It refuses for a reason that says nothing about relaying; its words.
    Unclear(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Name(#[from] AddressError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{0}")]
    Later(String),
}

/// Whom the server takes a client for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// For whom it is: the server learns of it by XCLIENT or a PROXY header.
    Stranger,
    /// For the proxy itself, whom it may trust.
    Proxy,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => write!(f, "the outside address {}", STRANGER.ip()),
            Self::Proxy => f.write_str("the proxy's own address"),
        }
    }
}

/// The setting that keeps the guard off, if one does. `MODE=monitor` leaves it
/// on where the server takes everybody for the proxy.
fn guard_is_off(policy: &policy::Settings, seen: Seen) -> Option<&'static str> {
    match (policy.relay, policy.mode, seen) {
        (Relay::Backend, _, _) => Some("RELAY=backend"),
        (Relay::Guard, Mode::Monitor, Seen::Stranger) => Some("MODE=monitor"),
        (Relay::Guard, Mode::Monitor, Seen::Proxy) | (Relay::Guard, Mode::Enforce, _) => None,
    }
}

/// Probes the server and says what its answers mean under these settings.
pub(super) async fn look_at(
    backend: &Backend,
    address: &str,
    policy: &policy::Settings,
) -> Vec<Finding> {
    let domains = policy.domains.named();
    let domains = domains.get(..DOMAINS_MAX).unwrap_or(&domains);
    match probe(backend, domains).await {
        Ok(probed) => {
            let ours = mail_to_us(&probed, address);
            let relay = relaying(probed.answer, probed.seen, address, policy);
            [Some(relay), ours].into_iter().flatten().collect()
        }
        Err(error) => {
            let text = format!("{address}: cannot be found out: {error}");
            vec![Finding::bad(Fault::Unavailable, OPEN_RELAY, text)]
        }
    }
}

const OPEN_RELAY: &str = "open relay";

/// Whether strangers reach the postmasters of `DOMAINS`, whom every domain must
/// have (RFC 5321 4.5.1); nothing when none was tried.
fn mail_to_us(probed: &Probed, address: &str) -> Option<Finding> {
    const WHAT: &str = "mail to DOMAINS";
    let seen = probed.seen;
    let (taken, refused): (Vec<_>, Vec<_>) = probed
        .ours
        .iter()
        .partition(|(_, reply)| reply.is_positive_completion());
    let taken: Vec<&str> = taken.iter().map(|(name, _)| name.as_str()).collect();
    let told = |(name, reply): &&(String, Reply)| format!("{name} ({})", words(reply));
    let refused: Vec<String> = refused.iter().map(told).collect();
    if !refused.is_empty() {
        let text = format!(
            "{address} refuses mail from {seen} to {}: if it does so for others too, no mail of strangers arrives there",
            refused.join(", ")
        );
        return Some(Finding::warning(WHAT, text));
    }
    (!taken.is_empty()).then(|| {
        let text = format!("{address} takes mail from {seen} to {}", taken.join(", "));
        Finding::good(WHAT, text)
    })
}

fn relaying(answer: Answer, seen: Seen, address: &str, policy: &policy::Settings) -> Finding {
    const WHAT: &str = OPEN_RELAY;
    match (answer, guard_is_off(policy, seen)) {
        (Answer::Taken, Some(setting)) => Finding::bad(
            Fault::OpenRelay,
            WHAT,
            format!(
                "THE RELAY IS OPEN: {address} takes foreign recipients from {seen}, and with {setting} the proxy hands on all of them; set PORTCULLIS_RELAY=guard and PORTCULLIS_MODE=enforce, or make the backend refuse"
            ),
        ),
        (Answer::Taken, None) => Finding::good(
            WHAT,
            format!(
                "shut by the proxy alone: {address} would take foreign recipients from {seen}; RELAY=guard is what keeps the relay shut"
            ),
        ),
        (Answer::Refused(words), _) => Finding::good(
            WHAT,
            format!("shut: {address} itself refuses foreign recipients from {seen}: {words}"),
        ),
        (Answer::Unclear(words), Some(setting)) => Finding::warning(
            WHAT,
            format!(
                "{address} refuses the probe from {seen}, not clearly for relaying, and with {setting} it decides alone: {words}"
            ),
        ),
        (Answer::Unclear(words), None) => Finding::good(
            WHAT,
            format!(
                "shut by the proxy; {address} refuses the probe from {seen}, not clearly for relaying: {words}"
            ),
        ),
    }
}

async fn probe(backend: &Backend, domains: &[&str]) -> Result<Probed, ProbeError> {
    let mut conversation = match backend.open(&Client::stranger()?).await {
        Ok(conversation) => conversation,
        // It knows the client by then, and will have nothing to do with it.
        Err(OpenError::Refused(reply) | OpenError::Closing(reply)) => {
            return Ok(Probed {
                seen: Seen::Stranger,
                answer: Answer::Unclear(words(&reply)),
                ours: Vec::new(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let seen = match conversation.introduction {
        Introduction::Xclient | Introduction::Proxy => Seen::Stranger,
        Introduction::Received | Introduction::None => Seen::Proxy,
    };
    let (mut answer, ours) = offer(&mut conversation, domains).await?;
    // Whatever it has taken, it shall forget; leaving does the same.
    let _ = conversation.exchange(&Command::Rset).await;
    conversation.quit().await;
    // The null sender may be the only one for whom it does not relay; and there are
    // servers that do for whoever says that he is one of theirs.
    let own = domains.first().map(|domain| format!("postmaster@{domain}"));
    for sender in [Some(STRANGER_SENDER.to_owned()), own]
        .into_iter()
        .flatten()
    {
        if answer == Answer::Taken {
            break;
        }
        match (is_open_to(backend, &sender).await, &answer) {
            (Ok(true), _) => answer = Answer::Taken,
            (Err(error), Answer::Refused(words)) => {
                answer = Answer::Unclear(format!("{words}; not tried from {sender}: {error}"));
            }
            (Ok(false), _) | (Err(_), Answer::Unclear(_) | Answer::Taken) => {}
        }
    }
    Ok(Probed { seen, answer, ours })
}

/// The answer to the foreign recipients, or else to the sender, and those to
/// recipients of our own.
async fn offer(
    conversation: &mut Conversation,
    domains: &[&str],
) -> Result<(Answer, Vec<(String, Reply)>), ProbeError> {
    for sender in SENDERS {
        let reply = ask(conversation, &format!("MAIL FROM:<{sender}>")).await?;
        if reply.is_positive_completion() {
            let answer = recipients(conversation).await?;
            return Ok((answer, postmasters(conversation, domains).await));
        }
        // The same code asks for STARTTLS (RFC 3207 4), which proves nothing.
        let may_ask_for_tls =
            conversation.tls.is_none() && conversation.keywords.contains("STARTTLS");
        match reply.code() {
            // Nobody sends anything without signing in (RFC 4954 6).
            530 if !may_ask_for_tls => return Ok((Answer::Refused(words(&reply)), Vec::new())),
            421 => return Ok((Answer::Unclear(words(&reply)), Vec::new())),
            _ => {}
        }
    }
    Ok((Answer::Unclear("no sender is taken".to_owned()), Vec::new()))
}

/// Whether it takes foreign recipients from a stranger who says that he is `sender`.
/// On a connection of its own: servers lose patience with who errs.
async fn is_open_to(backend: &Backend, sender: &str) -> Result<bool, ProbeError> {
    let mut conversation = backend.open(&Client::stranger()?).await?;
    let reply = ask(&mut conversation, &format!("MAIL FROM:<{sender}>")).await?;
    let refusals = match reply.is_positive_completion() {
        true => foreign(&mut conversation).await?,
        false => Some(vec![reply]),
    };
    conversation.quit().await;
    let Some(refusals) = refusals else {
        return Ok(true);
    };
    // Another time it might.
    match refusals.iter().find(|reply| !reply.is_transient()) {
        Some(_) => Ok(false),
        None => Err(ProbeError::Later(
            refusals.last().map_or(String::new(), words),
        )),
    }
}

/// The refusals of the foreign recipients; `None` when one is taken.
async fn foreign(conversation: &mut Conversation) -> Result<Option<Vec<Reply>>, ProbeError> {
    let mut refusals: Vec<Reply> = Vec::new();
    for recipient in RECIPIENTS {
        match ask(conversation, recipient).await {
            Ok(reply) if reply.is_positive_completion() => return Ok(None),
            Ok(reply) => refusals.push(reply),
            // It hung up over the recipient before: that answer stands.
            Err(_) if !refusals.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(refusals))
}

/// The answers to the postmasters of `domains`, up to where it hangs up.
async fn postmasters(conversation: &mut Conversation, domains: &[&str]) -> Vec<(String, Reply)> {
    let mut answers = Vec::new();
    for domain in domains {
        let postmaster = format!("postmaster@{domain}");
        match ask(conversation, &format!("RCPT TO:<{postmaster}>")).await {
            Ok(reply) => answers.push((postmaster, reply)),
            Err(_) => break,
        }
    }
    answers
}

async fn recipients(conversation: &mut Conversation) -> Result<Answer, ProbeError> {
    let Some(refusals) = foreign(conversation).await? else {
        return Ok(Answer::Taken);
    };
    let control = ask(conversation, CONTROL).await.ok();
    let answers = refusals.iter().map(|reply| told(reply, control.as_ref()));
    let mut answers: Vec<Answer> = answers.collect();
    answers.sort_by_key(|answer| matches!(answer, Answer::Unclear(_)));
    let clearest = answers.into_iter().next();
    Ok(clearest.unwrap_or_else(|| Answer::Unclear("no answer".to_owned())))
}

async fn ask(conversation: &mut Conversation, line: &str) -> Result<Reply, ProbeError> {
    Ok(conversation
        .exchange(&Command::parse(line.as_bytes())?)
        .await?)
}

/// What the refusal of a foreign recipient means. Only a permanent one for a
/// reason of policy (RFC 3463 3.8), or without a code of that kind, is about
/// relaying, and only if the server's own postmaster fares better: a block list
/// says the same to both. One about a mailbox, a domain or the moment might be
/// gone for the next recipient.
fn told(refusal: &Reply, control: Option<&Reply>) -> Answer {
    let policy = refusal
        .enhanced()
        .is_none_or(|enhanced| enhanced.subject == 7);
    let alike = control.is_some_and(|control| {
        control.code() == refusal.code() && control.enhanced() == refusal.enhanced()
    });
    if refusal.code() >= 500 && policy && !alike {
        Answer::Refused(words(refusal))
    } else {
        Answer::Unclear(words(refusal))
    }
}

fn words(reply: &Reply) -> String {
    let enhanced = reply.enhanced();
    let enhanced = enhanced.map(|code| format!("{code} ")).unwrap_or_default();
    format!("{} {enhanced}{}", reply.code(), reply.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_for_policy_proves_the_relay_shut() {
        let taken = Reply::new(250, None, "2.1.5 Ok");
        let told = |code, text| told(&Reply::new(code, None, text), Some(&taken));
        for (code, text) in [
            (554, "5.7.1 Relay access denied"),
            (530, "5.7.0 Authentication required"),
            (550, "relaying denied"),
        ] {
            assert!(
                matches!(told(code, text), Answer::Refused(_)),
                "{code} {text}"
            );
        }
        for (code, text) in [
            (450, "4.7.1 Greylisted"),
            (450, "4.1.2 Domain not found"),
            (556, "5.1.10 Domain does not accept mail"),
            (550, "5.1.1 User unknown"),
            (421, "busy"),
        ] {
            assert!(
                matches!(told(code, text), Answer::Unclear(_)),
                "{code} {text}"
            );
        }
    }

    #[test]
    fn a_client_who_is_refused_everything_proves_nothing() {
        let blocked = Reply::new(554, None, "5.7.1 blocked using a list");
        assert!(matches!(told(&blocked, Some(&blocked)), Answer::Unclear(_)));
    }
}
