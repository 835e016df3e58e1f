//! What the editor does to messages, good and odd, against a slow and obvious
//! reference; cuts must not matter.

use proptest::prelude::*;

use super::*;

fn add(place: Place, name: &str, value: &str) -> Change {
    Change::Add {
        place,
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn set(name: &str, index: u32, value: &str) -> Change {
    Change::Set {
        name: name.to_owned(),
        index,
        value: value.to_owned(),
    }
}

fn delete(name: &str, index: Option<u32>) -> Change {
    let name = name.to_owned();
    Change::Delete { name, index }
}

fn edits(remove: &[&'static str], changes: &[Change]) -> Edits {
    Edits {
        remove: remove.to_vec(),
        changes: changes.to_vec(),
    }
}

/// The edited content, handed over in pieces of this size.
fn edited_in_pieces(size: usize, trace: &str, edits: &Edits, content: &[u8]) -> Vec<u8> {
    passed(Editor::new(trace.as_bytes(), edits.clone()), size, content).0
}

/// What comes out, and whether the body was dropped.
fn passed(mut editor: Editor, size: usize, content: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    for piece in content.chunks(size.max(1)) {
        editor.edit(piece, &mut out);
    }
    editor.finish(&mut out);
    (out, editor.has_dropped_body())
}

fn edited(trace: &str, edits: &Edits, content: &str) -> String {
    let out = edited_in_pieces(usize::MAX, trace, edits, content.as_bytes());
    String::from_utf8(out).unwrap()
}

#[test]
fn removes_a_forged_field_in_every_spelling() {
    let content = "X-Spam-Flag: NO\r\nSubject: a\r\nx-sPAM-status : No,\r\n\tscore=0\r\n\
         X-Spam\t: no\r\nX-Spammer: me\r\nX-Spam-Level:\r\n\r\nX-Spam-Flag: in the body\r\n";
    assert_eq!(
        edited("", &edits(&["X-Spam", "X-Spam-*"], &[]), content),
        "Subject: a\r\nX-Spammer: me\r\n\r\nX-Spam-Flag: in the body\r\n"
    );
}

#[test]
fn removes_a_forged_field_behind_a_line_that_is_none() {
    let content = "Subject: a\r\nno field\r\n\tat all\r\nX-Spam-Flag: NO\r\n\r\nbody\r\n";
    let ours = [add(Place::Last, "X-Spam-Flag", "YES")];
    assert_eq!(
        edited("", &edits(&["X-Spam-*"], &ours), content),
        "Subject: a\r\nX-Spam-Flag: YES\r\nno field\r\n\tat all\r\n\r\nbody\r\n"
    );
}

#[test]
fn no_first_line_can_continue_a_new_field() {
    let ours = [add(Place::First, "X-Spam-Flag", "NO")];
    for body in [
        " , but never mind\r\n\r\nbody\r\n",
        "\tx\r\n",
        "no field\r\n",
    ] {
        assert_eq!(
            edited("", &edits(&[], &ours), body),
            format!("X-Spam-Flag: NO\r\n\r\n{body}")
        );
        assert_eq!(
            edited("Received: x\r\n", &edits(&[], &[]), body),
            format!("Received: x\r\n\r\n{body}")
        );
        let set = [set("Subject", 1, "x"), delete("X", None)];
        assert_eq!(
            edited("", &edits(&["X-*"], &set), body),
            format!("Subject: x\r\n\r\n{body}")
        );
        assert_eq!(edited("", &edits(&["X-*"], &[]), body), body);
    }
}

#[test]
fn an_mbox_separator_stays_in_front() {
    for separator in ["From a@b Mon\r\n", ">From a@b\r\n"] {
        let ours = [add(Place::First, "A", "1")];
        assert_eq!(
            edited(
                "Received: x\r\n",
                &edits(&[], &ours),
                &format!("{separator}To: b\r\n\r\n")
            ),
            format!("{separator}Received: x\r\nA: 1\r\nTo: b\r\n\r\n")
        );
        assert_eq!(
            edited("", &edits(&[], &ours), &format!("{separator} x\r\n")),
            format!("{separator}A: 1\r\n\r\n x\r\n")
        );
    }
}

#[test]
fn trace_fields_stand_first_and_count_but_do_not_change() {
    let trace = "Received: ours\r\n\tfolded\r\n";
    let content = "Received: theirs\r\nTo: b\r\n\r\n";
    let changes = [
        set("Received", 1, "forged"),
        set("Received", 2, "changed"),
        add(Place::At(0), "A", "0"),
        add(Place::At(2), "B", "2"),
        add(Place::At(99), "C", "99"),
        add(Place::First, "D", "first"),
    ];
    assert_eq!(
        edited(trace, &edits(&["Received"], &[]), content),
        format!("{trace}To: b\r\n\r\n")
    );
    assert_eq!(
        edited(trace, &edits(&[], &changes), content),
        format!("{trace}D: first\r\nA: 0\r\nB: 2\r\nReceived: changed\r\nTo: b\r\nC: 99\r\n\r\n")
    );
    assert_eq!(
        edited(trace, &edits(&[], &[delete("received", None)]), content),
        format!("{trace}To: b\r\n\r\n")
    );
}

#[test]
fn sets_and_deletes_the_nth_field_of_a_name() {
    let content = "A: 1\r\nB: 1\r\na : 2\r\n x\r\nA: 3\r\n\r\nbody";
    for (change, expected) in [
        (
            set("A", 2, "new"),
            "A: 1\r\nB: 1\r\nA: new\r\nA: 3\r\n\r\nbody",
        ),
        (set("A", 3, ""), "A: 1\r\nB: 1\r\na : 2\r\n x\r\n\r\nbody"),
        (set("A", 4, ""), content),
        (
            set("C", 1, "c"),
            "A: 1\r\nB: 1\r\na : 2\r\n x\r\nA: 3\r\nC: c\r\n\r\nbody",
        ),
        (
            delete("A", Some(1)),
            "B: 1\r\na : 2\r\n x\r\nA: 3\r\n\r\nbody",
        ),
        (delete("A", Some(0)), "B: 1\r\n\r\nbody"),
        (delete("A", None), "B: 1\r\n\r\nbody"),
        (delete("A", Some(9)), content),
    ] {
        assert_eq!(edited("", &edits(&[], &[change]), content), expected);
    }
}

#[test]
fn a_message_may_end_inside_its_header_section() {
    let ours = edits(&[], &[add(Place::Last, "A", "1")]);
    assert_eq!(edited("", &ours, ""), "A: 1\r\n");
    assert_eq!(edited("", &ours, "To: b\r\n"), "To: b\r\nA: 1\r\n");
    assert_eq!(edited("", &ours, "To: b"), "To: b\r\nA: 1\r\n");
    assert_eq!(edited("", &ours, "\r\nbody"), "A: 1\r\n\r\nbody");
}

#[test]
fn drops_the_body_and_nothing_but_the_body() {
    let nothing = Edits::default();
    for (content, section) in [
        ("To: b\r\n\r\nold\r\n", "To: b\r\n\r\n"),
        ("To: b\n\nold\n", "To: b\n\n"),
        ("To: b\r\n", "To: b\r\n\r\n"),
        ("To: b", "To: b\r\n\r\n"),
        ("no field\r\n", "\r\n"),
        ("\r\nold", "\r\n"),
        ("", "\r\n"),
    ] {
        for size in [1, 7, usize::MAX] {
            let editor = Editor::without_body(b"", nothing.clone());
            let (out, is_dropped) = passed(editor, size, content.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), section, "{content:?}");
            assert!(is_dropped, "{content:?}");
        }
    }
}

#[test]
fn tells_as_soon_as_the_body_is_dropped() {
    let mut editor = Editor::without_body(b"Received: x\r\n", Edits::default());
    let mut out = Vec::new();
    editor.edit(b"To: b\r\n\r", &mut out);
    assert!(out.is_empty() && !editor.has_dropped_body());
    editor.edit(b"\nbo", &mut out);
    assert!(editor.has_dropped_body());
    editor.edit(b"dy", &mut out);
    editor.finish(&mut out);
    assert_eq!(out, b"Received: x\r\nTo: b\r\n\r\n");
}

#[test]
fn an_overlong_header_section_keeps_its_body() {
    let content = format!("{}\r\nbody\r\n", "C:\r\n".repeat(LINES_MAX + 1));
    let editor = Editor::without_body(b"", Edits::default());
    let (out, is_dropped) = passed(editor, usize::MAX, content.as_bytes());
    assert!(out == content.as_bytes() && !is_dropped);
}

#[test]
fn an_overlong_header_section_gets_its_new_fields_in_front() {
    let filler = format!("B: {}\r\n", "b".repeat(61)).repeat(SECTION_MAX / 66 + 1);
    let content = format!("X-Spam-Flag: NO\r\n{filler}\r\nbody\r\n");
    let changes = [
        add(Place::Last, "A", "1"),
        set("B", 1, "c"),
        add(Place::First, "C", "2"),
    ];
    let edits = edits(&["X-Spam-*"], &changes);
    let expected = format!("Received: x\r\nA: 1\r\nC: 2\r\n{content}");
    for size in [usize::MAX, 70_000, SECTION_MAX, SECTION_MAX + 1] {
        let out = edited_in_pieces(size, "Received: x\r\n", &edits, content.as_bytes());
        assert!(out == expected.as_bytes(), "pieces of {size}");
    }
}

#[test]
fn a_header_section_of_too_many_lines_is_overlong_too() {
    let ours = edits(&["B"], &[add(Place::Last, "A", "1")]);
    for (lines, is_edited) in [(LINES_MAX - 1, true), (LINES_MAX + 1, false)] {
        let content = format!("B: 1\r\n{}\r\nbody\r\n", "C:\r\n".repeat(lines - 1));
        for size in [usize::MAX, 1000, 7] {
            let out = edited_in_pieces(size, "", &ours, content.as_bytes());
            assert_eq!(!out.starts_with(b"A: 1\r\nB: 1\r\n"), is_edited);
        }
    }
}

#[test]
fn holds_back_no_more_than_the_header_section() {
    let mut editor = Editor::new(b"", edits(&["X-Spam-*"], &[]));
    let mut out = Vec::new();
    editor.edit(b"To: b\r\n\r", &mut out);
    assert!(out.is_empty());
    editor.edit(b"\nbo", &mut out);
    assert_eq!(out, b"To: b\r\n\r\nbo");
}

#[test]
fn refuses_what_would_be_more_than_one_field() {
    for (name, value) in [
        ("", "x"),
        ("A B", "x"),
        ("A:", "x"),
        ("A\r\nB", "x"),
        ("Ä", "x"),
        ("A", "x\r\nB: y"),
        ("A", "x\nB: y"),
        ("A", "x\n\n y"),
        ("A", "x\n \n\ty"),
        ("A", "x\r y"),
        ("A", "x\0"),
        ("A", "x\u{85}y"),
    ] {
        let change = add(Place::Last, name, value);
        assert!(change.clone().checked().is_err(), "{name:?} {value:?}");
        let content = "To: b\r\n\r\n";
        assert_eq!(edited("", &edits(&[], &[change]), content), content);
    }
    let long = "x".repeat(996);
    assert!(add(Place::Last, "A", &long).checked().is_err());
    let folded = "x".repeat(900) + "\n " + &"x".repeat(900);
    assert!(add(Place::Last, "A", &folded).checked().is_ok());
}

#[test]
fn folding_is_printed_as_crlf() {
    let ours = edits(&[], &[add(Place::Last, "A", "x,\n\ty,\r\n z\r\n")]);
    assert_eq!(edited("", &ours, ""), "A: x,\r\n\ty,\r\n z\r\n");
    let spaced = edits(&[], &[add(Place::Last, "A", "\tx")]);
    assert_eq!(edited("", &spaced, ""), "A:\tx\r\n");
}

/// The same edits, on lines of the whole message and without any care for cost.
fn reference(trace: &str, edits: &Edits, drops_body: bool, content: &str) -> String {
    if trace.is_empty() && edits.is_empty() && !drops_body {
        return content.to_owned();
    }
    let mut lines: Vec<&str> = content.split_inclusive('\n').collect();
    let mut out = String::new();
    if content.starts_with("From ") || content.starts_with(">From ") {
        out.push_str(lines.remove(0));
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str("\r\n");
    }
    let name = |field: &str| {
        let (name, _) = field.split_once(':')?;
        let name = name.trim_end_matches([' ', '\t']).to_ascii_lowercase();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        is_name.then_some(name)
    };
    let has_header = lines
        .first()
        .is_none_or(|line| *line == "\r\n" || name(line).is_some());

    let own = trace.split_inclusive('\n').count();
    let mut fields: Vec<String> = trace.split_inclusive('\n').map(str::to_owned).collect();
    let end = lines.iter().position(|line| *line == "\r\n");
    let section: Vec<&str> = lines
        .drain(
            ..if has_header {
                end.unwrap_or(lines.len())
            } else {
                0
            },
        )
        .collect();
    for line in section {
        if line.starts_with([' ', '\t']) {
            fields.last_mut().unwrap().push_str(line);
        } else {
            fields.push(line.to_owned());
        }
    }
    let mut number = 0;
    fields.retain(|field| {
        number += 1;
        let name = name(field).unwrap_or_default();
        let is_meant = edits.remove.iter().any(|meant| {
            let meant = meant.to_ascii_lowercase();
            name == meant || meant.ends_with('*') && name.starts_with(meant.trim_end_matches('*'))
        });
        number <= own || !is_meant
    });
    let mut has_grown = own > 0;
    for change in &edits.changes {
        let last = fields
            .iter()
            .position(|field| name(field).is_none())
            .unwrap_or(fields.len());
        let all = |meant: &str| -> Vec<usize> {
            let is_meant = |at: &usize| name(&fields[*at]) == Some(meant.to_ascii_lowercase());
            (0..fields.len()).filter(is_meant).collect()
        };
        match change {
            Change::Add { place, name, value } => {
                let at = match place {
                    Place::First => own,
                    Place::Last => last,
                    Place::At(at) => last.min(*at as usize).max(own),
                };
                fields.insert(at, format!("{name}: {value}\r\n"));
                has_grown = true;
            }
            Change::Set { name, index, value } => {
                match all(name).get((index.max(&1) - 1) as usize) {
                    Some(at) if *at < own => {}
                    Some(at) if value.is_empty() => drop(fields.remove(*at)),
                    Some(at) => fields[*at] = format!("{name}: {value}\r\n"),
                    None if value.is_empty() => {}
                    None => {
                        fields.insert(last, format!("{name}: {value}\r\n"));
                        has_grown = true;
                    }
                }
            }
            Change::Delete { name, index } => {
                let mut meant = all(name);
                if let Some(index) = index.filter(|index| *index > 0) {
                    meant = meant.into_iter().skip(index as usize - 1).take(1).collect();
                }
                for at in meant.into_iter().rev().filter(|at| *at >= own) {
                    fields.remove(at);
                }
            }
        }
    }
    for field in fields {
        out.push_str(field.trim_end_matches("\r\n"));
        out.push_str("\r\n");
    }
    if drops_body {
        return out + "\r\n";
    }
    if !has_header && has_grown {
        out.push_str("\r\n");
    }
    out + &lines.concat()
}

fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "Subject: a",
        "A: 1",
        "a : 2",
        "A\t:3",
        "B:",
        "X-Spam-Flag: NO",
        "x-spam-status: No",
        "X-Spam",
        " folded: b",
        "\tfolded",
        "",
        "",
        "no field",
        ": none",
        "From a",
        ">From a",
    ]);
    let end = prop::sample::select(vec!["", "last: line", " x"]);
    (prop::collection::vec(line, 0..12), end).prop_map(|(lines, end)| {
        lines
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect::<String>()
            + end
    })
}

