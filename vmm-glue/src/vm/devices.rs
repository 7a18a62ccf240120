// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processes beside QEMU: file servers for the guest's folders, and our device.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use virtio_fifo_protocol::virtio_fifo::DEFAULT_DEVICE_ID;

use super::config::Config;
use super::config::Paths;
use super::config::Share;
use super::qemu::Tag;
use super::rundir::RunDir;
use crate::cancel;
use crate::child::Running;
use crate::child::Spec;
use crate::child::killed;
use crate::exit;

/// The name of our device among the helpers.
pub const FIFO: &str = "fifo";
/// That of a second one.
pub const SECOND: &str = "second";

/// That of the n-th further one.
pub fn further(number: u8) -> String {
    format!("further{number}")
}

/// How long a helper may take to make its socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);

/// A process to start before QEMU, and the socket that it makes.
#[derive(Debug)]
pub struct Device {
    /// For messages, logs and sockets.
    pub name: String,
    /// How it is started.
    pub spec: Spec,
}

/// All of them, with the tags of the virtiofs shares.
pub fn all(config: &Config, paths: &Paths, run: &RunDir) -> (Vec<Device>, Vec<Tag>) {
    let mut devices = Vec::new();
    let fixed = match paths.ram {
        None => [
            ("root", Some(&paths.root)),
            ("lab", Some(&paths.guest)),
            ("layer", paths.layer.as_ref()),
        ],
        // All of it is in RAM.
        Some(_) => [("root", None), ("lab", None), ("layer", None)],
    };
    for (tag, dir) in fixed {
        if let Some(dir) = dir {
            // What these hold never changes while a machine runs.
            let spec = file_server(paths, run, tag, dir).args(["--readonly", "--cache", "always"]);
            devices.push(Device {
                name: tag.to_owned(),
                spec: as_root_in_guest(spec),
            });
        }
    }
    for (number, share) in config.shares.iter().enumerate() {
        devices.push(user_share(paths, run, &share_tag(number), share));
    }
    let tags = devices.iter().map(|device| device.name.clone()).collect();
    if config.device {
        devices.push(Device {
            name: FIFO.to_owned(),
            spec: ends_with_qemu(daemon(config, paths, run), config),
        });
    }
    if config.device && !config.second.is_empty() {
        devices.push(Device {
            name: SECOND.to_owned(),
            spec: ends_with_qemu(
                fifo_daemon(paths, &run.socket(SECOND), &config.second),
                config,
            ),
        });
    }
    for number in 0..config.further {
        let name = further(number);
        let spec = fifo_daemon(paths, &run.socket(&name), &["loopback".to_owned()]);
        devices.push(Device {
            name,
            spec: ends_with_qemu(spec, config),
        });
    }
    (devices, tags)
}

/// Where nobody may be there to end it, our device ends with QEMU as file servers always do.
fn ends_with_qemu(spec: Spec, config: &Config) -> Spec {
    match config.stays {
        Some(_) => spec.arg("--once"),
        None => spec,
    }
}

/// Tag of the n-th folder of the user's.
pub fn share_tag(number: usize) -> Tag {
    format!("share{number}")
}

fn file_server(paths: &Paths, run: &RunDir, tag: &str, dir: &Path) -> Spec {
    paths
        .tool("usr/libexec/virtiofsd")
        .arg("--socket-path")
        .arg(run.socket(tag))
        .arg("--shared-dir")
        .arg(dir)
        // Mount, process and network namespaces in which the folder is all that there is.
        .args(["--sandbox", "namespace"])
        .args(["--log-level", "error", "--no-announce-submounts"])
}

fn user_share(paths: &Paths, run: &RunDir, tag: &str, share: &Share) -> Device {
    let spec = file_server(paths, run, tag, &share.dir).args(["--cache", "auto", "--xattr"]);
    let spec = if share.read_only {
        spec.arg("--readonly")
    } else {
        spec
    };
    Device {
        name: tag.to_owned(),
        spec: as_root_in_guest(spec),
    }
}

/// An ordinary user's files belong to root in the guest, and what root makes there belongs to the user.
fn as_root_in_guest(spec: Spec) -> Spec {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        return spec;
    }
    spec.arg(format!("--translate-uid=map:0:{uid}:1"))
        .arg(format!("--translate-gid=map:0:{gid}:1"))
}

fn daemon(config: &Config, paths: &Paths, run: &RunDir) -> Spec {
    let spec = fifo_daemon(paths, &run.socket(FIFO), &config.fifos)
        .arg("--control")
        .arg(run.control(config.control.as_deref()));
    let spec = config
        .faults
        .iter()
        .fold(spec, |spec, fault| spec.args(["--fault", fault]));
    match &config.capacity {
        Some(capacity) => spec.args(["--capacity", capacity]),
        None => spec,
    }
}

/// Whether our device says in this line where a pseudo-terminal is: `fifo N: pty PATH`.
pub fn tells_a_pty(line: &str) -> bool {
    line.strip_prefix("fifo ")
        .and_then(|rest| rest.split_once(": pty "))
        .is_some_and(|(number, _)| number.parse::<u16>().is_ok())
}

/// Our device on a socket.
pub fn fifo_daemon(paths: &Paths, socket: &Path, fifos: &[String]) -> Spec {
    let spec = Spec::new(&paths.daemon).arg("--socket-path").arg(socket);
    let spec = spec.args(["--virtio-id", &DEFAULT_DEVICE_ID.to_string()]);
    fifos
        .iter()
        .fold(spec, |spec, fifo| spec.args(["--fifo", fifo]))
}

/// Starts one; its output goes to a log of the run.
pub fn start(device: &Device, run: &RunDir) -> Result<Running> {
    let log = File::create(run.log(&device.name)).context("cannot create a log file")?;
    let mut command = device.spec.command();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Running::start(&device.name, command)
}

/// Waits for its socket.
pub fn wait_for_socket(device: &mut Running, run: &RunDir) -> Result<()> {
    let socket = run.socket(device.name());
    let deadline = Instant::now() + SOCKET_LIMIT;
    while !socket.exists() {
        if let Some(status) = device.try_status() {
            return Err(refused(device.name(), status, run));
        }
        cancel::check()?;
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} did not make its socket within {} s",
            device.name(),
            SOCKET_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Why it ended: its own words. A daemon that calls its arguments wrong means the user's.
fn refused(name: &str, status: ExitStatus, run: &RunDir) -> anyhow::Error {
    let said = fs::read_to_string(run.log(name)).unwrap_or_default();
    let said = said.trim();
    if [FIFO, SECOND].contains(&name) && status.code() == Some(i32::from(exit::USAGE)) {
        let line = said
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it refused its options");
        return exit::usage(format!(
            "vhost-device-fifo: {}",
            line.trim_start_matches("error: ")
        ));
    }
    let program = program(name);
    match killed(status) {
        Some(killed) => anyhow::anyhow!("{program} {killed}"),
        None => anyhow::anyhow!("{program} did not start: {said}"),
    }
}

/// A helper's program, for messages.
pub fn program(name: &str) -> String {
    if [FIFO, SECOND].contains(&name) {
        "vhost-device-fifo".to_owned()
    } else {
        format!("virtiofsd for the share {name}")
    }
}
