//! The header editor: no cut matters, no edit is no change, the body stays
//! whole, and no field can forge an end or survive its removal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::smtp::header::{Change, Editor, Edits, Parter, Place};
use portcullis_fuzz::{pieces, take_octet, take_text};

const TRACE: &[u8] = b"Received: from c.test\r\n\tby mx.test\r\n";

fn edit(reads: &[&[u8]], mut editor: Editor) -> Vec<u8> {
    let mut out = Vec::new();
    for read in reads {
        editor.edit(read, &mut out);
    }
    editor.finish(&mut out);
    out
}

fn change(data: &mut &[u8]) -> Change {
    let kind = take_octet(data);
    let number = u32::from(take_octet(data) % 8);
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (name, value) = (text(take_text(data)), text(take_text(data)));
    let place = match number {
        0 => Place::First,
        1 => Place::Last,
        at => Place::At(at - 2),
    };
    match kind % 7 {
        0..=2 => Change::Add { place, name, value },
        3..=5 => Change::Set {
            name,
            index: number,
            value,
        },
        _ => Change::Delete {
            name,
            index: number.checked_sub(1),
        },
    }
}

/// Lines with their LF.
fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split_inclusive(|octet| *octet == b'\n')
}

fn is_empty_line(line: &[u8]) -> bool {
    line == b"\n" || line == b"\r\n"
}

/// A field name in lower case, unless the line is no field.
fn name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|octet| *octet == b':')?;
    let mut name = &line[..colon];
    while let [start @ .., b' ' | b'\t'] = name {
        name = start;
    }
    let fits = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn part(reads: &[&[u8]]) -> Vec<u8> {
    let (mut parter, mut out) = (Parter::default(), Vec::new());
    for read in reads {
        parter.part(read, &mut out);
    }
    parter.finish(&mut out);
    out
}

/// The content with an empty line before its first line that is no field.
fn parted(content: &[u8]) -> Vec<u8> {
    let (mut at, mut is_behind_field) = (0, false);
    for line in lines(content) {
        let continues = line.starts_with(b" ") || line.starts_with(b"\t");
        let is_field = name(&line[..line.len().min(998)]).is_some();
        if is_empty_line(line) || line == b"\r" {
            break;
        }
        if !is_field && !(continues && is_behind_field) {
            return [&content[..at], b"\r\n", &content[at..]].concat();
        }
        is_behind_field = true;
        at += line.len();
    }
    content.to_vec()
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let seed = take_octet(&mut rest);
    let steer = take_octet(&mut rest);
    let trace = if steer & 1 == 0 { TRACE } else { b"" };
    let changes: Vec<_> = (0..steer >> 6).map(|_| change(&mut rest)).collect();
    let remove = if steer & 2 == 0 {
        vec!["X-Forged-*"]
    } else {
        Vec::new()
    };
    let edits = Edits { remove, changes };
    let content = rest;

    let unchanged = Editor::new(b"", Edits::default());
    assert_eq!(edit(&pieces(seed, content), unchanged), content);

    let drops_body = steer & 4 != 0;
    let editor = || match drops_body {
        true => Editor::without_body(trace, edits.clone()),
        false => Editor::new(trace, edits.clone()),
    };
    let out = edit(&[content], editor());
    assert_eq!(edit(&pieces(seed, content), editor()), out);

    // Behind an mbox separator: a header section, or no more than a body.
    let quotes = content.iter().take_while(|octet| **octet == b'>').count();
    let is_separated = content[quotes..].starts_with(b"From ");
    let skipped = match is_separated {
        true => lines(content).next().map_or(0, <[u8]>::len),
        false => 0,
    };
    // Nobody writes so many quotes.
    let is_led = is_separated && quotes + 5 <= 998;
    let expected = match is_led {
        true => parted(&[b"X-Mailbox-Line: ", content].concat()),
        false => parted(content),
    };
    assert_eq!(part(&[content]), expected);
    assert_eq!(part(&pieces(seed, content)), expected);
    assert_eq!(part(&[&expected]), expected, "parted twice");
    // Whatever is edited, nothing behind that line is.
    let end = lines(&expected).scan(0, |at, line| {
        *at += line.len();
        Some((*at, is_empty_line(line)))
    });
    let end = end.filter(|(_, is_end)| *is_end).map(|(at, _)| at).next();
    if let Some(body) = end.and_then(|end| expected.get(end..)) {
        let out = edit(&[&expected], Editor::new(trace, edits.clone()));
        assert!(out.ends_with(body), "the body stays whole");
    }

    let message = &content[skipped..];
    let first = lines(message).next();
    let has_header = first.is_none_or(|line| is_empty_line(line) || name(line).is_some());
    let mut section = 0;
    for line in lines(message).take_while(|line| has_header && !is_empty_line(line)) {
        section += line.len();
    }
    if drops_body {
        let ends = lines(&out).filter(|line| is_empty_line(line)).count();
        assert!(ends == 1 && lines(&out).last().is_some_and(is_empty_line));
    } else {
        // The empty line and the body, or all that is no header section.
        let body = &message[section..];
        let front = out.strip_suffix(body).expect("the body stays whole");
        let ends = lines(front).filter(|line| is_empty_line(line)).count();
        let grown = !has_header && front.len() > skipped && front.ends_with(b"\n\r\n")
            || !has_header && front == b"\r\n";
        assert!(ends == 0 || (grown && ends == 1), "a forged end");
    }
    let is_ours = |change: &Change| match change {
        Change::Add { name, .. } | Change::Set { name, .. } => {
            name.to_ascii_lowercase().starts_with("x-forged-")
        }
        _ => false,
    };
    if has_header && !edits.remove.is_empty() && !edits.changes.iter().any(is_ours) {
        let skipped = if is_separated { 1 } else { 0 };
        let section = lines(&out)
            .skip(skipped)
            .take_while(|line| !is_empty_line(line));
        for field in section.filter(|line| !line.starts_with(b" ") && !line.starts_with(b"\t")) {
            assert!(!name(field).is_some_and(|name| name.starts_with("x-forged-")));
        }
    }
});
