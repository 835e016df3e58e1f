//! Haraka with its plugin `queue/smtp_proxy`, which opens the sink at MAIL and has it
//! decide. Installed into a folder of the build by
//! `npm install --prefix target/haraka Haraka`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{House, Kind, Peer};
use crate::door::Doors;
use crate::support::{Daemon, free_address};

fn package() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../haraka/node_modules/Haraka")
}

pub(super) fn version() -> Option<String> {
    let text = fs::read_to_string(package().join("package.json")).ok()?;
    let json: Value = serde_json::from_str(&text).ok()?;
    json["version"].as_str().map(str::to_owned)
}

pub(super) fn start(house: &House) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    let (plain, tls) = (free_address(), free_address());
    let certificate = &house.certificate;
    let config = folder.path().join("config");
    fs::create_dir(&config).unwrap();
    // It starts without the files that it is shipped with, and fails at the first client.
    for file in fs::read_dir(package().join("config")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), config.join(file.file_name())).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(config.join(name), text).unwrap();
    write("me", "mx.portcullis.test\n");
    write("plugins", "tls\nrcpt_to.in_host_list\nqueue/smtp_proxy\n");
    write("host_list", "example.org\n");
    let (host, port) = (house.sink.ip(), house.sink.port());
    write("smtp_proxy.ini", &format!("host={host}\nport={port}\n"));
    let listen = format!("listen={plain},{tls}\nsmtps_port={}\n", tls.port());
    write(
        "smtp.ini",
        &format!("{listen}nodes=2\ninactivity_timeout=600\n"),
    );
    fs::copy(&certificate.chain, config.join("tls_cert.pem")).unwrap();
    fs::copy(&certificate.key, config.join("tls_key.pem")).unwrap();
    let mut command = Command::new("node");
    command.arg(package().join("bin/haraka"));
    command.arg("-c").arg(folder.path());
    let daemon = Daemon::start(command, folder, plain);
    let doors = Doors {
        plain: Some(plain),
        starttls: Some(plain),
        tls: Some(tls),
    };
    Peer::new(Kind::Haraka, doors, daemon.id(), daemon)
}
