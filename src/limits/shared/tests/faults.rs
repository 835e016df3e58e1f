//! Redis late, dead, wrong, forgetful.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Finds out quickly, yet not by the hiccups of a busy machine.
const QUICK: Timing = Timing {
    deadline: Duration::from_millis(200),
    lease: Duration::from_secs(15),
};

/// The breaker is open or there is no connection: nobody waits any more.
async fn assert_costs_nothing(instance: &Instance) {
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(instance.charge("", &[]).await, None);
    }
    // Two probes may be among them.
    assert!(
        start.elapsed() < QUICK.deadline * 4,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_frozen_redis_delays_nobody_and_a_thawed_one_is_back() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), QUICK).await;
    server.freeze();
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(instance.charge("", &[]).await, None);
        assert!(
            start.elapsed() < QUICK.deadline * 10,
            "{:?}",
            start.elapsed()
        );
    }
    assert!(!instance.health().available);
    assert!(instance.health().late >= 5, "{:?}", instance.health());
    assert_costs_nothing(&instance).await;
    server.thaw();
    eventually("back", || instance.health().available).await;
    assert_eq!(instance.charge("", &[]).await, Some(Ruling::Pass));
}

#[tokio::test]
async fn a_killed_redis_delays_nobody_and_a_new_one_gets_the_scripts() {
    let mut server = Server::start();
    let instance = Instance::connected(&server.url(), QUICK).await;
    let token = [charge("a", 60 * SECOND, 1, 1)];
    assert_eq!(instance.charge("", &token).await, Some(Ruling::Pass));
    server.kill();
    assert_eq!(instance.charge("", &token).await, None);
    assert_costs_nothing(&instance).await;
    server.restart();
    eventually("back", || instance.health().available).await;
    assert_eq!(instance.charge("", &token).await, Some(Ruling::Pass));
    let ruling = instance.charge("", &token).await;
    assert!(matches!(ruling, Some(Ruling::Refused { .. })), "{ruling:?}");
}

/// The next heartbeat is seconds away, and the breaker is still closed.
#[tokio::test]
async fn one_broken_question_is_enough_to_connect_anew() {
    let mut server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    server.kill();
    server.restart();
    assert_eq!(instance.charge("", &[]).await, None);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(instance.charge("", &[]).await, Some(Ruling::Pass));
}

#[tokio::test]
async fn loads_scripts_that_redis_forgot() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    server.command("SCRIPT FLUSH SYNC");
    assert_eq!(instance.take("a", 1).await, Some(Ruling::Pass));
    assert!(instance.ban("b", SECOND, SECOND).await.is_some());
}

/// The bucket is charged by the late question, and each later question gets
/// its own answer.
#[tokio::test]
async fn a_late_answer_disturbs_no_later_one() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), QUICK).await;
    assert!(
        instance
            .ban("banned", 60 * SECOND, 60 * SECOND)
            .await
            .is_some()
    );
    server.command("CLIENT PAUSE 1000 ALL");
    let token = [charge("a", 60 * SECOND, 1, 1)];
    assert_eq!(instance.charge("", &token).await, None);
    assert_eq!(instance.charge("banned", &[]).await, None);
    tokio::time::sleep(SECOND).await;
    eventually("back", || instance.health().available).await;
    for _ in 0..50 {
        let ruling = instance.charge("", &token).await;
        assert!(matches!(ruling, Some(Ruling::Refused { .. })), "{ruling:?}");
        let ruling = instance.charge("banned", &[]).await;
        assert!(matches!(ruling, Some(Ruling::Banned { .. })), "{ruling:?}");
        assert_eq!(instance.charge("other", &[]).await, Some(Ruling::Pass));
    }
}

/// It was admitted by the local limits, and is counted as soon as Redis can.
#[tokio::test]
async fn who_was_admitted_without_an_answer_is_counted_until_it_leaves() {
    let server = Server::start();
    let one = Instance::connected(&server.url(), QUICK).await;
    let two = Instance::connected(&server.url(), PATIENT).await;
    server.command("CLIENT PAUSE 600 ALL");
    assert_eq!(one.take("a", 1).await, None);
    let full = Some(Ruling::TooMany { index: 0 });
    assert_eq!(two.take("a", 1).await, full);
    one.give_back("a");
    eventually_takes(&two, "a", 1).await;
}

#[tokio::test]
async fn an_error_is_no_answer() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    let token = [charge("a", SECOND, 9, 1)];
    for (spoil, mend) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        assert_eq!(instance.charge("", &token).await, Some(Ruling::Pass));
        let before = instance.health().failed;
        server.command(spoil);
        assert_eq!(instance.charge("", &token).await, None, "{spoil}");
        assert!(instance.health().failed > before);
        server.command(mend);
        eventually("back", || instance.health().available).await;
    }
}

#[tokio::test]
async fn needs_the_password_and_never_tells_it() {
    let server = Server::start_with(&["--requirepass", "geheim"]);
    let bare = server.url();
    let with = |password: &str| bare.replace("redis://", &format!("redis://:{password}@"));
    let instance = Instance::connected(&with("geheim"), PATIENT).await;
    assert_eq!(instance.charge("", &[]).await, Some(Ruling::Pass));
    for url in [bare.clone(), with("falsch")] {
        let refused = Shared::new(&RedisUrl::parse(&url).unwrap(), PATIENT);
        let trouble = refused.visit(&mut tokio::time::Instant::now()).await;
        let trouble = trouble.unwrap_err().to_string();
        assert!(!trouble.contains("falsch"), "{trouble}");
        assert!(trouble.contains("uth"), "{trouble}");
        assert_eq!(refused.charge("", &[]).await, None);
    }
}

