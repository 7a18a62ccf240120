// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's threads on the host: when each of them was running.
//!
//! The host's kernel records the context switches of each thread (perf_event_open(2)) with its CLOCK_MONOTONIC. That needs no
//! privilege for processes of one's own, as far as kernel.perf_event_paranoid is 2 or less. It must not know the guest or the daemon.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::time::ClockId;
use nix::time::clock_gettime;
use perf_event::Builder;
use perf_event::Clock;
use perf_event::SampleFlag;
use perf_event::Sampler;
use perf_event::events::Software;

use super::event::Event;
use super::event::Place;

/// `PERF_RECORD_LOST`, `PERF_RECORD_SWITCH`, and the bits of a switch's `misc`.
const LOST: u32 = 2;
const SWITCH: u32 = 14;
const OUT: u16 = 1 << 13;
const PREEMPTED: u16 = 1 << 14;
/// Bytes of each thread's ring: about 2,600 switches.
const RING: usize = 64 << 10;
/// Time between two looks at the rings: a thread that switches 100,000 times a second fills less than half of its ring meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Threads that are being watched.
#[derive(Debug)]
pub struct Watch {
    over: Arc<AtomicBool>,
    /// Until the end.
    reader: Option<JoinHandle<Threads>>,
}

/// What was seen of the threads.
#[derive(Debug, Default)]
pub struct Threads {
    /// `runs`: from when a thread was put on a CPU until it was taken off; in order of time.
    pub events: Vec<Event>,
    /// What the threads are called, by their ids.
    pub names: HashMap<i32, String>,
    /// The thread that serves devices and file descriptors, where it takes part in an interrupt.
    pub main: Option<i32>,
    /// Switches that the kernel had no room for.
    pub lost: u64,
    /// Why there is nothing.
    pub trouble: Option<String>,
}

/// One context switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switch {
    ns: u64,
    cpu: u32,
    misc: u16,
}

struct Watched {
    tid: i32,
    sampler: Sampler,
    switches: Vec<Switch>,
}

impl Watch {
    /// Begins with the threads that the process has by now.
    ///
    /// # Errors
    ///
    /// The kernel does not let its threads be watched, or there is no such process.
    pub fn begin(pid: u32) -> Result<Self> {
        let since = now()?;
        let mut names = HashMap::new();
        let mut watched = Vec::new();
        for task in crate::cache::entries(Path::new(&format!("/proc/{pid}/task"))) {
            let tid = task
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let Some(tid) = tid else { continue };
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            // The process's own name is that of whatever has loaded it.
            let is_main = u32::try_from(tid) == Ok(pid);
            let name = if is_main { "main loop" } else { name.trim() };
            names.insert(tid, name.to_owned());
            watched.push(Watched {
                tid,
                sampler: sampler(tid).map_err(|error| refusal(&error))?,
                switches: Vec::new(),
            });
        }
        if watched.is_empty() {
            bail!("there is no process {pid}");
        }
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let reader = thread::spawn(move || {
            let mut lost = 0;
            loop {
                // The last look is after the end.
                let is_over = told.load(Ordering::Acquire);
                for thread in &mut watched {
                    lost += thread.look();
                }
                if is_over {
                    break;
                }
                thread::sleep(LOOK);
            }
            let until = now().unwrap_or(u64::MAX);
            let mut events: Vec<_> = watched
                .iter()
                .flat_map(|thread| runs(thread.tid, &thread.switches, (since, until)))
                .collect();
            events.sort_by_key(|event| event.ns);
            Threads {
                events,
                names,
                main: i32::try_from(pid).ok(),
                lost,
                trouble: None,
            }
        });
        Ok(Self {
            over,
            reader: Some(reader),
        })
    }

