// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's command line, put together from a configuration; and the question whether a QEMU has the device we need.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::PORT_CONTROL;
use fifo_lab_agent::PORT_EXEC;
use fifo_lab_agent::PORT_STDERR;
use fifo_lab_agent::PORT_STDIN;
use fifo_lab_agent::PORT_STDOUT;
use virtio_fifo_protocol::virtio_fifo;
use virtio_fifo_protocol::virtio_fifo::DEFAULT_DEVICE_ID;

use super::accel::Accel;
use super::config::Config;
use super::config::Load;
use super::config::Paths;
use super::devices;
use super::devices::FIFO;
use super::devices::SECOND;
use super::gdb;
use super::monitor;
use super::rundir::RunDir;
use crate::child::Spec;
use crate::escape;
use crate::stages::Arch;

/// The PCI Express port of the second device.
const SECOND_PORT: &str = "second-port";
/// QEMU's generic vhost-user device, under its names since 10.2 and before.
const GENERIC_DEVICES: [&str; 2] = [GENERIC_DEVICE, "vhost-user-device-pci"];
/// The one in the tree's QEMU.
pub const GENERIC_DEVICE: &str = "vhost-user-test-device-pci";
/// Those of every machine.
const PORTS: [&str; 4] = [PORT_CONTROL, PORT_STDIN, PORT_STDOUT, PORT_STDERR];
/// What the guest's kernel always gets. Its own tests of its ciphers are a part of its start, as waiting for RCU's usual pace is.
const KERNEL_WORDS: &str = "panic=-1 nokaslr cryptomgr.notests=1 rcupdate.rcu_expedited=1 rcupdate.rcu_normal_after_boot=1";
/// What an emulated guest's kernel also gets: it zeroes each page that it allocates. TCG throws away what it has translated of a page when the
/// guest's CPU writes to it, but does not see what virtiofsd writes: without this, code that is read from a file into a page that held other
/// code before runs as that other code. Debian's kernels have it as their default; ours for debugging does not.
const ZEROED_PAGES: &str = "init_on_alloc=1";
/// What a guest with a network gets: one interface, with the name that images/start gives an address to.
const NET_WORDS: &str = "lab.net net.ifnames=0";

/// The slot of the first further device, beyond those that QEMU gives away.
const FURTHER_SLOT: u8 = 0x10;
/// As many as fit in the slots up to the board's own.
#[cfg(test)]
pub const FURTHER_MAX: u8 = 8 * 8;

/// The board, without the parts that nobody needs and that firmware and kernel would look into.
fn board(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "q35,usb=off,vmport=off,sata=off,i8042=off,smbus=off,smm=off",
        Arch::Arm64 => "virt,gic-version=3",
    }
}

/// What the kernel gets for its architecture: its console first.
fn board_words(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "console=ttyS0 tsc=reliable no_timer_check 8250.nr_uarts=2",
        Arch::Arm64 => "console=ttyAMA0",
    }
}

/// A virtiofs share: tag, and name of its socket.
pub type Tag = String;

/// The ports of a machine, in the order of their numbers.
pub fn ports(config: &Config) -> impl Iterator<Item = &'static str> {
    PORTS
        .into_iter()
        .chain(config.takes_commands().then_some(PORT_EXEC))
}

/// The program with the arguments that it always has.
pub fn program(config: &Config, paths: &Paths) -> Spec {
    if let Some(qemu) = &config.qemu {
        return Spec::new(qemu);
    }
    let spec = paths.tool(config.system.arch.qemu());
    ["usr/share/qemu", "usr/share/seabios"]
        .into_iter()
        .fold(spec, |spec, dir| spec.arg("-L").arg(paths.find(dir)))
}

/// The generic vhost-user device that this QEMU lets users create.
pub fn generic_device(config: &Config, paths: &Paths) -> Result<&'static str> {
    let Some(qemu) = &config.qemu else {
        return Ok(GENERIC_DEVICE);
    };
    let name = qemu.display();
    let spec = program(config, paths).args(["-machine", "none", "-device", "help"]);
    let output = spec
        .command()
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success() && help.contains("bus PCI"),
        "{name} does not work as QEMU: {}",
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or("it lists no PCI devices")
    );
    offered(&help).with_context(|| {
        format!("{name} has no generic vhost-user device ({}): use QEMU 10.2 or newer, or leave --qemu out to use the lab's own", GENERIC_DEVICES.join(" or "))
    })
}

fn offered(help: &str) -> Option<&'static str> {
    GENERIC_DEVICES.into_iter().find(|device| {
        help.lines()
            .any(|line| line.contains(&format!("\"{device}\"")) && !line.contains("no-user"))
    })
}

