use super::certs::shown;
use super::*;

/// Looks at the files again, and what was wrong with them.
fn renew(server: &ServerTls, world: &World) -> Vec<String> {
    let settings = world.settings();
    let files = CertificateFiles::read(&settings);
    let renewal = server.renew(files, &settings, "mx.example.org");
    let told = |problem: &TlsError| problem.to_string();
    renewal.problems.iter().map(told).collect()
}

fn fingerprint(world: &World) -> u64 {
    CertificateFiles::read(&world.settings()).fingerprint()
}

#[tokio::test]
async fn new_and_removed_folders_are_noticed_and_clones_show_the_same() {
    let world = World::new();
    world
        .folder("a.example", &["a.example"])
        .folder("mx", &["mx.example.org"]);
    let server = world.server();
    let clone = server.clone();
    fs::remove_dir_all(world.path("certs/a.example")).unwrap();
    world.folder("b.example", &["b.example"]);
    assert_eq!(renew(&server, &world), [""; 0]);
    assert_eq!(shown(&clone, "b.example").await, ["b.example"]);
    assert_eq!(shown(&clone, "a.example").await, ["mx.example.org"]);
}

#[tokio::test]
async fn one_broken_renewal_keeps_its_own_old_certificate_and_no_other() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("b", &["b.example"])
        .folder("c", &["c.example"]);
    let server = world.server();
    let key = world.path("certs/a/privkey.pem");
    fs::write(&key, fs::read(world.path("certs/b/privkey.pem")).unwrap()).unwrap();
    fs::remove_file(world.path("certs/c/privkey.pem")).unwrap();
    fs::remove_dir_all(world.path("certs/b")).unwrap();
    world.folder("b", &["b.example", "b2.example"]);
    let problems = renew(&server, &world);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("a/privkey.pem does not fit"));
    assert!(problems[1].contains("c/fullchain.pem has no privkey.pem beside it"));
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
    assert_eq!(
        shown(&server, "b2.example").await,
        ["b.example", "b2.example"]
    );
    assert_eq!(shown(&server, "c.example").await, ["c.example"]);
}

#[tokio::test]
async fn a_renewal_that_has_expired_is_not_shown() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let server = world.server();
    fs::remove_dir_all(world.path("certs/mx")).unwrap();
    world.folder_valid("mx", &["old.example.org"], Validity::Over);
    assert!(renew(&server, &world)[0].contains("expired on 2020-01-01"));
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

#[tokio::test]
async fn a_renewal_that_is_not_valid_yet_is_not_shown() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let server = world.server();
    fs::remove_dir_all(world.path("certs/mx")).unwrap();
    world.folder_valid("mx", &["new.example.org"], Validity::Later);
    let problems = renew(&server, &world);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let told = "mx/fullchain.pem is not valid before 4000-01-01T00:00:00Z";
    assert!(problems[0].ends_with(told), "{problems:?}");
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

#[tokio::test]
async fn of_two_that_are_not_valid_yet_the_newer_is_shown() {
    let world = World::new();
    world.folder_valid("mx", &["old.example.org"], Validity::Later);
    let server = world.server();
    assert_eq!(renew(&server, &world), [""; 0], "the very same");
    fs::remove_dir_all(world.path("certs/mx")).unwrap();
    world.folder_valid("mx", &["new.example.org"], Validity::Later);
    assert_eq!(renew(&server, &world), [""; 0]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["new.example.org"]);
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_does_not_replace_the_self_signed_one() {
    let world = World::new();
    let server = world.server();
    world.folder_valid("mail", &["mail.example.org"], Validity::Later);
    assert_eq!(renew(&server, &world).len(), 1);
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

#[tokio::test]
async fn the_last_certificate_is_kept_when_all_are_gone() {
    let world = World::new();
    world.folder("mx", &["mx.example.org", "mail.example.org"]);
    let server = world.server();
    fs::remove_dir_all(world.path("certs")).unwrap();
    assert_eq!(renew(&server, &world), ["no certificate is left"]);
    let names = ["mx.example.org", "mail.example.org"];
    assert_eq!(shown(&server, "192.0.2.1").await, names);
}

#[tokio::test]
async fn a_certificate_that_comes_later_replaces_the_self_signed_one() {
    let world = World::new();
    let server = world.server();
    assert_eq!(renew(&server, &world), [""; 0]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
    world.folder("mail", &["mail.example.org"]);
    assert_eq!(renew(&server, &world), [""; 0]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["mail.example.org"]);
}

#[test]
fn the_fingerprint_tells_a_changed_file_from_a_touched_one() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let first = fingerprint(&world);
    let key = world.path("certs/mx/privkey.pem");
    let content = fs::read(&key).unwrap();
    fs::write(&key, &content).unwrap();
    assert_eq!(fingerprint(&world), first);
    fs::write(&key, [&content[..], b"\n"].concat()).unwrap();
    assert_ne!(fingerprint(&world), first);
    fs::remove_file(&key).unwrap();
    let without = fingerprint(&world);
    assert_ne!(without, first);
    fs::remove_dir_all(world.path("certs")).unwrap();
    assert_ne!(fingerprint(&world), without);
}

/// The mount of a secret: `..data` leads to a folder with a date, everything
/// else leads through it, and an update replaces that one link.
#[cfg(unix)]
#[tokio::test]
async fn follows_the_links_of_a_kubernetes_mount() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    let certs = world.path("certs");
    let publish = |dated: &str, name: &str| {
        let folder = certs.join(dated).join("mx");
        fs::create_dir_all(&folder).unwrap();
        let (chain, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        world.issue(&chain, &key, &[name], Validity::Ages);
        symlink(dated, certs.join("..data_tmp")).unwrap();
        fs::rename(certs.join("..data_tmp"), certs.join("..data")).unwrap();
    };
    publish("..2026_01", "first.example");
    symlink("..data/mx", certs.join("mx")).unwrap();
    let (server, loaded) = ServerTls::new(&world.settings(), "mx.example.org").unwrap();
    assert_eq!(loaded.certificates().len(), 1, "{loaded:?}");
    let before = fingerprint(&world);
    publish("..2026_02", "second.example");
    assert_ne!(fingerprint(&world), before);
    assert_eq!(renew(&server, &world), [""; 0]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["second.example"]);
}

#[tokio::test]
async fn a_change_of_the_oldest_version_keeps_the_certificates() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let old = world.server();
    let new = old.since(TlsMin::Tls13).unwrap();
    fs::remove_dir_all(world.path("certs/mx")).unwrap();
    world.folder("mx", &["new.example.org"]);
    renew(&new, &world);
    assert_eq!(shown(&old, "192.0.2.1").await, ["new.example.org"]);
    assert_eq!(shown(&new, "192.0.2.1").await, ["new.example.org"]);
    let client = Arc::new(anyone(&[&rustls::version::TLS12], &[]));
    assert!(meet(&old, &client, "192.0.2.1").await.1.is_ok());
    assert!(meet(&new, &client, "192.0.2.1").await.1.is_err());
}

/// Whoever opened one for reading would wait for a writer, and never hear HUP
/// or TERM again.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let server = world.server();
    let chain = world.path("certs/mx/fullchain.pem");
    fs::remove_file(&chain).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&chain).status();
    assert!(made.unwrap().success());
    let (told, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(renew(&server, &world)));
    let problems = hears.recv_timeout(std::time::Duration::from_secs(60));
    let problems = problems.unwrap();
    assert!(problems[0].contains("no regular file"), "{problems:?}");
}
