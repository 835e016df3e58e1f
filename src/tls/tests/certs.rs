use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// The names in the certificate that a client is shown.
pub(super) async fn shown(server: &ServerTls, name: &str) -> Vec<String> {
    let client = Arc::new(anyone(BOTH, &[]));
    let (_, stream) = meet(server, &client, name).await;
    let stream = stream.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter();
    names
        .map(|name| match name {
            x509_parser::prelude::GeneralName::DNSName(name) => (*name).to_owned(),
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

fn refused(settings: &Settings) -> Vec<TlsError> {
    match ServerTls::new(settings, "mx.example.org") {
        Ok((_, loaded)) => panic!("accepted {loaded:?}"),
        Err(problems) => problems,
    }
}

#[tokio::test]
async fn chooses_the_exact_name_before_the_wildcard_before_the_default() {
    let world = World::new();
    world
        .folder("a.example.net", &["a.example.net"])
        .folder("wild", &["*.example.org"])
        .folder("mail.example.org", &["mail.example.org"]);
    let server = world.server();
    assert_eq!(
        shown(&server, "mail.example.org").await,
        ["mail.example.org"]
    );
    assert_eq!(
        shown(&server, "MAIL.example.ORG").await,
        ["mail.example.org"]
    );
    assert_eq!(shown(&server, "other.example.org").await, ["*.example.org"]);
    // mx.example.org is the proxy's own name, so the wildcard is the default.
    assert_eq!(shown(&server, "example.org").await, ["*.example.org"]);
    assert_eq!(shown(&server, "192.0.2.1").await, ["*.example.org"]);
    assert_eq!(shown(&server, "a.example.net").await, ["a.example.net"]);
}

#[tokio::test]
async fn a_wildcard_stands_for_one_label_only() {
    let world = World::new();
    world
        .folder("a", &["first.example"])
        .folder("b", &["*.example.net"]);
    let server = world.server();
    assert_eq!(shown(&server, "x.example.net").await, ["*.example.net"]);
    assert_eq!(shown(&server, "x.y.example.net").await, ["first.example"]);
}

#[tokio::test]
async fn the_default_is_tls_cert_then_the_own_name_then_the_first() {
    let world = World::new();
    world
        .folder("a", &["a.example"])
        .folder("b", &["mx.example.org"]);
    assert_eq!(
        shown(&world.server(), "192.0.2.1").await,
        ["mx.example.org"]
    );

    let (cert, key) = (world.path("c.pem"), world.path("c.key"));
    world.issue(&cert, &key, &["c.example"], Validity::Ages);
    let settings = Settings {
        tls_cert: Some(cert),
        tls_key: Some(key),
        ..world.settings()
    };
    let (server, loaded) = ServerTls::new(&settings, "mx.example.org").unwrap();
    assert_eq!(shown(&server, "192.0.2.1").await, ["c.example"]);
    assert_eq!(shown(&server, "a.example").await, ["a.example"]);
    let Loaded::FromFiles(loaded) = loaded else {
        panic!("{loaded:?}")
    };
    let names: Vec<_> = loaded.into_iter().flat_map(|one| one.names).collect();
    assert_eq!(names, ["c.example", "a.example", "mx.example.org"]);

    let (server, _) = ServerTls::new(&world.settings(), "elsewhere.example").unwrap();
    assert_eq!(shown(&server, "192.0.2.1").await, ["a.example"]);
}

#[tokio::test]
async fn the_folder_called_by_a_name_wins_that_name() {
    let world = World::new();
    world
        .folder("a.example", &["a.example", "b.example"])
        .folder("b.example", &["b.example"])
        .folder("c.example", &["d.example"]);
    let server = world.server();
    assert_eq!(shown(&server, "b.example").await, ["b.example"]);
    // Not covered by the certificate, but nothing fits better.
    assert_eq!(shown(&server, "c.example").await, ["d.example"]);
}

#[tokio::test]
async fn a_wildcard_that_covers_a_name_comes_before_a_folder_that_does_not() {
    let world = World::new();
    world
        .folder("a", &["first.example"])
        .folder("mail.example.org", &["other.example"])
        .folder("wild", &["*.example.org"]);
    let server = world.server();
    assert_eq!(shown(&server, "mail.example.org").await, ["*.example.org"]);
    assert_eq!(shown(&server, "other.example").await, ["other.example"]);
}

#[tokio::test]
async fn of_two_wildcards_the_folder_called_by_the_name_wins_and_nobody_beats_the_name_itself() {
    let world = World::new();
    world
        .folder("a", &["*.example.org", "a.example"])
        .folder("b.example.org", &["*.example.org", "b.example"])
        .folder("c.example.org", &["*.example.org", "c.example"])
        .folder("d", &["c.example.org"]);
    let server = world.server();
    let of_b = ["*.example.org", "b.example"];
    assert_eq!(shown(&server, "b.example.org").await, of_b);
    assert_eq!(shown(&server, "c.example.org").await, ["c.example.org"]);
    let of_a = ["*.example.org", "a.example"];
    assert_eq!(shown(&server, "x.example.org").await, of_a);
}

#[cfg(unix)]
#[tokio::test]
async fn takes_links_as_certbot_makes_them_and_skips_what_is_no_pair() {
    let world = World::new();
    world.folder("archive", &["mx.example.org"]);
    let (archive, live) = (world.path("certs/archive"), world.path("live"));
    fs::create_dir_all(live.join("mx.example.org")).unwrap();
    for file in ["fullchain.pem", "privkey.pem"] {
        let link = live.join("mx.example.org").join(file);
        std::os::unix::fs::symlink(archive.join(file), link).unwrap();
    }
    fs::create_dir(live.join("empty")).unwrap();
    fs::write(live.join("README"), "no certificate").unwrap();
    let settings = Settings {
        tls_dir: live,
        ..world.settings()
    };
    let (server, _) = ServerTls::new(&settings, "mx.example.org").unwrap();
    assert_eq!(shown(&server, "mx.example.org").await, ["mx.example.org"]);
}

#[tokio::test]
async fn makes_a_certificate_for_the_host_when_there_is_none_and_says_so() {
    let world = World::new();
    let (server, loaded) = ServerTls::new(&world.settings(), "mx.example.org").unwrap();
    assert!(matches!(&loaded, Loaded::SelfSigned(one) if one.file.is_none()));
    assert_eq!(shown(&server, "192.0.2.1").await, ["mx.example.org"]);
}

#[test]
fn reports_every_problem_at_once_and_names_the_files() {
    let world = World::new();
    world
        .folder("fine", &["fine.example"])
        .folder("no-key", &["no-key.example"])
        .folder("no-chain", &["no-chain.example"])
        .folder("mixed", &["mixed.example"])
        .folder("no-pem", &["no-pem.example"])
        .folder("odd-key", &["odd-key.example"])
        .folder_valid("old", &["old.example"], Validity::Over);
    let certs = world.path("certs");
    fs::remove_file(certs.join("no-key/privkey.pem")).unwrap();
    fs::remove_file(certs.join("no-chain/fullchain.pem")).unwrap();
    fs::copy(
        certs.join("fine/privkey.pem"),
        certs.join("mixed/privkey.pem"),
    )
    .unwrap();
    fs::write(certs.join("no-pem/fullchain.pem"), "hello").unwrap();
    fs::write(certs.join("odd-key/privkey.pem"), "hello").unwrap();
    let settings = Settings {
        tls_cert: Some(world.path("lonely.pem")),
        ..world.settings()
    };
    let certs = format!("{}/", certs.display());
    let told: Vec<_> = refused(&settings)
        .iter()
        .map(|problem| problem.to_string().replace(&certs, ""))
        .collect();
    let expected = [
        "TLS_CERT is set but TLS_KEY is not; a certificate needs both",
        "the key mixed/privkey.pem does not fit the certificate mixed/fullchain.pem",
        "no-chain/privkey.pem has no fullchain.pem beside it",
        "no-key/fullchain.pem has no privkey.pem beside it",
        "no-pem/fullchain.pem holds no usable certificate: no CERTIFICATE section in PEM form",
        "odd-key/privkey.pem holds no usable private key: no PRIVATE KEY section in PEM form \
         (an encrypted one cannot be read)",
        "the certificate old/fullchain.pem expired on 2020-01-01T00:00:00Z",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_folder_that_was_named_and_is_absent_is_an_error_and_not_a_reason_to_make_one() {
    let world = World::new();
    let (chain, key) = (world.path("a.pem"), world.path("a.key"));
    world.issue(&chain, &key, &["a.example"], Validity::Ages);
    let settings = Settings {
        tls_dir: world.path("absent"),
        ..world.settings()
    };
    let with_another = Settings {
        tls_cert: Some(chain),
        tls_key: Some(key),
        ..settings.clone()
    };
    for settings in [settings, with_another] {
        let problems = refused(&settings);
        let [TlsError::Unreadable { path, .. }] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert_eq!(*path, world.path("absent"));
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_entered_is_not_taken_for_none() {
    let world = World::new();
    // Into itself: whoever looks is refused, root too.
    std::os::unix::fs::symlink("mx", world.path("certs/mx")).unwrap();
    let problems = refused(&world.settings());
    let [TlsError::Unreadable { path, .. }] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert_eq!(*path, world.path("certs/mx"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_told_and_not_taken_for_nothing() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    let certs = world.path("certs");
    fs::create_dir(certs.join("pair")).unwrap();
    for link in ["pair/fullchain.pem", "pair/privkey.pem", "folder"] {
        symlink("nowhere", certs.join(link)).unwrap();
    }
    let certs = format!("{}/", certs.display());
    let told: Vec<_> = refused(&world.settings())
        .iter()
        .map(|problem| problem.to_string().replace(&certs, ""))
        .collect();
    let expected = ["folder", "pair/fullchain.pem", "pair/privkey.pem"]
        .map(|path| format!("cannot read {path}: the link leads nowhere"));
    assert_eq!(told, expected);
}

#[test]
fn an_absent_tls_cert_is_an_error_and_not_a_reason_to_make_one() {
    let world = World::new();
    let settings = Settings {
        tls_cert: Some(world.path("absent.pem")),
        tls_key: Some(world.path("absent.key")),
        ..world.settings()
    };
    let problems = refused(&settings);
    let [
        TlsError::Unreadable { path: cert, .. },
        TlsError::Unreadable { path: key, .. },
    ] = &problems[..]
    else {
        panic!("{problems:?}")
    };
    assert!(cert.ends_with("absent.pem") && key.ends_with("absent.key"));
}
