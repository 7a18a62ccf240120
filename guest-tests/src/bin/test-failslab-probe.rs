// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory runs out while a device is bound, and somebody opens its FIFOs as soon as there is a node.
//!
//! What happens in calls is tested in test-failslab. Needs a kernel with fault injection, and a device of two FIFOs: then the probe
//! can fail when the first can be opened already.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use globalfifo_guest_tests::failures::{Failures, Scope, walk_some};
use globalfifo_guest_tests::fifo::{Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, Test};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, SFlag, mknod, stat};

const TESTS: &[Test] = &[(
    "a_probe_that_runs_out_of_memory_leaves_no_file_that_works_by_halves",
    bind,
)];

/// How long the test may take: each failure costs an unbind, on a kernel full of checks.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    harness::main_with(TESTS, &filters, LIMIT, &[], "")
}

/// Files that a thread opened while the device was being bound, in a loop and by a node that does not wait for udev.
struct Opener {
    files: Arc<Mutex<Vec<Fifo>>>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Opener {
    /// Node of the first FIFO.
    const NODE: &str = "/dev/globalfifo-test-opener";

    fn start() -> Result<Self> {
        let _ = std::fs::remove_file(Self::NODE);
        let device = stat(PATH)?.st_rdev;
        mknod(
            Self::NODE,
            SFlag::S_IFCHR,
            Mode::S_IRUSR | Mode::S_IWUSR,
            device,
        )?;
        let (files, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (opened, stop): (Arc<Mutex<Vec<Fifo>>>, _) = (Arc::clone(&files), over.clone());
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                match Fifo::open_at(Self::NODE, O_NONBLOCK) {
                    Ok(file) => {
                        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                        // A few are enough, and the others would keep the device from being bound.
                        if opened.len() < 8 {
                            opened.push(file);
                        }
                    }
                    Err(_) => thread::yield_now(),
                }
            }
        });
        Ok(Self {
            files,
            over,
            thread: Some(thread),
        })
    }

    /// Those opened since the last time.
    fn take(&self) -> Vec<Fifo> {
        std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(Self::NODE);
    }
}

/// A probe that fails, also after one of its FIFOs could be opened, leaves nothing that works by halves.
fn bind() -> Result<()> {
    let bytes = pattern(41, 300);
    drop(Failures::new(Scope::Driver)?);
    Fifo::open_empty(0)?.write_all(&bytes)?;
    let device = system::device_name()?;
    let opener = Opener::start()?;
    let mut caught: usize = 0;
    walk_some(
        Scope::Driver,
        || {
            if system::device_name().is_ok() {
                system::unbind(&device)?;
            }
            drop(opener.take());
            Ok(OpenOptions::new()
                .write(true)
                .open("/sys/bus/virtio/drivers/globalfifo/bind")?)
        },
        |file| {
            let done = file.write(device.as_bytes());
            done.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        },
        |_, result| {
            let shown = Path::new("/sys/class/globalfifo/globalfifo0").exists();
            check_eq!(shown, result.is_ok());
            check_eq!(system::device_name().is_ok(), result.is_ok());
            match result {
                Ok(_) => Ok(()),
                Err(error) => {
                    for file in opener.take() {
                        caught += 1;
                        check_eq!(file.read(1), Err(Errno::ENODEV));
                        check_eq!(file.write(b"x"), Err(Errno::ENODEV));
                        check!(file.events()?.contains(PollFlags::POLLHUP));
                    }
                    check!(matches!(error, Errno::ENOMEM | Errno::EFAULT));
                    Ok(())
                }
            }
        },
    )?;
    drop(opener);
    eprintln!("# {caught} files were opened in probes that failed");
    system::wait_for_file(PATH, true)?;
    let fifo = Fifo::open(0)?;
    check_eq!(fifo.read_exact(300)?, bytes);
    fifo.write_all(b"still works")?;
    check_eq!(fifo.read_exact(11)?, b"still works".to_vec());
    Ok(())
}
