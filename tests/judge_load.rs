//! Memory while many large messages are judged at once. `benches/scan.rs` does it
//! with the full load.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use support::sessions_at_once;

const MIB: u64 = 1 << 20;

/// Two hundred sessions hold twenty-five times `SPOOL_MEMORY` between them.
#[test]
fn memory_is_bounded_by_the_spool_whatever_is_sent_at_once() {
    let load = sessions_at_once(200, 2 << 20, "16M");
    let (idle, peak) = (load.idle / MIB, load.peak / MIB);
    println!(
        "200 sessions of 2 MiB: {idle} MiB idle, {peak} MiB at most, {:?}",
        load.took
    );
    assert!(load.peak < load.idle + 16 * MIB + 64 * MIB, "{load:?}");
}
