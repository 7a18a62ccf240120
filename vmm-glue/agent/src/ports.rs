// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio-serial ports, found by name. A port has one opener at a time: the agent opens each once and keeps it.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use fifo_lab_agent::PORT_STDERR;
use fifo_lab_agent::PORT_STDIN;
use fifo_lab_agent::PORT_STDOUT;

use crate::wires::Output;
use crate::wires::Wires;

/// How long a port may take to appear.
const APPEAR_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked for meanwhile.
const APPEAR_STEP: Duration = Duration::from_millis(10);

/// The ports that carry a command's streams.
#[derive(Debug)]
pub struct Ports {
    stdin: File,
    stdout: File,
    stderr: File,
}

impl Ports {
    /// Opens the three.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            stdin: open(PORT_STDIN)?,
            stdout: open(PORT_STDOUT)?,
            stderr: open(PORT_STDERR)?,
        })
    }
}

impl Wires for Ports {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stdin).read(buffer)
    }

    fn write(&self, to: Output, bytes: &[u8]) -> io::Result<()> {
        let mut port = match to {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        };
        port.write_all(bytes)
    }
}

/// Opens the port of this name for reading and writing. The kernel adds ports one by one as the host names them, first to sysfs, then to /dev:
/// on a busy host, this process may be there before them.
pub fn open(name: &str) -> io::Result<File> {
    let deadline = Instant::now() + APPEAR_LIMIT;
    loop {
        match try_open(name) {
            Err(err) if err.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                thread::sleep(APPEAR_STEP);
            }
            other => return other,
        }
    }
}

fn try_open(name: &str) -> io::Result<File> {
    let device = device(name)?;
    File::options()
        .read(true)
        .write(true)
        .open(&device)
        .map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", device.display())))
}

/// `/dev/vportXpY` of a name; read from sysfs so that it needs no udev.
fn device(name: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let Ok(found) = fs::read_to_string(entry.path().join("name")) else {
            continue;
        };
        if found.trim_end() == name {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no virtio-serial port named {name}"),
    ))
}
