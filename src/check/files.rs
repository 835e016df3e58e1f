//! Settings and the files that they name. Blocking reads; nobody else is asked.
//!
//! Files are looked at as the user whom root would become (`RUN_AS`): the rest of
//! the process is that user, too.

use std::time::{Duration, SystemTime};

use super::{Fault, Finding};
use crate::config::Parts;
use crate::limits;
use crate::policy::{self, Mode, Relay};
use crate::proxy_protocol;
use crate::scan::{self, Scanners};
use crate::server;
use crate::settings::Problems;
use crate::spool::{self, Spool};
use crate::tls::{self, Inspector, Loaded, LoadedCertificate, ServerTls};

/// A certificate that ends sooner should have been renewed: authorities whose
/// certificates last for 90 days want that done after 60.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) fn look_at(parts: &Parts, problems: &Problems) -> Vec<Finding> {
    let mut findings = settings(problems);
    // Root raises the number of descriptors before it becomes somebody else.
    let sessions = parts.limits.as_ref().zip(parts.scan.as_ref());
    let sessions = sessions.map(|(limits, scan)| self::sessions(limits, scan));
    if let Some(settings) = &parts.server {
        if let Err(error) = server::drop_privileges(settings) {
            let text = error.to_string();
            findings.push(Finding::bad(Fault::Configuration, "privileges", text));
        }
        let hostname = server::hostname(settings.hostname.as_ref());
        findings.push(self::hostname(hostname.as_str()));
        if let Some(settings) = &parts.tls {
            findings.extend(certificates(settings, hostname.as_str()));
        }
    }
    if let Some(settings) = &parts.backend
        && let Some(ca) = &settings.backend_tls_ca
    {
        findings.push(match Inspector::new(Some(ca)) {
            Ok(_) => Finding::good("backend authorities", ca.display().to_string()),
            Err(error) => Finding::bad(
                Fault::Configuration,
                "backend authorities",
                error.to_string(),
            ),
        });
    }
    findings.extend(parts.policy.as_ref().map(guard));
    findings.extend(parts.proxy_protocol.as_ref().and_then(claims));
    if let (Some(scan), Some(spool)) = (&parts.scan, &parts.spool)
        && Scanners::new(scan).is_enabled()
    {
        findings.push(folder(spool));
    }
    findings.extend(sessions);
    findings
}

fn settings(problems: &Problems) -> Vec<Finding> {
    if problems.is_empty() {
        return vec![Finding::good("settings", "every one has a good value")];
    }
    let bad = |problem: &crate::settings::Problem| {
        Finding::bad(Fault::Configuration, "settings", problem.to_string())
    };
    problems.0.iter().map(bad).collect()
}

fn hostname(name: &str) -> Finding {
    if name.contains('.') {
        return Finding::good("hostname", name);
    }
    let text = format!(
        "{name} is not fully qualified: set PORTCULLIS_HOSTNAME to the name in your MX record"
    );
    Finding::warning("hostname", text)
}

fn certificates(settings: &tls::Settings, hostname: &str) -> Vec<Finding> {
    const WHAT: &str = "certificate";
    let loaded = match ServerTls::new(settings, hostname) {
        Ok((_, loaded)) => loaded,
        Err(errors) => {
            let bad =
                |error: &tls::TlsError| Finding::bad(Fault::Configuration, WHAT, error.to_string());
            return errors.iter().map(bad).collect();
        }
    };
    if let Loaded::SelfSigned(_) = &loaded {
        let text = format!(
            "none: a self-signed one would be made for {hostname}, which no client can verify; set PORTCULLIS_TLS_CERT and PORTCULLIS_TLS_KEY, or fill {}",
            settings.folder().display()
        );
        return vec![Finding::warning(WHAT, text)];
    }
    let certificates = loaded.certificates();
    let mut findings: Vec<Finding> = certificates.iter().map(lifetime).collect();
    if !certificates.iter().any(|one| covers(one, hostname)) {
        let text =
            format!("none is for {hostname}, the name that clients know from your MX record");
        findings.push(Finding::warning(WHAT, text));
    }
    findings
}

fn lifetime(certificate: &LoadedCertificate) -> Finding {
    let text = format!(
        "{} for {}, ends {}",
        certificate.label(),
        certificate.names.join(" "),
        humantime::format_rfc3339_seconds(certificate.not_after)
    );
    let now = SystemTime::now();
    if certificate.is_early(now) {
        let not_before = humantime::format_rfc3339_seconds(certificate.not_before);
        let text = format!("{text}: it is not valid before {not_before}");
        return Finding::warning("certificate", text);
    }
    match certificate.not_after.duration_since(now) {
        Ok(left) if left >= RENEWED_BEFORE => Finding::good("certificate", text),
        _ => Finding::warning("certificate", format!("{text}: renew it soon")),
    }
}

/// A wildcard stands for the leftmost label (RFC 6125 6.4.3).
fn covers(certificate: &LoadedCertificate, hostname: &str) -> bool {
    let hostname = hostname.to_ascii_lowercase();
    let parent = hostname.split_once('.').map(|(_, parent)| parent);
    certificate
        .names
        .iter()
        .any(|name| *name == hostname || (parent.is_some() && name.strip_prefix("*.") == parent))
}

fn guard(settings: &policy::Settings) -> Finding {
    const WHAT: &str = "relay guard";
    match (settings.mode, settings.relay) {
        (_, Relay::Backend) => Finding::warning(
            WHAT,
            "off, RELAY=backend: the relay is as open as the backend leaves it",
        ),
        (Mode::Monitor, Relay::Guard) => Finding::warning(
            WHAT,
            "off, MODE=monitor, before a backend that is told of clients by XCLIENT or PROXY: the relay is as open as that leaves it; and no limit or scanner refuses anything",
        ),
        (Mode::Enforce, Relay::Guard) if settings.relay_nets.is_empty() => {
            Finding::good(WHAT, "on: without AUTH, mail to DOMAINS only")
        }
        (Mode::Enforce, Relay::Guard) => Finding::good(
            WHAT,
            "on: without AUTH, mail to DOMAINS only, but from RELAY_NETS to anywhere",
        ),
    }
}

/// Whether anybody may say who they are.
fn claims(settings: &proxy_protocol::Settings) -> Option<Finding> {
    let text = "PROXY_TRUSTED holds every address there is: whoever reaches a listener may claim any address, so limits and bans hold for nobody; name the balancers alone";
    let everybody = settings.proxy_trusted.holds_everybody();
    everybody.then(|| Finding::warning("PROXY header", text))
}

fn folder(settings: &spool::Settings) -> Finding {
    match Spool::new(settings) {
        Ok(_) => Finding::good("spool", "a file can be made"),
        Err(error) => Finding::bad(Fault::Configuration, "spool", error.to_string()),
    }
}

fn sessions(settings: &limits::Settings, scan: &scan::Settings) -> Finding {
    let wanted = settings.sessions_max.get();
    let served = server::places(wanted, scan);
    if usize::try_from(wanted).is_ok_and(|wanted| served >= wanted) {
        return Finding::good("sessions", format!("file descriptors for {wanted}"));
    }
    let text = format!(
        "file descriptors for {served} only, SESSIONS_MAX is {wanted}: raise `ulimit -n`, LimitNOFILE= or --ulimit nofile"
    );
    Finding::warning("sessions", text)
}
