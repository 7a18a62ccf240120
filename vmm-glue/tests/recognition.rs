// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that have the FIFO device's id: the driver serves those that begin with the magic and have a layout that it knows.
//!
//! Each device is a QEMU device with a daemon that the lab does not know of. Must not know how the driver looks at a device.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;
#[path = "common/daemon.rs"]
mod daemon;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::command;

/// A device beside the lab's own: name, fault in its configuration space, `config_size`, and the driver's line in the log.
type Odd = (
    &'static str,
    Option<&'static str>,
    u32,
    Option<&'static str>,
);

const ODD: [Odd; 7] = [
    ("another-kind", Some("wrong-config,value=32"), 12, None),
    // The layout before version 1.0: the number of FIFOs, which is 1, and nothing else.
    (
        "before-1.0",
        Some("wrong-config,value=1"),
        4,
        Some(
            "not used: configuration space begins with 1 and has no magic, as a FIFO device's from before version 1.0; this driver has version 1",
        ),
    ),
    (
        "next-version",
        Some("wrong-config,word=1,value=2"),
        12,
        Some("not used: version 2 of the device's layout, this driver has 1"),
    ),
    (
        "no-fifo",
        Some("wrong-config,word=2,value=0"),
        12,
        Some("not used: 0 FIFOs, not 1 to 31"),
    ),
    (
        "too-many",
        Some("wrong-config,word=2,value=32"),
        12,
        Some("not used: 32 FIFOs, not 1 to 31"),
    ),
    (
        "ends-behind-the-magic",
        None,
        4,
        Some("not used: its configuration space ends before byte 12"),
    ),
    (
        "ends-behind-the-version",
        None,
        8,
        Some("not used: its configuration space ends before byte 12"),
    ),
];

/// Ended on drop.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, socket: &Path, fault: Option<&str>) -> Daemon {
    let mut command = Command::new(program);
    command.arg("--socket-path").arg(socket);
    command.args(fault.map(|fault| format!("--fault={fault}")));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Daemon(command.spawn().unwrap())
}

/// DRV-2, DRV-19, DRV-20, DRV-22: a device of another kind is left alone without a word; one of ours that cannot be used is, with one line that says
/// why. The lab's own device serves beside them.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn only_a_device_that_is_recognised_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let program = daemon::program();
    let mut daemons = Vec::new();
    let mut words = Vec::new();
    for (name, fault, size, _) in ODD {
        let socket = dir.path().join(name);
        daemons.push(start(&program, &socket, fault));
        words.extend([
            "--qemu-arg=-chardev".to_owned(),
            format!("--qemu-arg=socket,id={name},path={}", socket.display()),
            "--qemu-arg=-device".to_owned(),
            format!(
                "--qemu-arg=vhost-user-test-device-pci,chardev={name},virtio-id=37,num_vqs=4,config_size={size}"
            ),
        ]);
    }
    let script = r#"
for device in $(ls -v /sys/bus/virtio/devices); do
    [ "$(cat /sys/bus/virtio/devices/$device/device)" = 0x0025 ] || continue
    driver=$(readlink -f /sys/bus/virtio/devices/$device/driver)
    echo "$device ${driver##*/}"
done
echo mine >/dev/globalfifo0 && head -n 1 /dev/globalfifo0
ls /dev/globalfifo1 2>/dev/null
dmesg | grep -E 'globalfifo virtio|probe with driver' | grep -v 'FIFO(s)'
"#;
    let output = command(&["-q", "run"])
        .args(words)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let drivers: Vec<(&str, &str)> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("virtio")?.split_once(' '))
        .collect();
    assert_eq!(drivers.len(), 1 + ODD.len(), "{shown}");
    let bound: Vec<_> = drivers
        .iter()
        .filter(|(_, by)| *by == "globalfifo")
        .collect();
    assert_eq!(bound.len(), 1, "{shown}");
    assert!(stdout.lines().any(|line| line == "mine"), "{shown}");
    assert!(!stdout.contains("/dev/globalfifo1"), "{shown}");
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for line in stdout.lines().filter(|line| line.starts_with('[')) {
        let (_, what) = line
            .split_once("not used")
            .unwrap_or_else(|| panic!("{line}"));
        *said.entry(what).or_default() += 1;
    }
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for line in ODD.iter().filter_map(|(.., line)| *line) {
        *expected
            .entry(line.strip_prefix("not used").unwrap())
            .or_default() += 1;
    }
    assert_eq!(said, expected, "{shown}");
}
