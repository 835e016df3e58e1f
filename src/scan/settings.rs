//! The scanners that are asked, and the bounds of asking them.

use std::num::NonZeroU16;
use std::time::Duration;

use super::address::ServiceAddress;
use super::milter::MilterAddress;
use super::rspamd::RspamdAddress;
use super::spamassassin::{SpamdReport, SpamdUser};
use crate::settings::{List, Positive, Secret, Size, Value};

/// A client waits ten minutes for the reply to its final dot (RFC 5321
/// 4.5.3.2.6), and the backend wants some of them.
const TIMEOUT_MAX: Duration = Duration::from_secs(8 * 60);

/// Most milters; each one is asked after the other.
const MILTERS_MAX: usize = 16;

crate::settings::section! {
    /// The content scanners: each message is judged by all that are named here before the backend sees any of it.
    pub struct Settings {
        /// SpamAssassin's spamd: `host:783` or `unix:/path`.
        spamassassin: OrOff<ServiceAddress> = "off", example "127.0.0.1:783";
        /// The user whose preferences spamd loads.
        spamassassin_user: Option<SpamdUser>, example "portcullis";
        /// Whether spamd's own account of the rules hit goes into the message as `X-Spam-Report`.
        spamassassin_report: SpamdReport = "false", example "true";
        /// A larger message is not shown to SpamAssassin, whose time grows with the text and whose children are few: it goes on with a message when nobody waits any more. Spam is seldom larger; the other scanners see the message all the same.
        spamassassin_max_size: Positive<Size> = "1M", example "512K";
        /// rspamd's normal or proxy worker: `http://host:11333`.
        rspamd: OrOff<RspamdAddress> = "off", example "http://127.0.0.1:11333";
        /// Password that rspamd demands.
        #[secret]
        rspamd_password: Option<Secret>, example "q1w2e3";
        /// ClamAV's clamd: `host:3310` or `unix:/path`.
        clamav: OrOff<ServiceAddress> = "off", example "unix:/run/clamav/clamd.ctl";
        /// Milters, `inet:host:port` or `unix:/path`, asked in this order until one refuses. Each is shown the message as it came; of two that write another body the second has failed.
        milters: MilterList = "", example "inet:127.0.0.1:8891, unix:/run/opendkim/opendkim.sock";
        /// A larger message is not scanned: it passes, and `X-Portcullis-Scan` says so.
        scan_max_size: Positive<Size> = "25M", example "10M";
        /// How long all scanners together may take for a message; no more than 8min, since a client waits for ten.
        scan_timeout: ScanTimeout = "60s", example "2min";
        /// Messages that one scanner works on at once; more wait, within `SCAN_TIMEOUT`.
        scan_concurrency: NonZeroU16 = "32", example "8";
    }
}

impl Settings {
    /// How many scanners they name.
    pub fn scanners(&self) -> usize {
        let others = [
            self.spamassassin.0.is_some(),
            self.rspamd.0.is_some(),
            self.clamav.0.is_some(),
        ];
        others.into_iter().filter(|is_set| *is_set).count() + self.milters.0.len()
    }
}

/// A scanner's address, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: Value> Value for OrOff<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        T::parse(text).map(|address| Self(Some(address)))
    }
}

/// The milters in the order in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MilterList(pub Vec<MilterAddress>);

impl Value for MilterList {
    fn parse(text: &str) -> Result<Self, String> {
        let List(addresses) = List::parse(text)?;
        if addresses.len() > MILTERS_MAX {
            return Err(format!("names more than {MILTERS_MAX} milters"));
        }
        Ok(Self(addresses))
    }
}

/// How long the scanners may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanTimeout(pub Duration);

impl Value for ScanTimeout {
    fn parse(text: &str) -> Result<Self, String> {
        let patience = Duration::parse(text)?;
        if patience.is_zero() {
            return Err("leaves no time at all".to_owned());
        }
        if patience > TIMEOUT_MAX {
            return Err(
                "is above 8min: the client would give up before it hears the answer".to_owned(),
            );
        }
        Ok(Self(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_more_patience_than_the_client_has() {
        assert!(ScanTimeout::parse("8min").is_ok());
        assert!(ScanTimeout::parse("481s").is_err());
        assert!(ScanTimeout::parse("0s").is_err());
    }

    #[test]
    fn a_scanner_can_be_off() {
        assert_eq!(OrOff::<RspamdAddress>::parse("off"), Ok(OrOff(None)));
        assert!(OrOff::<RspamdAddress>::parse("of").is_err());
        assert!(Settings::default().clamav.0.is_none());
    }
}
