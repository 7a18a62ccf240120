// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine that changes under traffic: CPUs that go off and come back, an interrupt that moves from one
//! CPU to another, memory that is used up.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Skip, Test, eventually, limit};
use globalfifo_guest_tests::mapping::Mapping;
use globalfifo_guest_tests::{check, check_eq, child, system};
use nix::libc::O_NONBLOCK;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const TESTS: &[Test] = &[
    (
        "a_cpu_that_goes_off_and_on_under_traffic_loses_no_byte",
        hotplug,
    ),
    (
        "reads_submitted_on_a_cpu_that_goes_off_are_completed",
        hotplug_waiting,
    ),
    (
        "an_interrupt_that_moves_between_cpus_under_traffic_loses_no_byte",
        affinity,
    ),
    (
        "an_out_of_memory_kill_in_a_cgroup_ends_requests_and_takes_no_byte",
        out_of_memory,
    ),
];

const CPU: &str = "/sys/devices/system/cpu/cpu1/online";

fn main() -> ExitCode {
    // A test that failed may have left it off.
    let _ = system::write(CPU, "1");
    harness::main(TESTS)
}

fn needs_two_cpus() -> Result<()> {
    if !std::fs::exists(CPU)? {
        return Err(Skip("needs a second CPU that can be switched off").into());
    }
    Ok(())
}

/// Sends a stream through the FIFO until `change` has been done `times` times, at least once per so many bytes;
/// no byte may be lost.
fn under_traffic(times: u32, mut change: impl FnMut(u32) -> Result<()>) -> Result<()> {
    let out = Fifo::open_empty(0)?;
    let over = AtomicBool::new(false);
    let over = &over;
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(move || -> Result<u64> {
            let mut n = 0;
            while !over.load(Ordering::SeqCst) {
                n += 1;
                out.write_all(&pattern(n, usize::try_from(n * 131 % 3000)? + 1))?;
            }
            // What the reader stops at.
            out.write_all(&[0; 8])?;
            Ok(n)
        });
        let reader = scope.spawn(move || -> Result<(Vec<u8>, u64)> {
            let fifo = Fifo::open(0)?;
            let mut blocks = 0;
            loop {
                blocks += 1;
                let length = usize::try_from(blocks * 131 % 3000)? + 1;
                let head = fifo.read_exact(length.min(8))?;
                let expected = pattern(blocks, length);
                if expected.get(..head.len()) != Some(head.as_slice()) {
                    return Ok((head, blocks));
                }
                let rest = fifo.read_exact(length - head.len())?;
                check!(expected.get(head.len()..) == Some(rest.as_slice()));
            }
        });
        let changed = (0..times).try_for_each(&mut change);
        over.store(true, Ordering::SeqCst);
        let join = |_| anyhow::anyhow!("panic");
        let written = writer.join().map_err(join)??;
        let (last, blocks) = reader.join().map_err(join)??;
        check_eq!(
            (last.iter().all(|byte| *byte == 0), blocks),
            (true, written + 1)
        );
        check!(written > u64::from(times));
        eprintln!("# {written} blocks, {times} changes");
        changed
    })
}

fn hotplug() -> Result<()> {
    needs_two_cpus()?;
    under_traffic(12, |n| {
        system::write(CPU, if n % 2 == 0 { "0" } else { "1" })
    })
}

fn hotplug_waiting() -> Result<()> {
    needs_two_cpus()?;
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(32)?;
    let mut second = CpuSet::new();
    second.set(1)?;
    let mut rooms = [[0u8; 8]; 12];
    thread::scope(|scope| {
        let submitter = scope.spawn(|| -> Result<()> {
            sched_setaffinity(Pid::from_raw(0), &second)?;
            let mut reads: Vec<Iocb> = rooms
                .iter_mut()
                .map(|room| Iocb::read(&fifo, room))
                .collect();
            check_eq!(context.submit_all(&mut reads), Ok(12));
            Ok(())
        });
        submitter.join().map_err(|_| anyhow::anyhow!("panic"))?
    })?;
    system::write(CPU, "0")?;
    for n in 0..12u64 {
        fifo.write_all(&n.to_le_bytes())?;
    }
    let events = context.events(12, 12, limit(SOON));
    system::write(CPU, "1")?;
    check!(events?.iter().all(|event| event.res == 8));
    let got: Vec<u64> = rooms.iter().map(|room| u64::from_le_bytes(*room)).collect();
    check_eq!(got, (0..12).collect::<Vec<_>>());
    Ok(())
}

/// Interrupts that the device has had on each CPU.
fn by_cpu(device: &str) -> Result<Vec<u64>> {
    let (_, line) = system::interrupts(device)?;
    Ok(line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect())
}

fn affinity() -> Result<()> {
    needs_two_cpus()?;
    let device = system::device_name()?;
    let (_, line) = system::interrupts(&device)?;
    let number = line.split(':').next().context("no number")?.trim();
    let knob = format!("/proc/irq/{number}/smp_affinity");
    let before = std::fs::read_to_string(&knob)?;
    let result = under_traffic(20, |n| {
        let cpu = usize::try_from(n % 2)?;
        system::write(&knob, if cpu == 0 { "1" } else { "2" })?;
        let seen = by_cpu(&device)?;
        eventually("interrupts come to that CPU", || {
            Ok(by_cpu(&device)?.get(cpu) > seen.get(cpu))
        })
    });
    system::write(&knob, before.trim())?;
    result
}

/// A control group with little memory; removed on drop.
struct Group(&'static str);

impl Group {
    const ROOT: &'static str = "/run/globalfifo-cgroup";

    fn new() -> Result<Self> {
        let root = Self::ROOT;
        std::fs::create_dir_all(root)?;
        if !std::fs::exists(format!("{root}/cgroup.procs"))? {
            system::run("busybox", &["mount", "-t", "cgroup2", "none", root])?;
        }
        let controllers = std::fs::read_to_string(format!("{root}/cgroup.controllers"))?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return Err(Skip("needs control groups for memory (CONFIG_MEMCG)").into());
        }
        system::write(&format!("{root}/cgroup.subtree_control"), "+memory")?;
        let group = Self("/run/globalfifo-cgroup/little");
        std::fs::create_dir_all(group.0)?;
        system::write(&group.file("memory.max"), "16M")?;
        Ok(group)
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.0);
    }
}

fn out_of_memory() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let group = Group::new()?;
    let victim = child::start(|line| {
        system::write(&group.file("cgroup.procs"), "0")?;
        let blocking = Fifo::open(0)?;
        let context = Context::new(128)?;
        let mut rooms = vec![[0u8; 8]; 100];
        let mut reads: Vec<Iocb> = rooms
            .iter_mut()
            .map(|room| Iocb::read(&blocking, room))
            .collect();
        check_eq!(context.submit_all(&mut reads), Ok(100));
        line.say()?;
        line.hear()?;
        let hog = Mapping::private(64 << 20)?;
        hog.touch();
        bail!("64 MiB fit into 16")
    })?;
    victim.line.hear()?;
    victim.line.say()?;
    match waitpid(victim.pid, None)? {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => {}
        other => bail!("the child ended so: {other:?}"),
    }
    fifo.write_all(b"survives")?;
    fifo.wait_level(8)?;
    check_eq!(fifo.drain()?, b"survives".to_vec());
    Ok(())
}
