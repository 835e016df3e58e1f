//! The way of a line from whoever logs to the output: a bounded queue and one
//! thread that writes. Only that thread ever waits for the output.

use std::io::{self, Write};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::line::LineForm;
use crate::metrics;

/// Lines that may wait for the output; at some hundred octets a line, 2 MiB or so.
const WAITING_MAX: usize = 4096;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(5);

/// Octets that are written at a time at the most, and one line.
const AT_ONCE: usize = 64 * 1024;

/// Longest wait for the output at the end of the process.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

enum Item {
    Line(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// The entrance of the queue.
pub(super) struct Queue {
    entrance: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// Keeps the log complete: dropping it waits until the lines are written.
#[must_use = "dropped at once, it would wait for nothing"]
pub struct Guard {
    entrance: SyncSender<Item>,
}

/// Starts the thread that writes to `output`.
pub(super) fn start(
    output: impl Write + Send + 'static,
    form: LineForm,
) -> io::Result<(Queue, Guard)> {
    let (entrance, exit) = sync_channel(WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write(&exit, output, form, &counted))?;
    Ok((
        Queue {
            entrance: entrance.clone(),
            dropped,
        },
        Guard { entrance },
    ))
}

fn write(exit: &Receiver<Item>, mut output: impl Write, form: LineForm, dropped: &AtomicU64) {
    let mut lines = Vec::new();
    while let Ok(first) = exit.recv() {
        if matches!(first, Item::Line(_)) {
            // To wake a thread costs whoever logs more than to write the line: while
            // this one sleeps, it need not be woken.
            thread::sleep(GATHER);
        }
        for item in iter::once(first).chain(exit.try_iter().take(WAITING_MAX)) {
            match item {
                Item::Line(line) => lines.extend_from_slice(&line),
                Item::Flush(done) => {
                    put(&mut output, &mut lines);
                    let _ = output.flush();
                    let _ = done.try_send(());
                }
            }
            if lines.len() >= AT_ONCE {
                put(&mut output, &mut lines);
            }
        }
        put(&mut output, &mut lines);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = output.write_all(form.dropped(lost).as_bytes());
        }
    }
}

/// Writes the lines, or loses them: an output that refuses them (a closed pipe)
/// leaves nowhere to say so, and is no reason to stop guarding mail.
fn put(output: &mut impl Write, lines: &mut Vec<u8>) {
    let _ = output.write_all(lines);
    lines.clear();
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

/// Takes one whole line per call, which is how the formatting layer writes.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.entrance.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::get().log_lines_dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_WAIT;
        let (done, written) = sync_channel(1);
        while let Err(TrySendError::Full(_)) = self.entrance.try_send(Item::Flush(done.clone())) {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}
