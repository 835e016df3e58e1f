//! HAProxy in TCP mode, and with TLS in front. It does not look at what it passes on,
//! so it cannot offer STARTTLS; it writes no log here.

use std::fs;
use std::process::Command;

use super::{House, Kind, Limits, Peer, says};
use crate::door::Doors;
use crate::support::{Daemon, between, free_address};

pub(super) fn version() -> Option<String> {
    let text = says("haproxy", &["-v"])?;
    between(&text, "version ", " ").map(str::to_owned)
}

pub(super) fn start(house: &House, limits: Limits) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("both.pem");
    let certificate = &house.certificate;
    let both = [&certificate.chain, &certificate.key].map(|file| fs::read(file).unwrap());
    fs::write(&pem, both.concat()).unwrap();
    let (plain, tls) = (free_address(), free_address());
    let rule = match limits {
        Limits::Off => "",
        Limits::On => {
            "  stick-table type ip size 100k expire 60s store conn_rate(60s)
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_rate gt 60 }"
        }
    };
    let (sink, pem) = (house.sink, pem.display());
    let config = format!(
        "\
global
  nbthread 2
  maxconn 9000
defaults
  mode tcp
  timeout connect 10s
  timeout client 10m
  timeout server 10m
listen plain
  bind {plain}
{rule}
  server sink {sink}
listen tls
  bind {tls} ssl crt {pem}
  server sink {sink}
"
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let daemon = Daemon::start(command, folder, plain);
    let doors = Doors {
        plain: Some(plain),
        starttls: None,
        tls: Some(tls),
    };
    Peer::new(Kind::Haproxy, doors, daemon.id(), daemon)
}
