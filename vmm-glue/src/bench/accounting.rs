// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CPU time and wake-ups of other processes, from /proc.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// A clock tick of /proc/PID/stat; USER_HZ is 100 on every architecture that the lab knows.
const TICK: Duration = Duration::from_millis(10);

/// CPU time that all threads of a process have used; zero if there is no such process.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = tasks(pid);
    let exact: Option<Duration> = tasks
        .iter()
        .map(|task| run_time(&fs::read_to_string(task.join("schedstat")).ok()?))
        .sum();
    // Not every kernel has schedstat.
    exact.unwrap_or_else(|| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ticks(&stat).unwrap_or_default()
    })
}

/// How often threads of a process have gone to sleep of their own accord, and so been woken.
pub fn sleeps(pid: u32) -> u64 {
    let statuses = tasks(pid)
        .into_iter()
        .filter_map(|task| fs::read_to_string(task.join("status")).ok());
    statuses
        .filter_map(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    crate::cache::entries(Path::new(&format!("/proc/{pid}/task")))
}

/// `RUN WAIT TIMES`, in nanoseconds.
fn run_time(schedstat: &str) -> Option<Duration> {
    let run = schedstat.split_whitespace().next()?;
    Some(Duration::from_nanos(run.parse().ok()?))
}

/// utime and stime, after a name that may hold anything.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        let stat = "77 (a) b (c) S 1 1 1 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 5 0 1 2 3";
        assert_eq!(ticks(stat), Some(Duration::from_millis(420)));
        assert_eq!(run_time("64666 1 2\n"), Some(Duration::from_nanos(64_666)));
        assert_eq!(run_time(""), None);
    }

    #[test]
    fn this_process_has_used_time_and_no_process_none() {
        let mut noise = 0_u64;
        while cpu_time(std::process::id()) < Duration::from_millis(20) {
            noise = std::hint::black_box(noise.wrapping_add(1));
        }
        assert_eq!(cpu_time(u32::MAX), Duration::ZERO);
    }
}