/// The rights that the documentation of `shared` names.
#[tokio::test]
async fn few_rights_are_enough() {
    let server = Server::start();
    server.command(
        "ACL SETUSER portcullis on >geheim resetkeys ~portcullis:* -@all +evalsha +script|load \
         +time +get +set +del +exists +pttl +pexpire +incr +hget +hgetall +hset +hdel",
    );
    let url = server.url().replace("://", "://portcullis:geheim@");
    let one = Instance::connected(&url, PATIENT).await;
    let two = Instance::connected(&url, PATIENT).await;
    let token = [charge("a", SECOND, 9, 1)];
    let count = [Count {
        key: "a".to_owned(),
        max: 9,
    }];
    for instance in [&one, &two] {
        let ruling = instance.admit("", &token, &count).await;
        assert_eq!(ruling, Some(Ruling::Pass));
    }
    assert!(one.ban("b", SECOND, SECOND).await.is_some());
    one.give_back("a");
    eventually("given back", || places_of(&server, "a") == [1]).await;
    assert_eq!(one.health().failed, 0);
}

#[tokio::test]
async fn speaks_tls_with_whom_it_trusts_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert"), own.cert.pem()).unwrap();
    std::fs::write(path("key"), own.signing_key.serialize_pem()).unwrap();
    let port = server::free_port().to_string();
    let (cert, key) = (path("cert"), path("key"));
    let options = [
        ["--tls-port", &port],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-auth-clients", "no"],
    ];
    let _server = Server::start_with(&options.concat());

    let url = RedisUrl::parse(&format!("rediss://localhost:{port}/0")).unwrap();
    let stranger = Shared::new(&url, PATIENT);
    let trouble = stranger.visit(&mut tokio::time::Instant::now()).await;
    let trouble = trouble.unwrap_err().to_string();
    assert!(trouble.contains("certificate"), "{trouble}");

    let url = url.trusting(own.cert.pem().into_bytes()).unwrap();
    let friend = Shared::new(&url, PATIENT);
    friend
        .visit(&mut tokio::time::Instant::now())
        .await
        .unwrap();
    assert_eq!(friend.charge("", &[]).await, Some(Ruling::Pass));

    let plain = RedisUrl::parse("redis://localhost").unwrap();
    assert!(plain.trusting(own.cert.pem().into_bytes()).is_err());
}

/// One line when it goes, one when it is back, whatever happens in between.
#[tokio::test]
async fn logs_once_that_redis_is_lost_and_once_that_it_is_back() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The tasks of this test run in its thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    eventually("told", || log.lines("INFO").len() == 1).await;
    server.kill();
    let start = Instant::now();
    while start.elapsed() < SECOND * 3 / 2 {
        assert_eq!(instance.charge("", &[]).await, None);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [warning] = &log.lines("WARN")[..] else {
        panic!("{:?}", log.lines("WARN"));
    };
    assert!(
        warning.contains("Redis lost") && warning.contains("reason="),
        "{warning}"
    );
    server.restart();
    eventually("told", || log.lines("INFO").len() == 2).await;
    assert_eq!(log.lines("WARN").len(), 1);
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let ours = |line: &&str| line.contains(level) && line.contains("keep_alive");
        text.lines().filter(ours).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let server = Server::start();
    for nonsense in ["+OK\r\n", "*3\r\n:9\r\n:0\r\n:0\r\n", "\0\r\n\r\n"] {
        let (url, lies) = liar(&server, nonsense);
        let instance = Instance::connected(&url, QUICK).await;
        lies.store(true, Ordering::SeqCst);
        for _ in 0..6 {
            assert_eq!(instance.charge("", &[]).await, None, "{nonsense:?}");
        }
        let health = instance.health();
        assert!(health.failed > 0 && !health.available, "{health:?}");
        assert_costs_nothing(&instance).await;
        lies.store(false, Ordering::SeqCst);
        eventually("back", || instance.health().available).await;
        assert_eq!(instance.charge("", &[]).await, Some(Ruling::Pass));
    }
}

/// A relay to the server that gives this answer instead of the server's when it
/// is told to lie. Its threads end with the connections.
fn liar(server: &Server, nonsense: &'static str) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let behind = server.url();
    let behind = behind.trim_start_matches("redis://").trim_end_matches("/0");
    let behind = behind.to_owned();
    let lies = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&lies);
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let mut far = TcpStream::connect(&behind).unwrap();
            let (mut answers, mut back) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            let told = Arc::clone(&told);
            std::thread::spawn(move || std::io::copy(&mut near, &mut far));
            std::thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(length @ 1..) = answers.read(&mut buffer) {
                    let answer = match told.load(Ordering::SeqCst) {
                        true => nonsense.as_bytes(),
                        false => &buffer[..length],
                    };
                    if back.write_all(answer).is_err() {
                        break;
                    }
                }
                let _ = answers.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (url, lies)
}
