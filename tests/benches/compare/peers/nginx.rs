//! nginx's mail module: it talks to the client up to the first RCPT, asks an HTTP server
//! where to go, and copies octets from then on.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{House, Kind, Peer, says};
use crate::door::Doors;
use crate::support::{Daemon, free_address};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_mail_module.so";

pub(super) fn version() -> Option<String> {
    let text = says("nginx", &["-v"])?;
    let (_, version) = text.trim().rsplit_once('/')?;
    Path::new(MODULE).exists().then(|| version.to_owned())
}

pub(super) fn start(house: &House) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    let (plain, tls) = (free_address(), free_address());
    let (root, auth_http) = (folder.path().display(), house.auth_http.address);
    let (chain, key) = (
        house.certificate.chain.display(),
        house.certificate.key.display(),
    );
    let config = format!(
        "\
load_module {MODULE};
daemon off;
worker_processes 2;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 9000; }}
mail {{
  server_name mx.portcullis.test;
  auth_http {auth_http}/;
  timeout 10m;
  smtp_auth none;
  smtp_capabilities PIPELINING \"SIZE 67108864\" 8BITMIME;
  xclient off;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_certificate {chain};
  ssl_certificate_key {key};
  server {{ listen {plain}; protocol smtp; starttls on; }}
  server {{ listen {tls} ssl; protocol smtp; }}
}}
"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    let daemon = Daemon::start(command, folder, plain);
    let doors = Doors {
        plain: Some(plain),
        starttls: Some(plain),
        tls: Some(tls),
    };
    Peer::new(Kind::Nginx, doors, daemon.id(), daemon)
}
