use std::fs;
use std::time::Duration;

use crate::settings::{Networks, Origin, Problem, Reader, Secret, section};

section! {
    /// Settings that only these tests have.
    struct Bell {
        /// Pause between
        /// two strokes.
        bell_pause: Duration = "2s", example "500ms";
        /// Strokes in all.
        bell_strokes: Option<u16>, example "12";
        /// Who may ring.
        bell_nets: Networks = "", example "10.0.0.0/8";
        /// Where it hangs.
        bell_tower: String, example "north";
        /// Word that stops it.
        #[secret]
        bell_word: Option<Secret>, example "silence";
        /// Number that locks it.
        #[secret]
        bell_code: Option<u16>, example "1234";
    }
}

/// Reads the bell from what the environment gives.
fn read(given: &[(&str, &str)]) -> Result<Bell, Vec<String>> {
    let mut reader = Reader::default();
    for (key, text) in given {
        reader.give(Origin::Environment, key, Ok((*text).to_owned()));
    }
    let bell = Bell::read(&mut reader);
    let problems = reader.finish();
    match bell {
        Some(bell) if problems.is_empty() => Ok(bell),
        _ => Err(problems.0.iter().map(Problem::to_string).collect()),
    }
}

#[test]
fn documents_a_section_from_its_declaration() {
    assert_eq!(Bell::ABOUT, "Settings that only these tests have.");
    let [pause, strokes, _, tower, word, code] = Bell::SPECS else {
        panic!("{:?}", Bell::SPECS)
    };
    assert_eq!(pause.doc, "Pause between two strokes.");
    assert_eq!((pause.default, pause.example), (Some("2s"), "500ms"));
    assert_eq!(pause.variable(), "PORTCULLIS_BELL_PAUSE");
    assert_eq!(pause.flag(), "--bell-pause");
    assert!(!pause.secret && !pause.required && !strokes.required);
    assert!(tower.required && word.secret && code.secret);
}

#[test]
fn reads_given_values_and_defaults() {
    let given = [
        ("bell_tower", " north "),
        ("bell_strokes", "12"),
        ("bell_word", " s "),
    ];
    let bell = read(&given).unwrap();
    assert_eq!(bell.bell_pause, Duration::from_secs(2));
    assert_eq!(bell.bell_strokes, Some(12));
    assert_eq!(bell.bell_tower, "north");
    assert!(bell.bell_nets.is_empty());
    assert_eq!(bell.bell_word.unwrap().reveal(), " s ");
    assert_eq!(bell.bell_code, None);
    assert_eq!(Bell::default().bell_tower, "north");
}

#[test]
fn lists_all_problems_at_once() {
    let given = [
        ("bell_pause", "300"),
        ("bell_strokes", "70000"),
        ("bell_nets", "10.1.0.0/8"),
    ];
    assert_eq!(
        read(&given).unwrap_err(),
        [
            "PORTCULLIS_BELL_PAUSE=\"300\" (environment) has no unit (ms, s, min, h, d); \
             example: PORTCULLIS_BELL_PAUSE=\"500ms\"",
            "PORTCULLIS_BELL_STROKES=\"70000\" (environment) is above 65535; \
             example: PORTCULLIS_BELL_STROKES=\"12\"",
            "PORTCULLIS_BELL_NETS=\"10.1.0.0/8\" (environment) has the item \"10.1.0.0/8\", \
             which has host bits set: write 10.0.0.0/8; example: PORTCULLIS_BELL_NETS=\"10.0.0.0/8\"",
            "PORTCULLIS_BELL_TOWER is required; example: PORTCULLIS_BELL_TOWER=\"north\"",
        ]
    );
}

#[test]
fn an_empty_value_is_good_for_a_list_only() {
    assert!(read(&[("bell_tower", "north"), ("bell_nets", "")]).is_ok());
    let problems = read(&[("bell_tower", ""), ("bell_pause", " ")]).unwrap_err();
    assert_eq!(problems.len(), 2);
    assert!(
        problems
            .iter()
            .all(|problem| problem.contains("=\"\" (environment) is empty"))
    );
}