fn change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(vec!["A", "b", "X-Spam-Flag", "C"]);
    let value = || prop::sample::select(vec!["v", "v,\r\n\tw"]);
    let place = prop_oneof![
        Just(Place::First),
        Just(Place::Last),
        (0u32..6).prop_map(Place::At)
    ];
    prop_oneof![
        3 => (place, name(), value()).prop_map(|(place, name, value)| add(place, name, value)),
        2 => (name(), 0u32..4, prop_oneof![Just(""), value()])
            .prop_map(|(name, index, value)| set(name, index, value)),
        2 => (name(), prop::option::of(0u32..4)).prop_map(|(name, index)| delete(name, index)),
    ]
}

proptest! {
    #[test]
    fn edits_as_the_reference_does_wherever_it_is_cut(
        content in lines(),
        trace in prop::sample::select(vec!["", "Received: x\r\n", "A: x\r\nA: y\r\n"]),
        remove in prop::sample::subsequence(vec!["X-Spam", "X-Spam-*", "a"], 0..3),
        changes in prop::collection::vec(change(), 0..5),
        drops_body: bool,
        size in 1usize..40,
    ) {
        let edits = Edits { remove, changes };
        let expected = reference(trace, &edits, drops_body, &content);
        let editor = match drops_body {
            true => Editor::without_body(trace.as_bytes(), edits),
            false => Editor::new(trace.as_bytes(), edits),
        };
        let (out, is_dropped) = passed(editor, size, content.as_bytes());
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        prop_assert_eq!(is_dropped, drops_body);
    }

    #[test]
    fn empty_edits_change_nothing(content in any::<Vec<u8>>(), size in 1usize..40) {
        let out = edited_in_pieces(size, "", &Edits::default(), &content);
        prop_assert_eq!(out, content);
    }

    #[test]
    fn any_octets_pass_behind_the_header_section(body in any::<Vec<u8>>(), size in 1usize..40) {
        let content = [b"To: b\r\n\r\n", body.as_slice()].concat();
        let edits = edits(&["A"], &[add(Place::Last, "A", "1")]);
        let out = edited_in_pieces(size, "", &edits, &content);
        prop_assert_eq!(out, [b"To: b\r\nA: 1\r\n\r\n", body.as_slice()].concat());
    }
}
