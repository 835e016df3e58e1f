//! OpenMetrics text turned into the older Prometheus text format 0.0.4.
//!
//! The two differ in their headers only: the older one names a counter with its
//! `_total` and an info with its `_info`, knows no info, no unit and no end
//! (prometheus.io, "Exposition formats"; OpenMetrics 1.0.0).

/// The same metrics in the older format.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut plain = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes next.
            help = about.split_once(' ');
        } else if let Some((name, kind)) = declared(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take() {
                plain.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            plain.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

/// Name and type.
fn declared(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}