/// The whole command line. `device` is the generic vhost-user device's name.
pub fn command(
    config: &Config,
    paths: &Paths,
    run: &RunDir,
    accel: Accel,
    device: &str,
    tags: &[Tag],
) -> Spec {
    let spec = base(program(config, paths), config, accel);
    let spec = network(sandbox(spec, config), config);
    let spec = kernel(spec, config, paths, run, accel);
    let spec = tags.iter().fold(spec, |spec, tag| share(spec, run, tag));
    let spec = debugger(serial_ports(spec, config, run), config, run);
    let spec = monitor(spec, config, run);
    let spec = if config.device {
        fifo(spec, config, run, device)
    } else {
        spec
    };
    spec.args(&config.qemu_args)
}

fn base(spec: Spec, config: &Config, accel: Accel) -> Spec {
    spec.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ])
    // The device's process reads and writes the guest's memory itself.
    .args([
        "-object",
        &format!("memory-backend-memfd,id=mem,size={},share=on", config.mem),
    ])
    .args([
        "-machine",
        &format!(
            "{},accel={},memory-backend=mem",
            board(config.system.arch),
            accel.name()
        ),
    ])
    .args([
        "-cpu",
        accel.cpu(config.system.arch),
        "-smp",
        &config.smp.to_string(),
        "-m",
        &config.mem,
    ])
}

/// What QEMU may still do once it runs: start no program, raise no rights, use no old system call. A QEMU of the user's may be built without.
fn sandbox(spec: Spec, config: &Config) -> Spec {
    if config.qemu.is_some() {
        return spec;
    }
    spec.args([
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ])
}

/// QEMU's own network stack: the guest reaches what the host reaches, nobody reaches the guest.
fn network(spec: Spec, config: &Config) -> Spec {
    let nic = if config.net {
        "user,model=virtio-net-pci,ipv6=off"
    } else {
        "none"
    };
    spec.args(["-nic", nic])
}

/// Bytes that the words of `--append` may have: what Linux keeps of a command line, less the lab's own part.
pub const APPEND_MAX: usize = 2047 - 600;

fn kernel(spec: Spec, config: &Config, paths: &Paths, run: &RunDir, accel: Accel) -> Spec {
    let mut words = vec![board_words(config.system.arch), KERNEL_WORDS];
    if paths.layer.is_some() {
        words.push("lab.layer");
    }
    let slowdown = format!("lab.slowdown={}", config.system.slowdown());
    match config.driver {
        Load::None => {}
        Load::Ours => words.push("lab.driver"),
        Load::Theirs => words.extend(["lab.driver", "lab.theirs", &slowdown]),
    }
    let args: Vec<_> = config
        .driver_args
        .iter()
        .map(|arg| format!("lab.arg={arg}"))
        .collect();
    words.extend(args.iter().map(String::as_str));
    if needs_alarm(config, paths) {
        words.push("lab.alarm");
    }
    if accel == Accel::Tcg {
        words.extend(["lab.tcg", ZEROED_PAGES]);
    }
    if config.net {
        words.push(NET_WORDS);
    }
    if config.interruptible {
        words.extend(monitor::WORDS);
    }
    words.extend(config.system.kernel.command_line());
    words.extend(config.append.iter().map(String::as_str));
    // The kernel starts /init of what it has unpacked.
    let initramfs = match paths.ram {
        Some(_) => run.initramfs(),
        None => paths.initramfs(),
    };
    let spec = spec
        .arg("-kernel")
        .arg(&paths.kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &words.join(" ")])
        .arg("-chardev")
        .arg(escape::qemu("file,id=console,path=", &run.console_pipe()))
        .args(["-serial", "chardev:console"]);
    if needs_alarm(config, paths) {
        serial(spec, "alarm", &run.alarm())
    } else {
        spec
    }
}

/// Whether a suspend to idle can succeed, and only the lab can end it: arm64's real-time clock does by itself.
pub fn needs_alarm(config: &Config, paths: &Paths) -> bool {
    paths.ram.is_some() && config.system.arch == Arch::X86_64
}

/// A serial line that ends at a socket.
fn serial(spec: Spec, id: &str, socket: &Path) -> Spec {
    spec.arg("-chardev")
        .arg(escape::qemu(&format!("socket,id={id},path="), socket))
        .args(["-serial", &format!("chardev:{id}")])
}

fn share(spec: Spec, run: &RunDir, tag: &str) -> Spec {
    let socket = run.socket(tag);
    spec.arg("-chardev")
        .arg(escape::qemu(&format!("socket,id=fs-{tag},path="), &socket))
        .args([
            "-device",
            &format!("vhost-user-fs-pci,chardev=fs-{tag},tag={tag}"),
        ])
}

