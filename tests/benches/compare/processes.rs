//! What the processes of a peer use: a process, its children and theirs.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::support::between;

/// The process that all others of the peer descend from.
#[derive(Clone, Copy, Debug)]
pub struct Processes(pub u32);

impl Processes {
    fn all(self) -> Vec<u32> {
        let mut all = vec![self.0];
        let mut looked_at = 0;
        while let Some(&process) = all.get(looked_at) {
            all.extend(children(process));
            looked_at += 1;
        }
        all
    }

    /// User and system time so far: of those that live by the scheduler's clock, which
    /// knows nanoseconds, of those that have been waited for by their parents' ticks.
    pub fn cpu(self) -> Duration {
        self.all()
            .into_iter()
            .map(|process| own(process) + waited_for(process))
            .sum()
    }

    /// Octets of resident memory. What processes share is counted for each.
    pub fn resident(self) -> u64 {
        self.all().into_iter().map(resident).sum()
    }
}

/// Nothing of a process that has just ended.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| fs::read_to_string(task.path().join("children")));
    let children: Vec<String> = children.collect();
    let numbers = children.iter().flat_map(|line| line.split_whitespace());
    numbers.map(|number| number.parse().unwrap()).collect()
}

fn own(process: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(process as i32));
    clock
        .and_then(ClockId::now)
        .map_or(Duration::ZERO, Duration::from)
}

/// `cutime` and `cstime` (proc_pid_stat(5)).
fn waited_for(process: u32) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return Duration::ZERO;
    };
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // Fields 16 and 17; the first one here is the third.
    let ticks = fields.split(' ').skip(13).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    let of_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_secs_f64(ticks as f64 / of_second as f64)
}

fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kibibytes = between(&status, "VmRSS:", "kB").unwrap_or("0");
    kibibytes.trim().parse::<u64>().unwrap() * 1024
}
