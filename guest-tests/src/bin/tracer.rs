// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `tracer DIR CMD ARG…`: runs CMD as `cargo lab trace` asks for, and leaves in DIR what the kernel has
//! traced meanwhile, and exchanges by which the host finds out what the guest's clock was when.
//!
//! It knows tracefs and the device's place on the bus. It must not know what the events mean: that is
//! the host's affair.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::mapping::Mapping;
use globalfifo_guest_tests::system;
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, execvp, fork};
use serde_json::json;

const TRACEFS: &str = "/sys/kernel/tracing";
/// Events of the command's tasks alone.
const OF_COMMAND: &str = "lab-command";
/// Events of all tasks and of none.
const OF_ALL: &str = "lab-all";
/// Buffer of a CPU in each of the two, in KiB: some 300,000 events.
const BUFFER_KIB: &str = "32768";
/// Exchanges in a row: the shortest of them counts.
const BURST: usize = 24;
/// Between two rows while the command runs.
const PAUSE: Duration = Duration::from_millis(500);

/// What is traced of the command's tasks: those that are not there are left out.
const COMMAND_EVENTS: &[&str] = &[
    "syscalls",
    "signal/signal_deliver",
    "sched/sched_switch",
    "sched/sched_waking",
    "sched/sched_wakeup",
    "sched/sched_process_fork",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "timer/hrtimer_start",
    "timer/hrtimer_cancel",
    "timer/itimer_state",
];

/// Events that are traced in any task, and in interrupts.
const ALL_EVENTS: &[&str] = &[
    "globalfifo",
    "signal/signal_generate",
    "io_uring",
    "timer/hrtimer_expire_entry",
    "timer/itimer_expire",
];

/// One of the kernel's trace buffers, removed on drop.
struct Instance {
    name: &'static str,
    dir: PathBuf,
}

impl Instance {
    fn new(name: &'static str) -> Result<Self> {
        let dir = Path::new(TRACEFS).join("instances").join(name);
        // One that a tracer left which was killed.
        let _ = fs::remove_dir(&dir);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let instance = Self { name, dir };
        instance.set("tracing_on", "0")?;
        instance.set("trace_clock", "mono")?;
        instance.set("buffer_size_kb", BUFFER_KIB)?;
        Ok(instance)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
    }

    /// Switches events on, as far as this kernel has them.
    fn enable(&self, events: &[&str]) -> Result<()> {
        for event in events {
            if self.dir.join("events").join(event).exists() {
                self.set(&format!("events/{event}/enable"), "1")?;
            }
        }
        Ok(())
    }

    /// Copies what was traced to `to`; how many events were dropped for want of room.
    fn save(&self, to: &Path) -> Result<u64> {
        let path = to.join(format!("{}.trace", self.name));
        let mut from = File::open(self.dir.join("trace"))?;
        let mut to =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = from.read(&mut buffer).context("reading the trace")?;
            if count == 0 {
                break;
            }
            to.write_all(buffer.get(..count).unwrap_or_default())?;
        }
        let mut dropped = 0;
        for cpu in fs::read_dir(self.dir.join("per_cpu"))? {
            let stats = fs::read_to_string(cpu?.path().join("stats"))?;
            for line in stats.lines() {
                if let Some(count) = line
                    .strip_prefix("overrun:")
                    .or_else(|| line.strip_prefix("dropped events:"))
                {
                    dropped += count.trim().parse::<u64>().unwrap_or_default();
                }
            }
        }
        Ok(dropped)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.set("tracing_on", "0");
        let _ = self.set("events/enable", "0");
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which is the trace's clock, too.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// Reads configuration space of the device: QEMU asks the daemon each time, and the reader waits. So each read
/// is an exchange of which both sides know the time.
enum Window {
    /// Through a window that the PCI function has, in its own configuration.
    Function { config: File, data: u64 },
    /// Where the function has it in memory. The kernel lets nobody map that beside a driver, unless its command
    /// line has `iomem=relaxed`.
    Memory { bar: Mapping, offset: usize },
}

/// QEMU's machines for arm64 end with a failed assertion when the window is read (`virtio_address_space_lookup` in
/// 11.1): its search for the memory behind it does not pass an alias, and their PCI bus has one.
const HAS_WINDOW: bool = cfg!(target_arch = "x86_64");

impl Window {
    /// `VIRTIO_PCI_CAP_DEVICE_CFG` and `VIRTIO_PCI_CAP_PCI_CFG`
    const DEVICE: u8 = 4;
    const WINDOW: u8 = 5;

