//! A cable to another host: a network namespace of its own behind a pair of virtual
//! interfaces, which can be cut and made too thin for what is sent through it.
//!
//! The hosts' addresses are out of the network that is for such tests (RFC 2544
//! appendix C.2.2).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{between, run};

pub struct Cable {
    /// The address at the far end.
    pub far: Ipv4Addr,
    /// The host at the far end, as a network namespace.
    pub host: String,
    near_end: String,
    far_end: String,
}

impl Cable {
    /// Only root may lay one.
    #[track_caller]
    pub fn lay() -> Self {
        static LAID: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let number = process.wrapping_mul(31) + LAID.fetch_add(1, Ordering::Relaxed);
        let network = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number % (1 << 15) * 4;
        let (near, far) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        let name = format!("pc{:x}", number % (1 << 20));
        let cable = Self {
            far,
            near_end: format!("{name}-near"),
            far_end: format!("{name}-far"),
            host: name,
        };
        let (host, near_end, far_end) = (&cable.host, &cable.near_end, &cable.far_end);
        ip(&format!("netns add {host}"));
        ip(&format!(
            "link add {near_end} type veth peer name {far_end} netns {host}"
        ));
        ip(&format!("address add {near}/30 dev {near_end}"));
        ip(&format!("-n {host} address add {far}/30 dev {far_end}"));
        ip(&format!("-n {host} link set lo up"));
        ip(&format!("link set {near_end} up"));
        cable.mend();
        cable
    }

    /// From now on nothing that is sent arrives, and nobody is told.
    #[track_caller]
    pub fn cut(&self) {
        ip(&format!("-n {} link set {} down", self.host, self.far_end));
    }

    /// All of it arrives again.
    #[track_caller]
    pub fn mend(&self) {
        ip(&format!("-n {} link set {} up", self.host, self.far_end));
    }

    /// Of what is sent to the far end, more than two megabits a second are lost.
    #[track_caller]
    pub fn throttle(&self) {
        let end = &self.near_end;
        tc(&format!(
            "qdisc replace dev {end} root tbf rate 2mbit burst 4kb limit 6kb"
        ));
    }

    /// Everything fits through again; returns how many packets were lost.
    #[track_caller]
    pub fn widen(&self) -> u64 {
        let end = &self.near_end;
        let told = tc(&format!("-s qdisc show dev {end} root"));
        tc(&format!("qdisc del dev {end} root"));
        let lost = between(&told, "dropped ", ",").unwrap_or_else(|| panic!("{told}"));
        lost.parse().unwrap()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The near end goes with the far one, and that with its namespace, once
        // nobody is in there any more.
        for words in [
            vec!["link", "del", &self.near_end],
            vec!["netns", "del", &self.host],
        ] {
            let _ = std::process::Command::new("ip").args(words).status();
        }
    }
}

#[track_caller]
fn ip(words: &str) {
    say("ip", words);
}

#[track_caller]
fn tc(words: &str) -> String {
    say("tc", words)
}

#[track_caller]
fn say(program: &str, words: &str) -> String {
    let words: Vec<_> = words.split(' ').collect();
    let finished = run(program, &words, b"", Duration::from_secs(20));
    finished.assert_success().stdout
}
