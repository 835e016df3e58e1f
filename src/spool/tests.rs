//! What a spool promises: the same octets back, bounds that hold, nothing kept.

use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use tempfile::TempDir;

use super::*;

const KIB: usize = 1024;

/// A spool with a folder of its own.
struct House {
    spool: Spool,
    dir: TempDir,
}

impl House {
    fn new(memory: usize, buffer: usize, disk: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = |octets| Size(octets as u64);
        let spool = Spool::new(&Settings {
            spool_memory: size(memory),
            spool_buffer: size(buffer),
            spool_disk: size(disk),
            spool_dir: Some(dir.path().into()),
        });
        let spool = spool.unwrap();
        Self { spool, dir }
    }

    async fn hold(&self, octets: &[u8]) -> Result<Body, SpoolError> {
        let mut writer = self.spool.begin();
        writer.write(octets).await?;
        writer.finish().await
    }

    fn used(&self) -> (u64, u64) {
        (self.spool.memory_used(), self.spool.disk_used())
    }

    fn visible_files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }

    /// What a task that was left alone still holds comes back in its own time.
    async fn wait_until_empty(&self) {
        for _ in 0..500 {
            if self.used() == (0, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still held: {:?}", self.used());
    }
}

/// Octets that tell their place, so that a swapped or missing piece shows.
fn pattern(length: usize) -> Vec<u8> {
    let words =
        (0..length.div_ceil(8)).map(|word| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut octets: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
    octets.truncate(length);
    octets
}

async fn read(mut reader: Reader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        assert!((1..=64 * KIB).contains(&piece.len()));
        all.extend_from_slice(&piece);
    }
    assert_eq!(reader.next().await.unwrap(), None);
    all
}

#[tokio::test]
async fn gives_every_reader_the_same_octets_at_every_border() {
    let house = House::new(1 << 20, 200_000, 1 << 24);
    let borders = [
        0,
        1,
        4 * KIB,
        8 * KIB,
        CHUNK,
        64 * KIB,
        128 * KIB,
        200_000,
        200_000 + CHUNK,
        200_000 + 2 * CHUNK,
        1 << 20,
        (1 << 20) + 7,
    ];
    let sizes = borders
        .iter()
        .flat_map(|size: &usize| [size.saturating_sub(1), *size, size + 1]);
    for size in sizes {
        let octets = pattern(size);
        for cut in [1000, 4 * KIB, CHUNK, 1 << 21] {
            let mut writer = house.spool.begin();
            for piece in octets.chunks(cut) {
                writer.write(piece).await.unwrap();
            }
            let body = writer.finish().await.unwrap();
            assert_eq!(body.len(), size as u64);
            assert_eq!(body.is_empty(), size == 0);
            let in_memory = if size <= 200_000 { size } else { 0 };
            assert_eq!(
                house.used(),
                (in_memory as u64, (size - in_memory) as u64),
                "{size} by {cut}"
            );
            let readers = [body.reader(), body.reader(), body.clone().reader()];
            drop(body);
            let reads: Vec<_> = readers.map(|reader| tokio::spawn(read(reader))).into();
            for got in reads {
                assert!(got.await.unwrap() == octets, "{size} by {cut}");
            }
            assert_eq!(house.used(), (0, 0));
        }
    }
}

#[tokio::test]
async fn readers_at_different_places_do_not_disturb_each_other() {
    let house = House::new(0, 0, 1 << 24);
    let octets = pattern(10 * CHUNK);
    let body = house.hold(&octets).await.unwrap();
    let (mut slow, mut first) = (body.reader(), Vec::new());
    for _ in 0..3 {
        first.extend_from_slice(&slow.next().await.unwrap().unwrap());
        assert!(read(body.reader()).await == octets);
    }
    first.extend(read(slow).await);
    assert!(first == octets);
}

#[tokio::test]
async fn gives_everything_back_whatever_path_is_taken() {
    let house = House::new(1 << 20, 64 * KIB, 1 << 24);
    for size in [100, 64 * KIB, 1 << 20] {
        // Never finished.
        let mut writer = house.spool.begin();
        writer.write(&pattern(size)).await.unwrap();
        assert_ne!(house.used(), (0, 0));
        drop(writer);
        assert_eq!(house.used(), (0, 0));

        // Read halfway; the reader keeps the body alive.
        let body = house.hold(&pattern(size)).await.unwrap();
        let mut reader = body.reader();
        reader.next().await.unwrap();
        drop(body);
        assert_ne!(house.used(), (0, 0));
        drop(reader);
        assert_eq!(house.used(), (0, 0));
    }
}

#[tokio::test]
async fn refuses_only_the_message_that_finds_no_room_on_disk() {
    let house = House::new(1 << 20, 0, (3 << 20) + 100);
    let octets = pattern(2 << 20);
    let first = house.hold(&octets).await.unwrap();
    let refused = house.hold(&octets).await;
    assert!(matches!(refused, Err(SpoolError::Full)), "{refused:?}");
    assert_eq!(house.used(), (0, 2 << 20));
    assert!(read(first.reader()).await == octets);

    // The last octet that fits is not lost to the steps of reservation.
    let last = house.hold(&pattern((1 << 20) + 100)).await.unwrap();
    assert!(matches!(house.hold(b"x").await, Err(SpoolError::Full)));
    drop((first, last));
    assert_eq!(house.hold(&pattern(3 << 20)).await.unwrap().len(), 3 << 20);
}

#[tokio::test]
async fn refused_writer_holds_nothing_and_stays_refused() {
    let house = House::new(1 << 20, 64 * KIB, 100 * KIB);
    let mut writer = house.spool.begin();
    writer.write(&pattern(64 * KIB)).await.unwrap();
    let refused = writer.write(&pattern(128 * KIB)).await;
    assert!(matches!(refused, Err(SpoolError::Full)), "{refused:?}");
    assert_eq!(house.used(), (0, 0));
    assert!(writer.write(b"more").await.is_err());
    assert!(writer.finish().await.is_err());
}

#[tokio::test]
async fn goes_to_disk_early_when_memory_is_used_up() {
    let house = House::new(100 * KIB, 64 * KIB, 1 << 24);
    let first = house.hold(&pattern(60 * KIB)).await.unwrap();
    let second = house.hold(&pattern(60 * KIB)).await.unwrap();
    assert_eq!(house.used(), (60 * KIB as u64, 60 * KIB as u64));
    assert!(read(second.reader()).await == pattern(60 * KIB));
    drop(first);
    let third = house.hold(&pattern(60 * KIB)).await.unwrap();
    assert_eq!(house.used(), (60 * KIB as u64, 60 * KIB as u64));
    drop((second, third));
    assert_eq!(house.used(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_bodies_at_once_stay_within_the_memory_they_share() {
    const MEMORY: usize = 8 << 20;
    let house = House::new(MEMORY, 256 * KIB, 1 << 30);
    let octets: Arc<[u8]> = pattern(2 << 20).into();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (spool, octets) = (house.spool.clone(), Arc::clone(&octets));
            tokio::spawn(async move {
                let mut writer = spool.begin();
                let mut peak = 0;
                for piece in octets.chunks(16 * KIB) {
                    writer.write(piece).await.unwrap();
                    peak = peak.max(spool.memory_used());
                    tokio::task::yield_now().await;
                }
                let body = writer.finish().await.unwrap();
                assert!(read(body.reader()).await == *octets);
                (peak, body)
            })
        })
        .collect();
    let mut bodies = Vec::new();
    let mut peak = 0;
    for task in tasks {
        let (seen, body) = task.await.unwrap();
        peak = peak.max(seen);
        bodies.push(body);
    }
    println!("peak of accounted memory: {peak} octets");
    assert!(peak > 0 && peak <= MEMORY as u64, "{peak}");
    assert_eq!(house.used(), (0, 200 * (2 << 20)));
    assert_eq!(house.visible_files(), 0);
    drop(bodies);
    assert_eq!(house.used(), (0, 0));
}

#[tokio::test]
async fn file_has_no_name_and_is_its_owners_alone() {
    let house = House::new(0, 0, 1 << 24);
    let mut writer = house.spool.begin();
    writer.write(&pattern(1 << 20)).await.unwrap();
    assert_eq!(house.visible_files(), 0);
    let body = writer.finish().await.unwrap();
    assert_eq!(house.visible_files(), 0);
    let Held::File(file) = &*body.held else {
        panic!("not in a file");
    };
    let metadata = file.metadata();
    assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o600, 0));
}