    fn open(device: &str) -> Result<Self> {
        let virtio = fs::canonicalize(format!("/sys/bus/virtio/devices/{device}"))?;
        let path = virtio
            .parent()
            .context("a virtio device has a parent")?
            .join("config");
        let config = File::options().read(true).write(true).open(&path);
        let config = config.with_context(|| format!("cannot open {}", path.display()))?;
        let (device, window) = Self::capabilities(&config)?;
        let [mut from, mut bar] = [[0; 4], [0; 4]];
        config.read_exact_at(&mut from, device + 8)?;
        config.read_exact_at(&mut bar, device + 4)?;
        let [bar, ..] = bar;
        if !HAS_WINDOW {
            return Self::mapped(&path.with_file_name(format!("resource{bar}")), from);
        }
        config.write_all_at(&[bar], window + 4)?;
        config.write_all_at(&from, window + 8)?;
        config.write_all_at(&4_u32.to_le_bytes(), window + 12)?;
        Ok(Self::Function {
            config,
            data: window + 16,
        })
    }

    fn mapped(path: &Path, from: [u8; 4]) -> Result<Self> {
        let bar = File::options().read(true).write(true).open(path);
        let bar = bar.with_context(|| format!("cannot open {}", path.display()))?;
        let length = usize::try_from(bar.metadata()?.len())?;
        let bar = Mapping::shared(&bar, length)
            .with_context(|| format!("cannot map {}", path.display()))?;
        let offset = usize::try_from(u32::from_le_bytes(from))?;
        Ok(Self::Memory { bar, offset })
    }

    /// One exchange.
    fn exchange(&self) -> Result<()> {
        match self {
            Self::Function { config, data } => config.read_exact_at(&mut [0; 4], *data)?,
            Self::Memory { bar, offset } => {
                bar.get(*offset, 1);
            }
        }
        Ok(())
    }

    /// Where these two are.
    fn capabilities(config: &File) -> Result<(u64, u64)> {
        let byte = |at: u64| {
            let mut byte = [0];
            config
                .read_exact_at(&mut byte, at)
                .map(|()| u64::from(byte[0]))
        };
        let (mut device, mut window) = (None, None);
        let mut at = byte(0x34)?;
        // As many as there can be in 256 bytes.
        for _ in 0..64 {
            if at == 0 {
                break;
            }
            // `PCI_CAP_ID_VNDR`
            if byte(at)? == 9 {
                let kind = byte(at + 3)?;
                if kind == u64::from(Self::DEVICE) {
                    device = Some(at);
                } else if kind == u64::from(Self::WINDOW) {
                    window = Some(at);
                }
            }
            at = byte(at + 1)?;
        }
        device
            .zip(window)
            .context("the device has no virtio capabilities on the PCI bus")
    }

    /// One row of exchanges: the times before and after each.
    fn burst(&self, to: &mut String) -> Result<()> {
        for _ in 0..BURST {
            let before = now()?;
            self.exchange()?;
            let after = now()?;
            to.push_str(&format!("{before} {after}\n"));
        }
        to.push('\n');
        Ok(())
    }
}

/// The command, which waits until it is let go.
struct Waiting {
    pid: Pid,
    gate: OwnedFd,
}

impl Waiting {
    /// Forks. Nothing else may run in this process yet.
    fn new(command: &[String]) -> Result<Self> {
        let words = command.iter().map(|word| CString::new(word.as_str()));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let program = words.first().context("no command is given")?.clone();
        let (wait, gate) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // SAFETY: This process has one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { pid: child, gate }),
            ForkResult::Child => {
                drop(gate);
                // Nothing to read: the tracer has failed.
                if nix::unistd::read(&wait, &mut [0]) != Ok(1) {
                    std::process::exit(125);
                }
                let Err(error) = execvp(&program, &words);
                eprintln!("{}: {}", program.to_string_lossy(), error.desc());
                let status = if error == Errno::ENOENT { 127 } else { 126 };
                std::process::exit(status)
            }
        }
    }

