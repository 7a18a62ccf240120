// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What machine this is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use globalfifo_bench_protocol::{Machine, Processor, SERIAL_PORT};

use super::meter::device_of;
use super::streams::serial_port;

/// Where a driver of several editions names its own.
const EDITION: &str = "/sys/kernel/debug/globalfifo/edition";
/// Edition of a driver that names none.
const ONLY_EDITION: &str = "fast";

/// Looks.
pub fn machine() -> Result<Machine> {
    let table = fs::read_to_string("/proc/interrupts")?;
    let fifo = fs::metadata("/dev/globalfifo0").is_ok();
    let interrupt = match fifo.then(|| device_of("/dev/globalfifo0")).transpose()? {
        Some(device) => lines_of(&table, &device).pop().unwrap_or_default(),
        None => String::new(),
    };
    Ok(Machine {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        processor: Processor::read(Path::new("/")),
        edition: edition(fs::read_to_string(EDITION).ok()),
        cpus: std::thread::available_parallelism()?.get(),
        interrupt,
        serial_interrupts: match serial_port(SERIAL_PORT) {
            Ok(port) => lines_of(&table, &serial_device(&port)?),
            Err(_) => Vec::new(),
        },
        fifos: fs::read_dir("/sys/class/globalfifo").map_or(0, Iterator::count),
    })
}

fn edition(file: Option<String>) -> String {
    let named = file.map(|text| text.trim().trim_matches('"').to_owned());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| ONLY_EDITION.to_owned())
}

/// The virtio device that a port belongs to: the one before the port in its place in sysfs.
fn serial_device(port: &str) -> Result<String> {
    let place = fs::canonicalize(format!("/sys/class/virtio-ports/{port}"))?;
    let parts = place.iter().rev().map(|part| part.to_string_lossy());
    parts
        .into_iter()
        .find(|part| part.starts_with("virtio") && part != "virtio-ports")
        .map(std::borrow::Cow::into_owned)
        .context("a port belongs to a virtio device")
}

/// Kind, trigger and name of each interrupt of a device.
fn lines_of(table: &str, device: &str) -> Vec<String> {
    let is_word = |word: &str| word == device || word.starts_with(&format!("{device}-"));
    table
        .lines()
        .filter(|line| line.split([' ', ',']).any(is_word))
        .map(|line| {
            let words = line.split_whitespace().skip(1);
            let words = words.skip_while(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{edition, lines_of};

    #[test]
    fn a_driver_that_names_no_edition_is_the_fast_one() {
        assert_eq!(edition(None), "fast");
        assert_eq!(edition(Some("\n".to_owned())), "fast");
        assert_eq!(edition(Some("teaching\n".to_owned())), "teaching");
    }

    #[test]
    fn interrupts_are_told_without_their_counts() {
        let table = "           CPU0       CPU1\n  20:          2          7  IO-APIC  20-fasteoi   virtio3\n \
                     31:  7  1  PCI-MSIX-0000:00:03.0    1-edge      virtio30-virtqueues\n";
        assert_eq!(lines_of(table, "virtio3"), ["IO-APIC 20-fasteoi virtio3"]);
        assert_eq!(
            lines_of(table, "virtio30"),
            ["PCI-MSIX-0000:00:03.0 1-edge virtio30-virtqueues"]
        );
    }
}
