use super::certs::shown;
use super::*;

/// Looks at the files again, and what was wrong with them.
fn renew(server: &ServerTls, world: &World) -> Vec<String> {
    let renewal = renew_by(server, &world.settings());
    let told = |problem: &TlsError| problem.to_string();
    renewal.problems.iter().map(told).collect()
}

fn renew_by(server: &ServerTls, settings: &Settings) -> Renewal {
    let files = CertificateFiles::read(settings);
    server.renew(files, "mx.example.org")
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

/// `TLS_CERT` beside the folders, as settings have it by now.
fn with_tls_cert(world: &World, name: &str) -> Settings {
    Settings {
        tls_cert: Some(world.path(&format!("{name}.pem"))),
        tls_key: Some(world.path(&format!("{name}.key"))),
        ..world.settings()
    }
}

/// By a reload, which cannot know whether the other file is any good.
#[tokio::test]
async fn the_default_is_kept_when_tls_cert_moves_to_a_file_that_is_no_good() {
    let world = World::new();
    world.folder("mx", &["mx.example.org"]);
    let issue = |name: &str, validity| {
        let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
        let (chain, key) = (world.path(&chain), world.path(&key));
        world.issue(&chain, &key, &[&format!("{name}.example")], validity);
    };
    issue("a", Validity::Ages);
    issue("over", Validity::Over);
    issue("later", Validity::Later);
    issue("mixed", Validity::Ages);
    fs::copy(world.path("a.key"), world.path("mixed.key")).unwrap();
    let settings = with_tls_cert(&world, "a");
    let (server, _) = ServerTls::new(&settings, "mx.example.org").unwrap();
    for bad in ["absent", "over", "later", "mixed", "absent"] {
        let settings = with_tls_cert(&world, bad);
        let renewal = renew_by(&server, &settings);
        assert!(!renewal.problems.is_empty(), "{bad}");
        assert_eq!(shown(&server, "192.0.2.1").await, ["a.example"], "{bad}");
        assert_eq!(renewal.loaded.certificates().len(), 2, "{bad}");
    }
    issue("b", Validity::Ages);
    let renewal = renew_by(&server, &with_tls_cert(&world, "b"));
    assert!(renewal.problems.is_empty(), "{:?}", renewal.problems);
    assert_eq!(shown(&server, "192.0.2.1").await, ["b.example"]);
    assert_eq!(renewal.loaded.certificates().len(), 2);
}

#[tokio::test]
async fn a_folder_is_known_again_where_tls_dir_moves() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("b", &["b.example"]);
    let server = world.server();
    fs::rename(world.path("certs"), world.path("moved")).unwrap();
    fs::write(world.path("moved/b/privkey.pem"), "broken").unwrap();
    let settings = Settings {
        tls_dir: world.path("moved"),
        ..world.settings()
    };
    assert_eq!(renew_by(&server, &settings).problems.len(), 1);
    assert_eq!(shown(&server, "b.example").await, ["b.example"]);
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
}

#[tokio::test]
async fn where_tls_cert_never_was_any_good_the_own_name_is_the_default() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("b", &["mx.example.org"]);
    let server = world.server();
    let renewal = renew_by(&server, &with_tls_cert(&world, "absent"));
    assert_eq!(renewal.problems.len(), 2);
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

#[tokio::test]
async fn a_certificate_that_is_broken_as_tls_cert_takes_its_folder_over() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("mx", &["mx.example.org"]);
    let server = world.server();
    let (chain, key) = (
        world.path("certs/a/fullchain.pem"),
        world.path("certs/a/privkey.pem"),
    );
    fs::write(&key, "broken").unwrap();
    let settings = Settings {
        tls_cert: Some(chain),
        tls_key: Some(key),
        ..world.settings()
    };
    assert_eq!(renew_by(&server, &settings).problems.len(), 2);
    assert_eq!(shown(&server, "192.0.2.1").await, ["a.example"]);
    // No longer as the default.
    renew_by(&server, &world.settings());
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
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
    fs::remove_dir_all(world.path("certs/mx")).unwrap();
    assert_eq!(renew(&server, &world), ["no certificate is left"]);
    let names = ["mx.example.org", "mail.example.org"];
    assert_eq!(shown(&server, "192.0.2.1").await, names);
}

#[tokio::test]
async fn all_are_kept_while_their_folder_is_gone() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("mx", &["mx.example.org"]);
    let server = world.server();
    fs::rename(world.path("certs"), world.path("elsewhere")).unwrap();
    let problems = renew(&server, &world);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("cannot read "), "{problems:?}");
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

/// As while somebody puts another volume in the old one's place.
#[cfg(unix)]
#[tokio::test]
async fn a_folder_whose_links_lead_nowhere_keeps_its_certificate_and_others_change() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("b", &["b.example"])
        .folder("c", &["c.example"]);
    let server = world.server();
    let certs = world.path("certs");
    for folder in ["a", "b", "c"] {
        fs::remove_dir_all(certs.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", certs.join("a")).unwrap();
    fs::create_dir(certs.join("b")).unwrap();
    for file in ["fullchain.pem", "privkey.pem"] {
        std::os::unix::fs::symlink("nowhere", certs.join("b").join(file)).unwrap();
    }
    world.folder("c", &["c2.example"]);
    assert_eq!(renew(&server, &world).len(), 3);
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
    assert_eq!(shown(&server, "b.example").await, ["b.example"]);
    assert_eq!(shown(&server, "c2.example").await, ["c2.example"]);
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
