// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Round trips and throughput over streams: FIFOs, a virtio-serial port, vsock, pipes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use globalfifo_bench_protocol::peer::{Job, Kind, serve};
use globalfifo_bench_protocol::{Measured, SERIAL_PORT, VSOCK_PORT, Way};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::unistd::pipe2;

use super::meter::{Latencies, Meter, rehearse};
use crate::system;

/// Round trips after one that is not counted: it also brings the job to the peer.
const BATCH: u64 = 50;
/// What a pipe is made to hold: the most that an ordinary user may ask for.
const PIPE_SIZE: i32 = 1 << 20;

/// Driver of the vsock device.
const VSOCK_DRIVER: &str = "vmw_vsock_virtio_transport";

/// Most bytes of a write to vsock. The kernel puts larger packets into several pieces of memory, which
/// vhost-device-vsock 0.3 drops, and then waits for credit for ever.
const VSOCK_MOST: usize = 16 << 10;

/// Both directions of a stream.
#[derive(Debug)]
struct Stream {
    reader: File,
    writer: File,
    /// Most bytes of a write.
    most: usize,
}

impl Stream {
    fn open(way: &Way) -> Result<Self> {
        match way {
            Way::Fifo(path) => Self::both(open(path)?),
            Way::Serial => Self::both(open(&format!("/dev/{}", serial_port(SERIAL_PORT)?))?),
            Way::Vsock => Ok(Self {
                most: VSOCK_MOST,
                ..Self::both(vsock()?)?
            }),
            Way::Pipe => Self::to_thread(),
        }
    }

    fn both(file: File) -> Result<Self> {
        Ok(Self {
            reader: file.try_clone().context("dup")?,
            writer: file,
            most: usize::MAX,
        })
    }

    /// A pipe to a thread that is the peer, and one back.
    fn to_thread() -> Result<Self> {
        let (reader, back) = pipe()?;
        let (there, writer) = pipe()?;
        thread::spawn(move || serve(there, back));
        Ok(Self {
            reader,
            writer,
            most: usize::MAX,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut pieces = bytes.chunks(self.most);
        pieces
            .try_for_each(|piece| self.writer.write_all(piece))
            .context("writing")
    }

    fn job(&mut self, kind: Kind, length: u64) -> Result<()> {
        let header = Job { kind, length }.to_bytes();
        self.writer.write_all(&header).context("sending a job")
    }

    fn answer(&mut self) -> Result<()> {
        self.reader
            .read_exact(&mut [0])
            .context("waiting for the peer")
    }
}

/// Messages there and back.
pub fn round_trip(way: &Way, size: usize, time: Duration) -> Result<Measured> {
    let mut stream = Stream::open(way)?;
    let message = vec![0x5a; size];
    let mut room = vec![0; size];
    let mut latencies = Latencies::new()?;
    let meter = Meter::begin(fifo(way))?;
    while meter.elapsed() < time {
        stream.job(Kind::Echo, (BATCH + 1) * size as u64)?;
        for turn in 0..=BATCH {
            let before = Instant::now();
            stream.write(&message)?;
            stream.reader.read_exact(&mut room)?;
            if turn > 0 {
                latencies.add(before.elapsed())?;
            }
        }
    }
    let mut measured = meter.end()?;
    measured.operations = latencies.count();
    measured.bytes = latencies.count() * size as u64;
    latencies.put(&mut measured);
    Ok(measured)
}

/// To the peer, until it has everything.
pub fn send(way: &Way, size: usize, time: Duration) -> Result<Measured> {
    let mut stream = Stream::open(way)?;
    let bytes = vec![0x5a; size];
    measure(fifo(way), size, time, |count| {
        stream.job(Kind::Sink, count * size as u64)?;
        for _ in 0..count {
            stream.write(&bytes)?;
        }
        stream.answer()
    })
}

/// From the peer.
pub fn receive(way: &Way, size: usize, time: Duration) -> Result<Measured> {
    let mut stream = Stream::open(way)?;
    measure(fifo(way), size, time, |count| {
        let length = count * size as u64;
        stream.job(Kind::Source, length)?;
        read_all(&stream.reader, length, size)
    })
}

/// To a device that throws it away.
pub fn discard(path: &str, size: usize, time: Duration) -> Result<Measured> {
    let mut file = open(path)?;
    let bytes = vec![0x5a; size];
    measure(Some(path), size, time, |count| {
        for _ in 0..count {
            file.write_all(&bytes)?;
        }
        file.sync_all().context("fsync")
    })
}

/// From a device that makes it up.
pub fn generate(path: &str, size: usize, time: Duration) -> Result<Measured> {
    let file = open(path)?;
    measure(Some(path), size, time, |count| {
        read_all(&file, count * size as u64, size)
    })
}

/// From one thread to another.
pub fn loopback(way: &Way, size: usize, time: Duration) -> Result<Measured> {
    let (reader, writer) = match way {
        Way::Fifo(path) => (open(path)?, open(path)?),
        Way::Pipe => pipe()?,
        Way::Serial | Way::Vsock => bail!("{way:?} does not come back by itself"),
    };
    let bytes = vec![0x5a; size];
    measure(fifo(way), size, time, |count| {
        thread::scope(|scope| {
            let (mut writer, bytes) = (&writer, &bytes);
            let written = scope.spawn(move || (0..count).try_for_each(|_| writer.write_all(bytes)));
            read_all(&reader, count * size as u64, size)?;
            let written = written.join().map_err(|_| anyhow!("the writer panicked"))?;
            written.context("writing")
        })
    })
}

fn measure(
    path: Option<&str>,
    size: usize,
    time: Duration,
    run: impl FnMut(u64) -> Result<()>,
) -> Result<Measured> {
    let (count, measured) = rehearse(path, time, run)?;
    Ok(Measured {
        operations: count,
        bytes: count * size as u64,
        ..measured
    })
}

fn read_all(mut from: &File, length: u64, size: usize) -> Result<()> {
    let mut room = vec![0; size];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).map_or(size, |left| left.min(size));
        let count = from.read(room.get_mut(..most).context("a read is too large")?)?;
        if count == 0 {
            bail!("the stream ended with {left} bytes to come");
        }
        left -= count as u64;
    }
    Ok(())
}

/// The path of a way that is a FIFO.
fn fifo(way: &Way) -> Option<&str> {
    match way {
        Way::Fifo(path) => Some(path),
        Way::Serial | Way::Vsock | Way::Pipe => None,
    }
}

fn open(path: &str) -> Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {path}"))
}

fn pipe() -> Result<(File, File)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).context("F_SETPIPE_SZ")?;
    Ok((reader.into(), writer.into()))
}

fn vsock() -> Result<File> {
    // Nothing loads it for a device that was there before udev.
    if !Path::new("/sys/module").join(VSOCK_DRIVER).exists() {
        system::run("modprobe", &[VSOCK_DRIVER])?;
    }
    let stream = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("making a vsock socket")?;
    let host = VsockAddr::new(libc::VMADDR_CID_HOST, VSOCK_PORT);
    match connect(stream.as_raw_fd(), &host) {
        Ok(()) => Ok(stream.into()),
        Err(Errno::ENODEV) => bail!("there is no vsock device"),
        Err(error) => Err(error).context("connecting to the host by vsock"),
    }
}

/// Name of the device node of a virtio-serial port, like `vport4p1`.
pub fn serial_port(name: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/virtio-ports").context("no virtio-serial ports")? {
        let entry = entry?;
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("there is no virtio-serial port {name}")
}
