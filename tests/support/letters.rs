//! Messages to send, and how to compare what arrived.

/// A small honest message with CRLF line ends.
pub fn letter(subject: &str) -> String {
    format!(
        "From: Ann <ann@sender.test>\r\n\
         To: Bob <bob@example.org>\r\n\
         Subject: {subject}\r\n\
         Date: Tue, 24 Nov 2026 08:00:00 +0000\r\n\
         Message-ID: <{subject}@sender.test>\r\n\
         \r\n\
         Dear Bob,\r\n\
         .this line begins with a dot\r\n\
         ..and this one with two\r\n\
         .\r\n\
         the one above is a lone dot.\r\n"
    )
}

/// `letter` followed by about `size` octets of everything that is legal inside a
/// message and easily harmed on the way: dots at line starts, 8-bit octets, control
/// characters, empty lines, white space at line ends, lines of the full 998 octets.
pub fn torture(subject: &str, size: usize) -> Vec<u8> {
    let mut message = letter(subject).into_bytes();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while message.len() < size {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        match random % 8 {
            0 => message.extend_from_slice(b"."),
            1 => message.extend_from_slice(b".."),
            2 => message.extend_from_slice(b""),
            3 => message.extend_from_slice(b".\x80\xff dot and 8 bit"),
            4 => message.extend_from_slice(b"white space ends this line \t "),
            5 => message.extend_from_slice(&[b'.'; 998]),
            _ => {
                let length = (random >> 32) as usize % 998;
                let octet = |at: usize| ((random >> (at % 56)) as usize).wrapping_add(at) as u8;
                message.extend((0..length).map(|at| match octet(at) {
                    // NUL, CR and LF are no content of a line (RFC 5321 2.3.8).
                    0 | b'\r' | b'\n' => b'.',
                    other => other,
                }));
            }
        }
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// What goes over the wire for `message`: transparency of RFC 5321 4.5.2 and the
/// final dot.
pub fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 64 + 3);
    let mut at_line_start = true;
    for &octet in message {
        if at_line_start && octet == b'.' {
            wire.push(b'.');
        }
        wire.push(octet);
        at_line_start = octet == b'\n';
    }
    if !at_line_start {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Where two messages part, in words; `None` if they are equal.
pub fn first_difference(sent: &[u8], arrived: &[u8]) -> Option<String> {
    if sent == arrived {
        return None;
    }
    let at = sent
        .iter()
        .zip(arrived)
        .position(|(a, b)| a != b)
        .unwrap_or(sent.len().min(arrived.len()));
    let around = |text: &[u8]| {
        let from = at.saturating_sub(20).min(text.len());
        let to = (at + 20).min(text.len());
        text[from..to].escape_ascii().to_string()
    };
    Some(format!(
        "sent {} octets, {} arrived, they part at {at}: sent `{}`, arrived `{}`",
        sent.len(),
        arrived.len(),
        around(sent),
        around(arrived)
    ))
}
