//! A filter's words of refusal as replies that may go to the client.

use bytes::BytesMut;

use crate::policy::content::Word;
use crate::smtp::reply::{EnhancedCode, Reply, ReplyParser};

/// `554 5.7.1`: what becomes of the wish to discard a message. Portcullis
/// never takes mail and throws it away, so the sender is told.
pub(super) fn of_discard() -> Word {
    let enhanced = EnhancedCode::new(5, 7, 1);
    let reply = Reply::new(554, enhanced, "Message refused by a content filter");
    Word::Refuse { reply: Some(reply) }
}

/// `552 5.3.4`: the header section is too long to be shown to a filter.
pub(super) fn of_long_header_section() -> Word {
    let enhanced = EnhancedCode::new(5, 3, 4);
    let reply = Reply::new(552, enhanced, "Header section too long");
    Word::Refuse { reply: Some(reply) }
}

/// Why the message is refused although the filter minds one recipient only.
pub(super) fn of_one_recipient(word: Word, recipient: &str) -> Word {
    let text = format!("A content filter refuses <{recipient}>, so nobody was sent the message");
    let reply = |code, class| Some(Reply::new(code, EnhancedCode::new(class, 7, 1), &text));
    match word {
        Word::Refuse { reply: None } => Word::Refuse {
            reply: reply(550, 5),
        },
        Word::Defer { reply: None } => Word::Defer {
            reply: reply(451, 4),
        },
        other => other,
    }
}

/// `SMFIR_REPLYCODE`: one or more reply lines with CRLF or LF between them, 4xx
/// or 5xx. A 421 becomes a 451: it would promise the end of the session.
pub(super) fn of_reply_code(text: &[u8]) -> Option<Word> {
    let mut lines = BytesMut::new();
    for line in text.trim_ascii_end().split(|octet| *octet == b'\n') {
        lines.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        lines.extend_from_slice(b"\r\n");
    }
    let reply = ReplyParser::new().feed(&mut lines).ok()??;
    if !lines.is_empty() {
        return None;
    }
    let code = match reply.code() {
        421 => 451,
        code => code,
    };
    let texts = reply.lines().iter().map(|line| undouble(line));
    let reply = Reply::multiline(code, reply.enhanced(), texts);
    match code {
        400..=499 => Some(Word::Defer { reply: Some(reply) }),
        500..=599 => Some(Word::Refuse { reply: Some(reply) }),
        _ => None,
    }
}

/// Sendmail uses the text as a format, so filters must write `%%` for `%`
/// (smfi_setreply), and a single one means nothing.
fn undouble(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '%' => text.extend(characters.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &[u8]) -> Option<(u16, String)> {
        match of_reply_code(text)? {
            Word::Refuse { reply: Some(reply) } | Word::Defer { reply: Some(reply) } => {
                Some((reply.code(), reply.to_string()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_over_the_words_of_a_filter() {
        for (text, printed) in [
            (&b"550 5.7.1 No, thanks"[..], "550 5.7.1 No, thanks\r\n"),
            (b"451 4.7.1 Later", "451 4.7.1 Later\r\n"),
            (b"554 no enhanced code", "554 no enhanced code\r\n"),
            (b"550 5.7.1 100%% spam", "550 5.7.1 100% spam\r\n"),
            (b"550 5.7.1 100% spam%", "550 5.7.1 100 spam\r\n"),
            (
                b"550-5.7.1 one\r\n550 5.7.1 two\r\n",
                "550-5.7.1 one\r\n550 5.7.1 two\r\n",
            ),
            (
                b"550-5.7.1 one\n550 5.7.1 two",
                "550-5.7.1 one\r\n550 5.7.1 two\r\n",
            ),
        ] {
            assert_eq!(heard(text).unwrap().1, printed);
        }
    }

    #[test]
    fn never_promises_to_end_the_session() {
        assert_eq!(heard(b"421 4.7.0 Go away").unwrap().0, 451);
    }

    #[test]
    fn refuses_what_is_no_refusal() {
        for text in [
            &b""[..],
            b"250 2.0.0 Fine",
            b"354 go on",
            b"No",
            b"55",
            b"550-5.7.1 unfinished",
            b"550 5.7.1 one\r\n250 two",
            b"550 5.7.1 one\r\n550 5.7.1 two",
            b"550-one\r\n551 two",
            b"550 a\rb",
        ] {
            assert_eq!(of_reply_code(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn leaves_no_control_characters_in_the_words() {
        assert_eq!(heard(b"550 5.7.1 a\x1bb").unwrap().1, "550 5.7.1 a?b\r\n");
    }
}
