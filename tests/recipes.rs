//! Recipes of the README, done with the real thing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use support::{
    Daemon, Options, Portcullis, Postfix, Smtp, between, free_address, letter, wait_for,
};

/// The balancer's own address, the only one that is believed.
const BALANCER: &str = "127.0.0.5";
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// HAProxy as the README configures it, at the test's addresses.
fn haproxy(portcullis: &Portcullis) -> (Daemon, SocketAddr) {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let recipe = between(&readme, "<!-- haproxy:begin -->\n```\n", "```\n").unwrap();
    let address = free_address();
    let mut config = recipe.to_owned();
    for (theirs, ours) in [
        ("bind :25", format!("bind {address}")),
        (
            "10.0.0.2:2525",
            format!("{} source {BALANCER}", portcullis.mx),
        ),
        (
            "port 9090",
            format!("port {} inter 200ms", portcullis.admin.port()),
        ),
    ] {
        assert!(config.contains(theirs), "no `{theirs}` in\n{recipe}");
        config = config.replace(theirs, &ours);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    (Daemon::start(command, folder, address), address)
}

#[test]
fn haproxy_tells_who_the_client_is_and_takes_out_whom_has_no_backend() {
    let postfix = Postfix::start(Options::default());
    let settings = [
        ("PROXY_TRUSTED", BALANCER),
        ("BACKEND_PROBE_INTERVAL", "1s"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let (haproxy, address) = haproxy(&portcullis);

    let mut client = Smtp::connect_from(CLIENT, address);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    let message = letter("haproxy");
    let reply = client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    assert!(postfix.log().contains(&format!("client=unknown[{CLIENT}]")));

    drop(postfix);
    let taken_out = wait_for(Duration::from_secs(30), || {
        let mut client = Smtp::connect_from(CLIENT, address);
        client.reply_or_end().is_empty().then_some(())
    });
    assert!(
        taken_out.is_some(),
        "{}\n{}",
        haproxy.log(),
        portcullis.log()
    );
}
