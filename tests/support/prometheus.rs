//! A real Prometheus server that scrapes one target every second.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Daemon, free_address, http, wait_for};

pub struct Prometheus {
    address: SocketAddr,
    _daemon: Daemon,
}

impl Prometheus {
    #[track_caller]
    pub fn scraping(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: portcullis, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error");
        Self {
            address,
            _daemon: Daemon::start(command, folder, address),
        }
    }

    /// Asks again and again until the one series of the answer has this value.
    #[track_caller]
    pub fn expect(&self, query: &str, value: &str) {
        let mut answer = String::new();
        let found = wait_for(Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(200));
            answer = self.query(query);
            let parsed: Value = serde_json::from_str(&answer).ok()?;
            let series = parsed.pointer("/data/result")?.as_array()?;
            let [only] = series.as_slice() else {
                return None;
            };
            (only.pointer("/value/1")?.as_str()? == value).then_some(())
        });
        assert!(found.is_some(), "{query} is not {value}: {answer}");
    }

    fn query(&self, query: &str) -> String {
        let encode = |octet: u8| format!("%{octet:02X}");
        let query: String = query.bytes().map(encode).collect();
        http::get(self.address, &format!("/api/v1/query?query={query}")).1
    }
}
