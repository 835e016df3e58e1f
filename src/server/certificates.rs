//! Keeps the certificates that clients are shown as they are on disk, and tells
//! log, metrics and health about them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;

use super::health::Health;
use super::sandbox;
use crate::metrics::{self, Attempt, Reload};
use crate::tls::{self, CertificateFiles, Loaded, Renewal, ServerTls, TlsError};

/// Why certificates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// It is time again.
    Poll,
    /// Somebody asks for it.
    Hup,
}

/// What is known of the files.
pub(super) struct Watch {
    /// The fingerprint of the files whose certificates are shown, or of those
    /// that the log has complained of.
    seen: u64,
    /// Files that were found broken once. A renewal writes one file after the
    /// other, so they are given until the next look.
    suspect: Option<u64>,
    /// When the first of those that were refused because they are not valid yet
    /// will be.
    due: Option<SystemTime>,
    hostname: String,
}

impl Watch {
    /// Loads the certificates for the first time. Blocks.
    ///
    /// # Errors
    /// Every problem found.
    pub(super) fn begin(
        settings: &tls::Settings,
        hostname: &str,
    ) -> Result<(Self, ServerTls, Loaded), Vec<TlsError>> {
        let files = CertificateFiles::read(settings);
        let watch = Self {
            seen: files.fingerprint(),
            suspect: None,
            due: None,
            hostname: hostname.to_owned(),
        };
        let (tls, loaded) = ServerTls::with(files, settings, hostname)?;
        show(&loaded);
        tell(&loaded, settings, hostname);
        Ok((watch, tls, loaded))
    }

    /// Looks at the files that other settings name, and changes nothing yet.
    ///
    /// # Errors
    /// Every reason not to show what they hold.
    pub(super) async fn weigh(
        &self,
        tls: &ServerTls,
        settings: &tls::Settings,
    ) -> Result<(), Vec<TlsError>> {
        let reading = settings.clone();
        // It fails only when the runtime ends.
        let Ok(files) = spawn_blocking(move || CertificateFiles::read(&reading)).await else {
            return Ok(());
        };
        let problems = tls.weigh(files, &self.hostname);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Looks at the files again and shows what they hold by now.
    pub(super) async fn look(
        &mut self,
        occasion: Occasion,
        tls: &ServerTls,
        settings: &Arc<tls::Settings>,
        health: &Health,
    ) {
        let reading = Arc::clone(settings);
        // It fails only when the runtime ends.
        let Ok(files) = spawn_blocking(move || CertificateFiles::read(&reading)).await else {
            return;
        };
        let fingerprint = files.fingerprint();
        let is_due = self.due.is_some_and(|due| due <= SystemTime::now());
        if occasion == Occasion::Poll && fingerprint == self.seen && !is_due {
            self.suspect = None;
            return;
        }
        let Renewal { loaded, problems } = tls.renew(files, &self.hostname);
        show(&loaded);
        health.certified(&loaded);
        let new_to_us = self.suspect.replace(fingerprint) != Some(fingerprint);
        if occasion == Occasion::Poll && !problems.is_empty() && new_to_us {
            return;
        }
        self.suspect = None;
        let changed = self.seen != fingerprint || is_due;
        self.seen = fingerprint;
        self.due = problems.iter().filter_map(begins).min();
        let attempt = if problems.is_empty() {
            Attempt::Succeeded
        } else {
            Attempt::Failed
        };
        metrics::get().reloaded(Reload::Certificates, attempt);
        for problem in &problems {
            tracing::error!(%problem, "a certificate cannot be used; what was shown in its place before still is");
            sandbox::suspect(&problem.to_string());
        }
        if changed && problems.is_empty() {
            tracing::info!("certificates have changed");
            tell(&loaded, settings, &self.hostname);
        }
    }
}

fn begins(problem: &TlsError) -> Option<SystemTime> {
    match problem {
        TlsError::NotYetValid { not_before, .. } => Some(*not_before),
        _ => None,
    }
}

/// Shows the metrics when they end.
fn show(loaded: &Loaded) {
    let ends = &metrics::get().certificate_expiry_timestamp_seconds;
    for certificate in loaded.certificates() {
        let not_after = certificate.not_after.duration_since(UNIX_EPOCH);
        let seconds = not_after.unwrap_or_default().as_secs();
        let end = ends.named(&certificate.label());
        end.of(()).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
    let shown = |name: &str| loaded.certificates().iter().any(|c| c.label() == name);
    ends.keep(shown);
}

fn tell(loaded: &Loaded, settings: &tls::Settings, hostname: &str) {
    match loaded {
        Loaded::SelfSigned(_) => tracing::warn!(
            hostname,
            folder = %settings.folder().display(),
            "NO CERTIFICATE: a self-signed one was made and lives in memory only; clients that check will refuse it. Set PORTCULLIS_TLS_CERT and PORTCULLIS_TLS_KEY, or put <name>/fullchain.pem and <name>/privkey.pem into the folder (PORTCULLIS_TLS_DIR)"
        ),
        Loaded::FromFiles(certificates) => {
            for certificate in certificates {
                let not_after = humantime::format_rfc3339_seconds(certificate.not_after);
                tracing::info!(file = certificate.label(), names = certificate.names.join(" "), %not_after, "certificate");
                if certificate.is_early(SystemTime::now()) {
                    let not_before = humantime::format_rfc3339_seconds(certificate.not_before);
                    tracing::warn!(file = certificate.label(), %not_before, "the certificate is not valid yet, or the clock is wrong: clients that check will refuse it");
                }
            }
        }
    }
}
