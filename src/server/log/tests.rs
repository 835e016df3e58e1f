use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::subscriber::with_default;
use tracing::{info, info_span, warn};

use super::line::LineForm;
use super::*;

/// What `log` writes, through the real layer and the real queue.
fn logged(form: LineForm, level: &str, log: impl FnOnce()) -> String {
    let output = Shared::default();
    let (queue, guard) = queue::start(output.clone(), form).unwrap();
    with_default(
        subscriber(&LogLevel::parse(level).unwrap(), form, queue).0,
        log,
    );
    drop(guard);
    String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const HOSTILE: &str = "a\r\n\x1b[2Jb\u{202e}c\u{85}";

#[test]
fn json_escapes_control_characters_in_every_kind_of_field() {
    let line = logged(LineForm::Json, "info", || {
        let _span = info_span!("session", helo = HOSTILE).entered();
        info!(text = HOSTILE, display = %HOSTILE, "message {HOSTILE}");
    });
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert!(
        !line
            .trim_end()
            .contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{line}"
    );
    let escaped = r"a\u000d\u000a\u001b[2Jb\u202ec\u0085";
    assert_eq!(line.matches(escaped).count(), 4, "{line}");
}

#[test]
fn text_escapes_control_characters_in_every_kind_of_field() {
    let line = logged(LineForm::Plain, "info", || {
        let _span = info_span!("session", helo = HOSTILE).entered();
        info!(text = HOSTILE, display = %HOSTILE, "message {HOSTILE}");
    });
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert!(
        !line
            .trim_end()
            .contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{line}"
    );
    assert_eq!(line.matches(r"[2Jb\u{202e}c\u{85}").count(), 4, "{line}");
}

#[test]
fn json_is_one_flat_object_with_typed_values() {
    let line = logged(LineForm::Json, "info", || {
        let _span = info_span!("session", id = "x1").entered();
        info!(
            size = 12_u64,
            ok = true,
            rate = f64::NAN,
            who = "a \"b\" \\",
            "done"
        );
    });
    let (begin, rest) = line.split_once(r#"","level":"#).unwrap();
    assert!(
        begin.starts_with(r#"{"timestamp":"20"#) && begin.ends_with('Z'),
        "{line}"
    );
    let expected = r#""INFO","target":"portcullis::server::log::tests","message":"done","size":12,"ok":true,"rate":"NaN","who":"a \"b\" \\","id":"x1"}"#;
    assert_eq!(rest.trim_end(), expected);
}

#[test]
fn text_puts_the_message_first_and_quotes_what_could_pass_for_a_field() {
    let line = logged(LineForm::Plain, "info", || {
        warn!(
            helo = "x refused=no",
            empty = "",
            plain = "mx.example.org",
            "odd client"
        );
    });
    let (_, rest) = line.split_once(' ').unwrap();
    let expected = "WARN  portcullis::server::log::tests odd client helo=\"x refused=no\" empty=\"\" plain=mx.example.org\n";
    assert_eq!(rest, expected);
}

#[test]
fn caps_every_value() {
    let long = "x".repeat(2000);
    for form in [LineForm::Json, LineForm::Plain] {
        let line = logged(form, "info", || info!(long, "{long}"));
        assert_eq!(line.matches("[1488 more]").count(), 2);
        assert!(line.len() < 1300, "{}", line.len());
    }
}

#[test]
fn obeys_the_level_of_a_module() {
    let log = || {
        info!("hidden");
        info!(target: "portcullis::other", "shown");
    };
    let lines = logged(LineForm::Plain, "warn,portcullis::other=info", log);
    assert!(
        lines.contains("shown") && !lines.contains("hidden"),
        "{lines}"
    );
}

#[test]
fn refuses_a_level_that_would_be_taken_for_a_module() {
    for level in ["inof", "", "info,", "info,portcullis", "portcullis=loud"] {
        assert!(LogLevel::parse(level).is_err(), "{level:?}");
    }
    for level in ["INFO", "off", "warn,portcullis=debug", "[session]=debug"] {
        assert!(LogLevel::parse(level).is_ok(), "{level:?}");
    }
}

/// An output that takes nothing until it is let go.
struct Blocked {
    gate: Option<Receiver<()>>,
    written: Sender<String>,
}

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.take() {
            let _ = gate.recv();
        }
        let _ = self
            .written
            .send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_output_blocks_nobody_and_dropped_lines_are_reported() {
    const LINES: usize = 10_000;
    let (open, gate) = channel();
    let (written, lines) = channel();
    let output = Blocked {
        gate: Some(gate),
        written,
    };
    let (queue, guard) = queue::start(output, LineForm::Plain).unwrap();
    let level = LogLevel::parse("info").unwrap();
    // It ends at all only because nobody waits for the output.
    with_default(subscriber(&level, LineForm::Plain, queue).0, || {
        for n in 0..LINES {
            info!(n, "line");
        }
    });
    open.send(()).unwrap();
    drop(guard);
    let mut shown = 0;
    let mut reported = 0;
    while let Ok(together) = lines.recv_timeout(Duration::from_millis(500)) {
        for line in together.lines() {
            match line.split_once("dropped lines=") {
                Some((_, count)) => reported += count.trim().parse::<usize>().unwrap(),
                None => shown += 1,
            }
        }
    }
    assert!(reported > 0);
    assert_eq!(shown + reported, LINES);
}

#[test]
fn the_end_of_the_process_does_not_wait_for_a_blocked_output_for_ever() {
    let (_open, gate) = channel::<()>();
    let (written, _lines) = channel();
    let (queue, guard) = queue::start(
        Blocked {
            gate: Some(gate),
            written,
        },
        LineForm::Plain,
    )
    .unwrap();
    writeln!(&queue, "stuck").unwrap();
    let start = std::time::Instant::now();
    drop(guard);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_value_of_a_field_in_the_filter_is_plain_text() {
    // As a pattern it would be none.
    let level = "off,[visit{number=((1}]=info";
    let visited = |number| {
        logged(LineForm::Plain, level, || {
            let _span = info_span!("visit", number = %number).entered();
            info!("seen");
        })
    };
    assert!(visited("((1").contains("seen"));
    assert_eq!(visited("1"), "");
}
