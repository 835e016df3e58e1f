use super::*;

fn report(states: &[State]) -> Report {
    let finding = |state: &State| Finding::new("thing", *state, "what\r\nwas found");
    Report {
        findings: states.iter().map(finding).collect(),
    }
}

#[test]
fn an_open_relay_is_worse_than_anything_else() {
    let bad = State::Bad;
    let worst = |states: &[State]| report(states).worst();
    assert_eq!(worst(&[State::Good, State::Warning]), None);
    assert_eq!(
        worst(&[bad(Fault::Configuration), bad(Fault::Unavailable)]),
        Some(Fault::Configuration)
    );
    assert_eq!(
        worst(&[bad(Fault::OpenRelay), bad(Fault::Configuration)]),
        Some(Fault::OpenRelay)
    );
}

#[test]
fn a_finding_is_one_line_whatever_a_server_says() {
    let report = report(&[State::Good, State::Bad(Fault::Unavailable)]);
    let lines: Vec<String> = report.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "ok       thing  what\\r\\nwas found",
            "error    thing  what\\r\\nwas found",
            "errors: 1, warnings: 0"
        ]
    );
}
