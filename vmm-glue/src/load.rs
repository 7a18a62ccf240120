// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much this machine has to do, and who waits for it: proc_loadavg(5), /proc/PID/task/TID/schedstat. It must not know what is measured
//! or booted.

use std::path::Path;
use std::time::Duration;

/// A machine that is slower than this by what else runs beside it is hopeless: limits do not grow further.
pub const SLOWEST: u32 = 10;

/// Processes that ran or wanted to, on average over the last minute.
pub fn average() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The longest time that a thread of a process has been ready to run and had no CPU; zero where the kernel does not count it.
pub fn waited(pid: u32) -> Duration {
    let waits = times(pid).map(|(_, waited)| waited);
    waits.max().unwrap_or_default()
}

/// How many times as long a process takes as it would with a CPU for each of its threads: that of the thread which has waited longest. At
/// least 1, at most [`SLOWEST`].
pub fn slowdown(pid: u32) -> u32 {
    times(pid)
        .max_by_key(|(_, waited)| *waited)
        .map_or(1, |(ran, waited)| times_as_long(ran, waited))
}

/// How long each thread of a process has run, and waited for a CPU.
fn times(pid: u32) -> impl Iterator<Item = (Duration, Duration)> {
    let tasks = crate::cache::entries(Path::new(&format!("/proc/{pid}/task")));
    let stats = tasks
        .into_iter()
        .filter_map(|task| std::fs::read_to_string(task.join("schedstat")).ok());
    stats.filter_map(|stat| run_and_wait_times(&stat))
}

fn times_as_long(ran: Duration, waited: Duration) -> u32 {
    let ran = ran.as_nanos().max(1);
    let rounded = (ran + waited.as_nanos() + ran / 2) / ran;
    u32::try_from(rounded).unwrap_or(SLOWEST).clamp(1, SLOWEST)
}

/// `RUN WAIT TIMES`, in nanoseconds.
fn run_and_wait_times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut words = schedstat.split_whitespace();
    let mut time = || Some(Duration::from_nanos(words.next()?.parse().ok()?));
    Some((time()?, time()?))
}

/// A remark on a failure that an overloaded machine may have caused; empty on any other machine.
pub fn remark() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    remark_on(average(), cpus)
}

fn remark_on(load: Option<f64>, cpus: usize) -> String {
    let many = u32::try_from(cpus).map_or(f64::MAX, |cpus| f64::from(cpus) * 2.0);
    match load {
        Some(load) if load > many => format!(
            " (this machine has a load of {load} on {cpus} CPUs, which may be all that is wrong: try again when it has less to do)"
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_too_much_to_do_is_remarked_on() {
        let remark = |text: &str| remark_on(parse(text), 2);
        assert!(remark("17.02 9 5 3/200 1").contains("load of 17.02 on 2 CPUs"));
        assert_eq!(remark("3.9 9 5 3/200 1"), "");
        assert_eq!(remark(""), "");
    }

    #[test]
    fn a_process_is_slower_by_what_its_thread_waits_for() {
        let after =
            |ran, waited| times_as_long(Duration::from_secs(ran), Duration::from_secs(waited));
        assert_eq!(after(10, 0), 1);
        assert_eq!(after(10, 4), 1);
        assert_eq!(after(10, 6), 2);
        assert_eq!(after(10, 30), 4);
        assert_eq!(after(1, 3600), SLOWEST);
        assert_eq!(after(0, 0), 1);
    }

    #[test]
    fn what_a_thread_has_waited_for_a_cpu_is_the_second_figure() {
        assert_eq!(
            run_and_wait_times("9000000 1500000000 12\n"),
            Some((Duration::from_millis(9), Duration::from_millis(1500)))
        );
        assert_eq!(run_and_wait_times("9000000"), None);
        assert_eq!(slowdown(0), 1);
        assert_eq!(waited(0), Duration::ZERO);
    }
}
