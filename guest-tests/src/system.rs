// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine around the device: its place in sysfs, its counters, its driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Virtio id of the FIFO device, as sysfs has it.
pub const FIFO_ID: &str = "0x0025";

/// The number of the call that the C library makes `poll(3)` of.
#[cfg(target_arch = "x86_64")]
pub const SYS_POLL: i64 = nix::libc::SYS_poll;
/// The number of the call that the C library makes `poll(3)` of.
#[cfg(not(target_arch = "x86_64"))]
pub const SYS_POLL: i64 = nix::libc::SYS_ppoll;

/// The number of the call that the C library makes `epoll_wait(2)` of.
#[cfg(target_arch = "x86_64")]
pub const SYS_EPOLL_WAIT: i64 = nix::libc::SYS_epoll_wait;
/// The number of the call that the C library makes `epoll_wait(2)` of.
#[cfg(not(target_arch = "x86_64"))]
pub const SYS_EPOLL_WAIT: i64 = nix::libc::SYS_epoll_pwait;

/// Where the driver's devices are.
const DRIVER: &str = "/sys/bus/virtio/drivers/globalfifo";

/// Name of the (first) virtio device that the driver serves, like `virtio2`.
pub fn device_name() -> Result<String> {
    for entry in fs::read_dir(DRIVER).context("is the globalfifo module loaded?")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("virtio") {
            return Ok(name);
        }
    }
    bail!("no device is bound to the globalfifo driver")
}

/// Name of the FIFO device, whether a driver serves it or not.
pub fn fifo_device() -> Result<String> {
    for entry in fs::read_dir("/sys/bus/virtio/devices")? {
        let entry = entry?;
        let id = fs::read_to_string(entry.path().join("device"))?;
        if id.trim() == FIFO_ID {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("there is no virtio device {FIFO_ID}")
}

/// Takes the driver away from `device`.
pub fn unbind(device: &str) -> Result<()> {
    write(&format!("{DRIVER}/unbind"), device)
}

/// Gives `device` back to the driver.
pub fn bind(device: &str) -> Result<()> {
    write(&format!("{DRIVER}/bind"), device)
}

/// Loads the driver and gives it the FIFO device, where that is not so; nothing on a machine without one.
pub fn restore() -> Result<()> {
    let Ok(device) = fifo_device() else {
        return Ok(());
    };
    if !fs::exists(DRIVER)? {
        load_module()?;
    }
    if !fs::exists(format!("/sys/bus/virtio/devices/{device}/driver"))? {
        bind(&device)?;
    }
    Ok(())
}

/// Takes the PCI device under `device` out of the machine, as far as the kernel is concerned.
pub fn unplug(device: &str) -> Result<()> {
    let virtio = fs::canonicalize(format!("/sys/bus/virtio/devices/{device}"))
        .with_context(|| format!("looking for {device}"))?;
    let pci = virtio.parent().context("a virtio device has a parent")?;
    write(&pci.join("remove").to_string_lossy(), "1")
}

/// Lets the kernel find devices that were unplugged.
pub fn rescan() -> Result<()> {
    write("/sys/bus/pci/rescan", "1")
}

/// Writes `text` to the file at `path`.
pub fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {text:?} to {path}"))
}

/// Runs a program, failing if it does, with what it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Loads the module the way a user does.
pub fn load_module() -> Result<()> {
    run("modprobe", &["globalfifo"])
}

/// Unloads the module the way a user does.
pub fn unload_module() -> Result<()> {
    run("rmmod", &["globalfifo"])?;
    // A kernel with DEBUG_KOBJECT_RELEASE keeps it for some seconds, and takes no other meanwhile.
    wait_for_file(DRIVER, false)
}

/// Has the kernel forget what it keeps of files and names; where there is no knob for it, it does not.
pub fn drop_caches() -> Result<()> {
    let path = "/proc/sys/vm/drop_caches";
    if fs::exists(path)? {
        write(path, "3")?;
    }
    Ok(())
}

/// A counter of FIFO `index` in debugfs.
pub fn counter(index: usize, name: &str) -> Result<u64> {
    let path = format!("/sys/kernel/debug/globalfifo/globalfifo{index}/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path}: {text:?}"))
}

/// Skips the test where the driver is its teaching edition, which does without what is tested.
pub fn needs_fast_edition() -> Result<()> {
    let edition = fs::read_to_string("/sys/kernel/debug/globalfifo/edition")?;
    if edition.contains("teaching") {
        bail!(crate::harness::Skip(
            "the driver's teaching edition does without this"
        ));
    }
    Ok(())
}

/// Skips the test on a slow kernel, where what is tested takes longer than the time it depends on.
pub fn needs_usual_speed() -> Result<()> {
    if crate::harness::patience() > 1 {
        bail!(crate::harness::Skip("this kernel is too slow for it"));
    }
    Ok(())
}

/// Whether the kernel has PREEMPT_RT: `#1 SMP PREEMPT_RT …`
pub fn is_real_time() -> Result<bool> {
    let version =
        fs::read_to_string("/proc/sys/kernel/version").context("reading the kernel's version")?;
    Ok(version.split_whitespace().any(|word| word == "PREEMPT_RT"))
}

/// How many interrupts the line of `device` has raised, on all CPUs, and the line of /proc/interrupts.
pub fn interrupts(device: &str) -> Result<(u64, String)> {
    let table = fs::read_to_string("/proc/interrupts")?;
    let line = table
        .lines()
        .find(|line| {
            line.split([' ', ','])
                .any(|word| word == device || word.starts_with(&format!("{device}-")))
        })
        .with_context(|| format!("{device} is not in /proc/interrupts"))?;
    let count = line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse::<u64>().ok())
        .sum();
    Ok((count, line.to_owned()))
}

/// Waits until the file at `path` is there (`true`) or gone: device nodes come and go with udev.
pub fn wait_for_file(path: &str, there: bool) -> Result<()> {
    crate::harness::eventually(&format!("{path} there: {there}"), || {
        Ok(Path::new(path).exists() == there)
    })
}

/// Whether task `tid` sleeps in system call `number`.
pub fn sleeps_in(tid: i32, number: i64) -> Result<bool> {
    let path = PathBuf::from(format!("/proc/{tid}/syscall"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    Ok(text.split_whitespace().next() == Some(number.to_string().as_str()))
}
