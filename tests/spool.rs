//! The spool on a disk that is really full.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::process::Command;
use std::time::Duration;

use portcullis::settings::Size;
use portcullis::spool::{Body, Settings, Spool, SpoolError};

/// Set for the copy of this test that runs beside a small disk.
const DISK: &str = "SPOOL_TEST_DISK";

/// What the process really takes, beside what the spool accounts for: the buffers of a
/// writer and three readers for each body, and the test itself. The bodies have 800 MiB.
#[test]
fn two_hundred_large_bodies_fit_in_little_memory() {
    let before = peak();
    write_and_read_at_once(200, 4 << 20);
    let grown = peak() - before;
    println!("peak grew by {grown} KiB");
    assert!(grown < 40 << 10, "{grown} KiB");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn write_and_read_at_once(bodies: usize, octets: usize) {
    let spool = Spool::new(&Settings {
        spool_memory: Size(8 << 20),
        ..Settings::default()
    });
    let spool = spool.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..bodies {
        let spool = spool.clone();
        tasks.push(tokio::spawn(async move {
            let body = hold(&spool, octets).await.unwrap();
            // As three scanners would.
            let (a, b, c) = tokio::join!(length(&body), length(&body), length(&body));
            assert_eq!([a, b, c], [octets; 3]);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((spool.memory_used(), spool.disk_used()), (0, 0));
}

/// The most memory that this process has had so far, in KiB (proc(5), `VmHWM`).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = support::between(&status, "VmHWM:", "kB").unwrap();
    line.trim().parse().unwrap()
}

/// A file system of 4 MiB, mounted where nobody else sees it, so that it goes
/// with the process.
#[test]
fn full_disk_refuses_one_message_and_harms_no_other() {
    if let Some(dir) = std::env::var_os(DISK) {
        fill(dir.into());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=4m none \"$0\" && exec \"$@\"")
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "full_disk_refuses_one_message_and_harms_no_other",
        ])
        .env(DISK, dir.path());
    let finished = support::Running::start(&mut command, b"").finish(Duration::from_secs(60));
    let finished = finished.assert_success();
    assert!(finished.stdout.contains("1 passed"), "{finished:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn fill(dir: std::path::PathBuf) {
    let spool = Spool::new(&Settings {
        spool_memory: Size(1 << 20),
        spool_buffer: Size(64 << 10),
        spool_dir: Some(dir),
        ..Settings::default()
    });
    let spool = spool.unwrap();
    let good = hold(&spool, 2 << 20).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..8 {
        let spool = spool.clone();
        others.push(tokio::spawn(async move { hold(&spool, 3 << 20).await }));
    }
    for other in others {
        let refused = other.await.unwrap();
        assert!(matches!(refused, Err(SpoolError::Full)), "{refused:?}");
    }
    assert_eq!((spool.memory_used(), spool.disk_used()), (0, 2 << 20));
    assert_eq!(length(&good).await, 2 << 20);
    // What the refused ones had written is free again, on the disk itself too.
    let small = hold(&spool, 1 << 20).await.unwrap();
    assert_eq!(length(&small).await, 1 << 20);
    drop((good, small));
    assert_eq!((spool.memory_used(), spool.disk_used()), (0, 0));
}

/// Bodies are this again and again; no reader gets more at once.
static CONTENT: [u8; 64 << 10] = [b'x'; 64 << 10];

async fn hold(spool: &Spool, octets: usize) -> Result<Body, SpoolError> {
    let mut writer = spool.begin();
    for _ in 0..octets / CONTENT.len() {
        for piece in CONTENT.chunks(16 << 10) {
            writer.write(piece).await?;
        }
    }
    writer.finish().await
}

async fn length(body: &Body) -> usize {
    let mut reader = body.reader();
    let mut length = 0;
    while let Some(piece) = reader.next().await.unwrap() {
        assert!(piece == CONTENT[..piece.len()]);
        length += piece.len();
    }
    length
}
