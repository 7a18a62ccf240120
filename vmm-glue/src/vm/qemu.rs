//! QEMU's command line, put together from a configuration; and the question whether a QEMU has the device we need.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::PORT_CONTROL;
use fifo_lab_agent::PORT_STDERR;
use fifo_lab_agent::PORT_STDIN;
use fifo_lab_agent::PORT_STDOUT;

use super::accel::Accel;
use super::config::Config;
use super::config::Paths;
use super::devices::FIFO;
use super::devices::SECOND;
use super::rundir::RunDir;
use crate::child::Spec;

/// The device id of virtio-fifo: QEMU aborts on ids that it has no name for, and 37 is free in the standard's table.
pub const VIRTIO_ID: u32 = 37;
/// Bytes of the device's configuration space that QEMU passes on.
const CONFIG_SIZE: u32 = 4;
/// The PCI Express port of the second device.
const SECOND_PORT: &str = "second-port";
/// QEMU's generic vhost-user device, under its names since 10.2 and before.
const GENERIC_DEVICES: [&str; 2] = [GENERIC_DEVICE, "vhost-user-device-pci"];
/// The one in the tree's QEMU.
pub const GENERIC_DEVICE: &str = "vhost-user-test-device-pci";
/// The ports, in the order of their numbers.
pub const PORTS: [&str; 4] = [PORT_CONTROL, PORT_STDIN, PORT_STDOUT, PORT_STDERR];
/// Starts the init script from the share "lab", which the root on virtiofs does not know.
const INIT: &str = r#"root=root rootfstype=virtiofs ro init=/bin/busybox -- sh -c "/bin/busybox mount -t virtiofs -o ro lab /mnt && exec /bin/busybox sh /mnt/init""#;

/// A virtiofs share: tag, and name of its socket.
pub type Tag = String;

/// The program with the arguments that it always has.
pub fn program(config: &Config, paths: &Paths) -> Vec<OsString> {
    if let Some(qemu) = &config.qemu {
        return vec![qemu.clone().into_os_string()];
    }
    let mut argv = paths.tool("usr/bin/qemu-system-x86_64");
    for dir in ["usr/share/qemu", "usr/share/seabios"] {
        argv.extend(["-L".into(), paths.tree.join(dir).into_os_string()]);
    }
    argv
}

/// The generic vhost-user device that this QEMU lets users create.
pub fn generic_device(config: &Config, paths: &Paths) -> Result<&'static str> {
    let argv = program(config, paths);
    let name = config.qemu.as_ref().map_or_else(
        || "the Debian tree's QEMU".to_owned(),
        |path| path.display().to_string(),
    );
    let mut argv = argv.iter();
    let spec = Spec::new(argv.next().cloned().unwrap_or_default())
        .args(argv)
        .args(["-machine", "none", "-device", "help"]);
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
    let mut argv = program(config, paths).into_iter();
    let spec = Spec::new(argv.next().unwrap_or_default()).args(argv);
    let spec = base(spec, config, accel);
    let spec = kernel(spec, config, paths, run, accel);
    let spec = tags.iter().fold(spec, |spec, tag| share(spec, run, tag));
    let spec = ports(spec, run);
    let spec = if config.driver {
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
        "-nic",
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
            "q35,accel={},memory-backend=mem,usb=off,vmport=off",
            accel.name()
        ),
    ])
    .args([
        "-cpu",
        accel.cpu(),
        "-smp",
        &config.smp.to_string(),
        "-m",
        &config.mem,
    ])
}