    /// Lets it go; its status as `sh` has it.
    fn run(self) -> Result<u8> {
        nix::unistd::write(&self.gate, &[0]).context("letting the command go")?;
        drop(self.gate);
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::Exited(_, status)) => return Ok(u8::try_from(status & 255)?),
                Ok(WaitStatus::Signaled(_, number, _)) => {
                    return Ok(u8::try_from(128 + number as i32)?);
                }
                other => {
                    other?;
                }
            }
        }
    }
}

/// The number of the interrupt that `/proc/interrupts` has in this line.
fn irq(line: &str) -> Result<u32> {
    let number = line.trim_start().split(':').next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("no interrupt's number: {line}"))
}

fn run(dir: &Path, command: &[String]) -> Result<u8> {
    let device = system::fifo_device()?;
    let window = Window::open(&device)?;
    let waiting = Waiting::new(command)?;
    // They are the command's, and it is waited for.
    for number in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: No handler is installed.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    let of_command = Instance::new(OF_COMMAND)?;
    let of_all = Instance::new(OF_ALL)?;
    // There is none while no driver serves the device.
    let line = system::interrupts(&device).ok();
    let irq = line.map(|(_, line)| irq(&line)).transpose()?;
    of_command.set("options/event-fork", "1")?;
    of_command.set("set_event_pid", &waiting.pid.to_string())?;
    of_command.enable(COMMAND_EVENTS)?;
    of_all.enable(ALL_EVENTS)?;
    for event in ["irq/irq_handler_entry", "irq/irq_handler_exit"] {
        if let Some(irq) = irq {
            of_all.set(&format!("events/{event}/filter"), &format!("irq == {irq}"))?;
            of_all.enable(&[event])?;
        }
    }
    let mut exchanges = String::new();
    for _ in 0..3 {
        window.burst(&mut exchanges)?;
    }
    for instance in [&of_command, &of_all] {
        instance.set("tracing_on", "1")?;
    }
    let count = || system::interrupts(&device).map_or(0, |(count, _)| count);
    let count_before = count();
    let started = now()?;
    let pid = waiting.pid.as_raw();
    let over = Arc::new(AtomicBool::new(false));
    let exchanger = {
        let over = Arc::clone(&over);
        thread::spawn(move || -> Result<(Window, String)> {
            while !over.load(Ordering::Relaxed) {
                thread::park_timeout(PAUSE);
                window.burst(&mut exchanges)?;
            }
            Ok((window, exchanges))
        })
    };
    let status = waiting.run()?;
    let ended = now()?;
    // What it does not wait for may still be on its way to a handler.
    let count_after = count();
    let counted = now()?;
    for instance in [&of_command, &of_all] {
        instance.set("tracing_on", "0")?;
    }
    over.store(true, Ordering::Relaxed);
    exchanger.thread().unpark();
    let Ok(result) = exchanger.join() else {
        bail!("the exchanges with the host have failed");
    };
    let (window, mut exchanges) = result?;
    for _ in 0..3 {
        window.burst(&mut exchanges)?;
    }
    fs::write(dir.join("exchanges"), exchanges)?;
    let dropped = of_command.save(dir)? + of_all.save(dir)?;
    let meta = json!({
        "device": device, "irq": irq, "pid": pid, "status": status,
        "started": started, "ended": ended, "counted": counted,
        "interrupts_before": count_before, "interrupts_after": count_after,
        "dropped": dropped,
    });
    // Last: where it is, everything is.
    fs::write(dir.join("meta.json"), meta.to_string())?;
    Ok(status)
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_default());
    let command: Vec<String> = args.collect();
    match run(&dir, &command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("tracer: {error:#}");
            let _ = fs::write(dir.join("error"), format!("{error:#}"));
            ExitCode::from(125)
        }
    }
}
