//! Many sessions that send large messages at once, all of them judged.

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Daemon, Manner, Portcullis, Sham, Smtp, dot_stuffed, free_address, torture};

/// Longest wait for one answer, and for the slowest of the clients.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a load did to Portcullis.
#[derive(Debug)]
pub struct Load {
    /// Resident memory before it, in octets.
    pub idle: u64,
    /// The most resident memory ever, in octets.
    pub peak: u64,
    pub took: Duration,
}

/// Has `sessions` clients send `octets` each, so that all the bodies are held at one
/// time, then judged, and delivered to Postfix's own `smtp-sink`. `spool_memory` as
/// in the setting.
pub fn sessions_at_once(sessions: usize, octets: usize, spool_memory: &str) -> Load {
    let (sink, sham) = (free_address(), Sham::start(Manner::Clean));
    let mut command = Command::new("smtp-sink");
    command.args(["-u", "nobody", &sink.to_string(), "1000"]);
    let _sink = Daemon::start(command, tempfile::tempdir().unwrap(), sink);
    let address = sham.address.to_string();
    let settings = [
        ("CLAMAV", address.as_str()),
        ("SPOOL_MEMORY", spool_memory),
        ("SPOOL_DISK", "16G"),
        ("SCAN_TIMEOUT", "8min"),
        ("TIMEOUT_DATA", "10min"),
        ("BACKEND_CONN_MAX", "off"),
    ];
    let portcullis = Portcullis::guarding(sink, &settings);
    let idle = portcullis.resident();
    let began = Instant::now();
    let wire: Arc<[u8]> = dot_stuffed(&torture("load", octets)).into();
    let all_are_held = Arc::new(Meeting::of(sessions));
    let clients: Vec<_> = (0..sessions)
        .map(|_| {
            let (wire, all_are_held) = (Arc::clone(&wire), Arc::clone(&all_are_held));
            let mx = portcullis.mx;
            std::thread::spawn(move || {
                let mut client = Smtp::greeted(mx);
                client.wait_up_to(PATIENCE);
                client.open_data("a@sender.test", "b@example.org");
                let (body, end) = wire.split_at(wire.len() - 3);
                client.send(body);
                all_are_held.wait(PATIENCE);
                client.send(end);
                client.expect("250");
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(sham.whole(), sessions);
    Load {
        idle,
        peak: portcullis.peak_resident(),
        took: began.elapsed(),
    }
}

/// Where all wait for the last one. A `Barrier` would wait for ever for one who failed
/// on the way.
struct Meeting {
    absent: Mutex<usize>,
    came: Condvar,
}

impl Meeting {
    fn of(count: usize) -> Self {
        Self {
            absent: Mutex::new(count),
            came: Condvar::new(),
        }
    }

    #[track_caller]
    fn wait(&self, patience: Duration) {
        let mut absent = self.absent.lock().unwrap();
        *absent -= 1;
        self.came.notify_all();
        let waited = self
            .came
            .wait_timeout_while(absent, patience, |absent| *absent > 0);
        let left = *waited.unwrap().0;
        assert_eq!(left, 0, "did not come within {patience:?}");
    }
}