fn kernel(spec: Spec, config: &Config, paths: &Paths, run: &RunDir, accel: Accel) -> Spec {
    let mut words = vec!["console=ttyS0 panic=-1 nokaslr tsc=reliable no_timer_check"];
    if paths.layer.is_some() {
        words.push("lab.layer");
    }
    if config.driver {
        words.push("lab.driver");
    }
    if paths.ram.is_some() {
        words.push("lab.alarm");
    }
    if accel == Accel::Tcg {
        words.push("lab.tcg");
    }
    words.extend(config.system.kernel.command_line());
    let spec = spec.arg("-kernel").arg(&paths.kernel);
    let spec = match paths.ram {
        // The kernel starts /init of what it has unpacked.
        Some(_) => spec.arg("-initrd").arg(run.initramfs()),
        None => {
            words.push(INIT);
            spec
        }
    };
    let spec = spec.args(["-append", &words.join(" ")]).args([
        "-chardev",
        &format!("file,id=console,path={}", run.console().display()),
        "-serial",
        "chardev:console",
    ]);
    match paths.ram {
        Some(_) => serial(spec, "alarm", &run.alarm()),
        None => spec,
    }
}

/// A serial line that ends at a socket.
fn serial(spec: Spec, id: &str, socket: &Path) -> Spec {
    spec.args([
        "-chardev",
        &format!("socket,id={id},path={}", socket.display()),
        "-serial",
        &format!("chardev:{id}"),
    ])
}

fn share(spec: Spec, run: &RunDir, tag: &str) -> Spec {
    let socket = run.socket(tag);
    spec.args([
        "-chardev",
        &format!("socket,id=fs-{tag},path={}", socket.display()),
    ])
    .args([
        "-device",
        &format!("vhost-user-fs-pci,chardev=fs-{tag},tag={tag}"),
    ])
}

/// The ports of the lab's own conversation. Their device is behind a port of PCI Express, where it has power management, and says of itself
/// that it keeps its state in all states of power: so Linux leaves it alone in a suspend. Otherwise Linux resets it, and afterwards it asks
/// QEMU which ports are open before QEMU has a buffer to answer in (virtcons_restore in 7.3): the ports stay closed.
fn ports(spec: Spec, run: &RunDir) -> Spec {
    let spec = spec.args(["-device", "pcie-root-port,id=ports-root,chassis=1"]);
    let spec = spec.args([
        "-device",
        "virtio-serial-pci,id=ports,bus=ports-root,x-pcie-pm-no-soft-reset=on",
    ]);
    PORTS.iter().zip(1..).fold(spec, |spec, (port, number)| {
        spec.args([
            "-chardev",
            &format!("socket,id={port},path={}", run.socket(port).display()),
        ])
        .args([
            "-device",
            &format!("virtserialport,bus=ports.0,nr={number},chardev={port},name={port}"),
        ])
    })
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
    if config.second.is_empty() {
        return spec;
    }
    // Behind a port a device is PCI Express, and its function can be reset.
    let behind_port = format!("{device},bus={SECOND_PORT}");
    spec.args([
        "-device",
        &format!("pcie-root-port,id={SECOND_PORT},chassis=1"),
    ])
    .args(fifo_device(
        &behind_port,
        SECOND,
        &run.socket(SECOND),
        config.second.len(),
        config.vq_size,
    ))
}

/// Arguments for a device of `fifos` FIFOs, whose daemon serves `socket`. `device` is the generic vhost-user device's name.
pub fn fifo_device(
    device: &str,
    id: &str,
    socket: &Path,
    fifos: usize,
    vq_size: u16,
) -> [String; 4] {
    let queues = queues(fifos);
    [
        "-chardev".to_owned(),
        format!("socket,id={id},path={}", socket.display()),
        "-device".to_owned(),
        format!(
            "{device},chardev={id},virtio-id={VIRTIO_ID},num_vqs={queues},vq_size={vq_size},config_size={CONFIG_SIZE}"
        ),
    ]
}

/// Queues of a device: control, event, and two a FIFO.
fn queues(fifos: usize) -> usize {
    2 + 2 * fifos
}

/// What QEMU calls its version.
pub fn version(config: &Config, paths: &Paths) -> Result<String> {
    let mut argv = program(config, paths).into_iter();
    let spec = Spec::new(argv.next().unwrap_or_default())
        .args(argv)
        .arg("--version");
    let said = crate::child::output(&spec)?;
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