    /// Ends with what has happened by now.
    pub fn end(mut self) -> Threads {
        self.over.store(true, Ordering::Release);
        let seen = self.reader.take().and_then(|reader| reader.join().ok());
        seen.unwrap_or_else(|| Threads::none("their reader has failed".to_owned()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

impl Threads {
    /// Nothing, and why.
    pub fn none(trouble: String) -> Self {
        Self {
            trouble: Some(trouble),
            ..Self::default()
        }
    }

    /// Only what overlaps with a time, cut to it.
    pub fn within(mut self, from: u64, to: u64) -> Self {
        self.events.retain_mut(|event| {
            let ends = (event.ns + event.lasts).min(to);
            event.ns = event.ns.max(from);
            event.lasts = ends.saturating_sub(event.ns);
            event.lasts > 0
        });
        self
    }
}

impl Watched {
    /// Takes what is in the ring; how many switches are missing.
    fn look(&mut self) -> u64 {
        let mut lost = 0;
        while let Some(record) = self.sampler.next_record() {
            let bytes = record.to_contiguous();
            let word = |at: usize| {
                let bytes = bytes.get(at..at + 8)?;
                Some(u64::from_ne_bytes(bytes.try_into().ok()?))
            };
            match record.ty() {
                // Time, then CPU and 32 bits that mean nothing.
                SWITCH => self.switches.extend(word(0).zip(word(8)).map(|(ns, cpu)| {
                    let cpu = cpu.to_ne_bytes();
                    let [a, b, c, d, ..] = cpu;
                    Switch {
                        ns,
                        cpu: u32::from_ne_bytes([a, b, c, d]),
                        misc: record.misc(),
                    }
                })),
                // The counter's number, then how many.
                LOST => lost += word(8).unwrap_or_default(),
                _ => {}
            }
        }
        lost
    }
}

fn now() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("clock_gettime")?;
    Ok(u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

fn sampler(tid: i32) -> io::Result<Sampler> {
    let counter = Builder::new(Software::DUMMY)
        .observe_pid(tid)
        .any_cpu()
        .context_switch(true)
        .clockid(Clock::MONOTONIC)
        .sample(SampleFlag::TIME | SampleFlag::CPU)
        .sample_id_all(true)
        .enabled(true)
        .build()?;
    counter.sampled(RING)
}

/// The kernel's refusal, with the setting that is the usual reason.
fn refusal(error: &io::Error) -> anyhow::Error {
    let setting = "/proc/sys/kernel/perf_event_paranoid";
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    match fs::read_to_string(setting) {
        Ok(value) if is_denied && value.trim().parse().is_ok_and(|value: i32| value > 2) => {
            anyhow::anyhow!(
                "perf_event_open: {error}; kernel.perf_event_paranoid is {}, and has to be 2 or less",
                value.trim()
            )
        }
        _ => anyhow::anyhow!("perf_event_open: {error}"),
    }
}

/// When a thread was running, from its switches in order of time, within the time of the watch.
fn runs(tid: i32, switches: &[Switch], (since, until): (u64, u64)) -> Vec<Event> {
    let run = |from: u64, to: u64, cpu: u32, how: &str| Event {
        ns: from,
        lasts: to.saturating_sub(from).max(1),
        place: Place::Qemu(tid),
        cpu: None,
        pid: 0,
        name: "runs".into(),
        text: format!("tid={tid} host_cpu={cpu} then={how}").into(),
    };
    let mut runs = Vec::new();
    let mut began = None;
    for (at, switch) in switches.iter().enumerate() {
        if switch.misc & OUT == 0 {
            began = Some(switch);
            continue;
        }
        let how = match switch.misc & PREEMPTED {
            0 => "sleeps",
            _ => "preempted",
        };
        // The first may have been running before it was watched. After a loss nobody knows since when.
        let from = match began.take() {
            Some(began) => began.ns,
            None if at == 0 => since,
            None => continue,
        };
        runs.push(run(from, switch.ns, switch.cpu, how));
    }
    if let Some(began) = began {
        runs.push(run(began.ns, until, began.cpu, "still_runs"));
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn switch(ns: u64, misc: u16) -> Switch {
        Switch { ns, cpu: 1, misc }
    }

    #[test]
    fn a_run_lasts_from_a_switch_in_to_the_next_switch_out() {
        let switches = [
            switch(5, OUT),
            switch(20, 0),
            switch(30, OUT | PREEMPTED),
            // The switch in before this one was lost.
            switch(50, OUT),
            switch(60, 0),
        ];
        let runs = runs(7, &switches, (2, 99));
        let times: Vec<_> = runs.iter().map(|run| (run.ns, run.lasts)).collect();
        assert_eq!(times, [(2, 3), (20, 10), (60, 39)]);
        assert_eq!(runs[1].field("then"), Some("preempted"));
        assert_eq!(runs[0].place, Place::Qemu(7));
    }

    #[test]
    fn runs_are_cut_to_the_time_of_the_command() {
        let switches = [
            switch(10, 0),
            switch(20, OUT),
            switch(30, 0),
            switch(40, OUT),
            switch(50, 0),
        ];
        let threads = Threads {
            events: runs(7, &switches, (0, 60)),
            ..Threads::default()
        };
        let events = threads.within(35, 45).events;
        let times: Vec<_> = events.iter().map(|run| (run.ns, run.lasts)).collect();
        assert_eq!(times, [(35, 5)]);
    }

    /// A shell that sleeps ten times is put on a CPU ten times.
    #[test]
    fn a_process_of_ones_own_is_seen_to_sleep_and_to_run() {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "read go; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.01; done",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let watch = match Watch::begin(shell.id()) {
            Ok(watch) => watch,
            // A machine that does not allow it says why.
            Err(why) => {
                assert!(why.to_string().contains("perf_event_open: "), "{why}");
                shell.kill().unwrap();
                shell.wait().unwrap();
                eprintln!("\n# SKIP {why}");
                return;
            }
        };
        let before = now().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let threads = watch.end();
        let after = now().unwrap();
        assert!(threads.events.len() >= 10, "{threads:?}");
        assert_eq!((threads.lost, &threads.trouble), (0, &None));
        let last = threads.events.last().unwrap();
        assert!((before..=after).contains(&last.ns), "{last:?}");
        let names: Vec<_> = threads.names.values().collect();
        assert_eq!(names, ["main loop"]);
    }

    #[test]
    fn a_process_that_is_not_there_is_told() {
        let why = Watch::begin(u32::MAX / 2).unwrap_err().to_string();
        assert!(why.contains("no process"), "{why}");
    }
}