#[test]
fn refuses_unknown_names_and_proposes_near_ones() {
    let given = [
        ("bell_tower", "x"),
        ("bell_puase", "secret"),
        ("gate", "secret"),
    ];
    let problems = read(&given).unwrap_err();
    assert_eq!(
        problems,
        [
            "PORTCULLIS_BELL_PUASE (environment) is unknown; did you mean PORTCULLIS_BELL_PAUSE?",
            "PORTCULLIS_GATE (environment) is unknown",
        ]
    );
}

#[test]
fn spells_a_proposal_as_its_source_does() {
    let mut reader = Reader::default();
    reader.give(Origin::File("p.toml".into()), "bell_towr", Ok("x".into()));
    reader.give(Origin::File("p.toml".into()), "bell_tower", Ok("x".into()));
    Bell::read(&mut reader).unwrap();
    let problems = reader.finish().to_string();
    assert_eq!(
        problems,
        "bell_towr (file \"p.toml\") is unknown; did you mean bell_tower?\n"
    );
}

#[test]
fn the_first_source_wins() {
    let mut reader = Reader::default();
    reader.give(Origin::Flag, "bell_tower", Ok("flag".into()));
    reader.give(Origin::Environment, "bell_tower", Ok("environment".into()));
    assert_eq!(Bell::read(&mut reader).unwrap().bell_tower, "flag");
}

#[test]
fn takes_a_secret_from_a_file_without_its_newline() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for content in ["hush ", "hush \n", "hush \r\n"] {
        fs::write(path, content).unwrap();
        let bell = read(&[("bell_tower", "x"), ("bell_word_file", path)]).unwrap();
        assert_eq!(bell.bell_word.unwrap().reveal(), "hush ");
    }
}

#[test]
fn refuses_a_secret_given_twice_or_from_no_file_and_never_shows_it() {
    let both = [
        ("bell_tower", "x"),
        ("bell_word", "hunter2"),
        ("bell_word_file", "/x"),
    ];
    let problems = read(&both).unwrap_err().join("\n");
    assert!(problems.starts_with(
        "PORTCULLIS_BELL_WORD_FILE (environment) and PORTCULLIS_BELL_WORD are both set"
    ));
    assert!(!problems.contains("hunter2"));
    let problems = read(&[("bell_tower", "x"), ("bell_word_file", "/no/such")]).unwrap_err();
    assert!(
        problems
            .join("\n")
            .contains("=\"/no/such\" (environment) names a file that cannot be read")
    );
    let problems = read(&[("bell_tower", "x"), ("bell_tower_file", "/x")]).unwrap_err();
    assert!(
        problems
            .join("\n")
            .contains("PORTCULLIS_BELL_TOWER_FILE (environment) is unknown")
    );
}

#[test]
fn masks_a_bad_secret_and_escapes_a_hostile_value() {
    let given = [
        ("bell_code", "hunter2"),
        ("bell_tower", "x"),
        ("bell_strokes", "\x1b[2J\n!"),
    ];
    let problems = read(&given).unwrap_err().join("\n");
    assert!(problems.contains("BELL_CODE=\"***\" (env") && !problems.contains("hunter2"));
    assert!(
        problems.contains("BELL_STROKES=\"\\u{1b}[2J\\n!\""),
        "{problems}"
    );
}

#[test]
fn names_what_has_changed() {
    let old = read(&[("bell_tower", "north"), ("bell_word", "silence")]).unwrap();
    let new = read(&[("bell_tower", "north"), ("bell_word", "peace")]).unwrap();
    assert_eq!(old.changed(&old), [""; 0]);
    assert_eq!(old.changed(&new), ["bell_word"]);
}