/// The ports of the lab's own conversation. Their device is behind a port of PCI Express, where it has power management, and says of itself
/// that it keeps its state in all states of power: so Linux leaves it alone in a suspend. Otherwise Linux resets it, and afterwards it asks
/// QEMU which ports are open before QEMU has a buffer to answer in (virtcons_restore in 7.3): the ports stay closed.
fn serial_ports(spec: Spec, config: &Config, run: &RunDir) -> Spec {
    let spec = spec.args(["-device", "pcie-root-port,id=ports-root,chassis=1"]);
    let spec = spec.args([
        "-device",
        "virtio-serial-pci,id=ports,bus=ports-root,x-pcie-pm-no-soft-reset=on",
    ]);
    ports(config).zip(1..).fold(spec, |spec, (port, number)| {
        spec.arg("-chardev")
            .arg(escape::qemu(
                &format!("socket,id={port},path="),
                &run.socket(port),
            ))
            .args([
                "-device",
                &format!("virtserialport,bus=ports.0,nr={number},chardev={port},name={port}"),
            ])
    })
}

/// A socket at which QEMU listens, and waits for nobody.
fn listening(spec: Spec, id: &str, socket: &Path) -> Spec {
    let mut option = escape::qemu(&format!("socket,id={id},path="), socket);
    option.push(",server=on,wait=off");
    spec.arg("-chardev").arg(option)
}

/// gdb's way to the CPUs.
fn debugger(spec: Spec, config: &Config, run: &RunDir) -> Spec {
    if !config.gdb {
        return spec;
    }
    listening(spec, "gdb", &gdb::socket(run)).args(["-gdb", "chardev:gdb"])
}

/// The lab's way to QEMU itself.
fn monitor(spec: Spec, config: &Config, run: &RunDir) -> Spec {
    if !config.interruptible {
        return spec;
    }
    let spec = listening(spec, "monitor", &monitor::socket(run));
    spec.args(["-mon", "chardev=monitor,mode=control"])
}

fn fifo(spec: Spec, config: &Config, run: &RunDir, device: &str) -> Spec {
    let fifos = config.fifos.len().max(1);
    let spec = spec.args(fifo_device(
        device,
        FIFO,
        &run.socket(FIFO),
        fifos,
        config.vq_size,
    ));
    let spec = (0..config.further).fold(spec, |spec, number| {
        let id = devices::further(number);
        spec.args(fifo_device(
            &format!("{device},{}", further_place(number)),
            &id,
            &run.socket(&id),
            1,
            config.vq_size,
        ))
    });
    if config.second.is_empty() {
        return spec;
    }
    // Behind a port a device is PCI Express, and its function can be reset.
    let behind_port = format!("{device},bus={SECOND_PORT}");
    spec.args([
        "-device",
        &format!("pcie-root-port,id={SECOND_PORT},chassis=2"),
    ])
    .args(fifo_device(
        &behind_port,
        SECOND,
        &run.socket(SECOND),
        config.second.len(),
        config.vq_size,
    ))
}

/// Where a further device is: eight of them are the functions of one slot.
fn further_place(number: u8) -> String {
    let (slot, function) = (FURTHER_SLOT + number / 8, number % 8);
    format!("addr={slot:#x}.{function},multifunction=on")
}

/// Arguments for a device of `fifos` FIFOs, whose daemon serves `socket`. `device` is the generic vhost-user device's name.
pub fn fifo_device(
    device: &str,
    id: &str,
    socket: &Path,
    fifos: usize,
    vq_size: u16,
) -> [OsString; 4] {
    let queues = queues(fifos);
    [
        "-chardev".into(),
        escape::qemu(&format!("socket,id={id},path="), socket),
        "-device".into(),
        format!(
            "{device},chardev={id},virtio-id={DEFAULT_DEVICE_ID},num_vqs={queues},vq_size={vq_size},config_size={}",
            virtio_fifo::Config::LEN,
        )
        .into(),
    ]
}

/// Queues of a device: control, event, and two a FIFO.
fn queues(fifos: usize) -> usize {
    2 + 2 * fifos
}

/// What QEMU calls its version.
pub fn version(config: &Config, paths: &Paths) -> Result<String> {
    let said = crate::child::output(&program(config, paths).arg("--version"))?;
    let words = said.lines().next().unwrap_or_default().split_whitespace();
    let number = words.skip_while(|word| *word != "version").nth(1);
    Ok(number.unwrap_or("of unknown version").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_name_is_preferred_and_one_that_users_cannot_create_does_not_count() {
        let new =
            "name \"vhost-user-test-device-pci\", bus PCI\nname \"vhost-user-device-pci\", bus PCI";
        assert_eq!(offered(new), Some("vhost-user-test-device-pci"));
        assert_eq!(
            offered("name \"vhost-user-device-pci\", bus PCI, no-user"),
            None
        );
        assert_eq!(offered("name \"virtio-serial-pci\", bus PCI"), None);
    }
}