#[tokio::test]
async fn write_that_was_cut_off_leaves_no_body_with_a_gap() {
    let house = House::new(1 << 20, 4 * KIB, 1 << 24);
    let mut writer = house.spool.begin();
    writer.write(b"first").await.unwrap();
    {
        let octets = pattern(1 << 20);
        let mut write = pin!(writer.write(&octets));
        let polled = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    assert!(matches!(
        writer.write(b"last").await,
        Err(SpoolError::Io(_))
    ));
    assert!(writer.finish().await.is_err());
    house.wait_until_empty().await;
}

#[tokio::test]
async fn read_that_was_cut_off_loses_nothing() {
    let house = House::new(0, 0, 1 << 24);
    let octets = pattern(4 * CHUNK);
    let body = house.hold(&octets).await.unwrap();
    let mut reader = body.reader();
    let mut all = reader.next().await.unwrap().unwrap().to_vec();
    {
        let mut next = pin!(reader.next());
        let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // Seldom is the file faster than this thread.
        if let Poll::Ready(piece) = polled {
            all.extend_from_slice(&piece.unwrap().unwrap());
        }
    }
    all.extend(read(reader).await);
    assert!(all == octets);
}

#[test]
fn says_at_start_that_its_folder_is_of_no_use() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = Spool::new(&Settings {
        spool_dir: Some(missing.clone()),
        ..Settings::default()
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&*missing.to_string_lossy()), "{text}");
}

#[test]
fn tells_no_room_from_other_failures() {
    for (errno, full) in [
        (Errno::ENOSPC, true),
        (Errno::EDQUOT, true),
        (Errno::EFBIG, true),
        (Errno::EIO, false),
        (Errno::EMFILE, false),
    ] {
        let error = SpoolError::from(io::Error::from_raw_os_error(errno as i32));
        assert_eq!(matches!(error, SpoolError::Full), full, "{error:?}");
    }
}
