// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! First process of the guest, once the init script has set the place up: runs what the host asks for and says how it ended.
//!
//! It knows ports and processes. It must not know what a FIFO device is, nor how the guest's file systems came about.

mod exec;
mod ports;
mod pump;
mod reaper;
mod run;
mod serve;
mod wires;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use fifo_lab_agent::Mark;
use fifo_lab_agent::Mount;
use fifo_lab_agent::PORT_CONTROL;
use fifo_lab_agent::PORT_EXEC;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;

use rustix::mount::MountFlags;

use crate::ports::Ports;
use crate::reaper::Reaper;
use crate::run::Current;

/// Where the init script leaves its complaints, one a line.
const COMPLAINTS: &str = "/run/lab/complaints";
/// Variable in which the init scripts leave the ends of their steps: `STEP=SECONDS STEP=SECONDS`, seconds since the kernel's start.
const MARKS: &str = "LAB_MARKS";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == exec::SUBCOMMAND) {
        return exec::exec(args.collect());
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("lab agent: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the host until it goes away; as process 1, returning is a panic of the kernel, which the host notices.
fn serve() -> std::io::Result<()> {
    let mut marks = marks(&std::env::var(MARKS).unwrap_or_default());
    marks.push(mark("handover"));
    let ports = Arc::new(Ports::open()?);
    let mut control = ports::open(PORT_CONTROL)?;
    let replies = Arc::new(Mutex::new(control.try_clone()?));
    marks.push(mark("agent"));
    let ready = Report::Ready {
        complaints: complaints(),
        marks,
    };
    send(&mut control, &ready)?;

    let reaper = Reaper::start();
    let current = Arc::new(Mutex::new(Current::default()));
    let mut stays = Duration::ZERO;
    for line in BufReader::new(control).lines() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(Request::Run(command)) => {
                let (ports, replies, current) = (ports.clone(), replies.clone(), current.clone());
                let reaper = reaper.clone();
                thread::spawn(move || {
                    let report = run::run(&command, &reaper, &ports, &current, || {
                        reply(&replies, &Report::Started);
                    });
                    reply(&replies, &report);
                });
            }
            Ok(Request::Mount(mount)) => reply(
                &replies,
                &Report::Mounted {
                    error: mount_share(&mount).err().map(|err| err.to_string()),
                },
            ),
            Ok(Request::Resize(size)) => run::resize(&current, size),
            Ok(Request::Kill) => run::kill(&current),
            Ok(Request::Serve { idle }) => {
                stays = Duration::from_secs(idle);
                let (port, reaper) = (ports::open(PORT_EXEC)?, reaper.clone());
                thread::spawn(move || {
                    if let Err(err) = serve::serve(port, &reaper) {
                        eprintln!("lab agent: cannot serve {PORT_EXEC}: {err}");
                    }
                });
            }
            Err(err) => eprintln!("lab agent: bad request {line:?}: {err}"),
        }
    }
    // Whoever kept this machine was killed. Nobody can use it any more, but it can still be looked into from outside.
    thread::sleep(stays);
    Err(std::io::Error::other("the host closed the control port"))
}

fn mount_share(mount: &Mount) -> std::io::Result<()> {
    fs::create_dir_all(&mount.path)?;
    let flags = if mount.read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    Ok(rustix::mount::mount(
        mount.tag.as_str(),
        mount.path.as_str(),
        "virtiofs",
        flags,
        None,
    )?)
}

fn complaints() -> Vec<String> {
    let text = fs::read_to_string(COMPLAINTS).unwrap_or_default();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What the init scripts have left; what is not in their form is not theirs.
fn marks(text: &str) -> Vec<Mark> {
    let mark = |word: &str| {
        let (step, seconds) = word.split_once('=')?;
        let (whole, hundredths) = seconds.split_once('.')?;
        let millis = whole.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10;
        Some(Mark {
            step: step.to_owned(),
            millis,
        })
    };
    text.split_whitespace().filter_map(mark).collect()
}

/// The end of a step, now.
fn mark(step: &str) -> Mark {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    Mark {
        step: step.to_owned(),
        millis: seconds * 1000 + nanos / 1_000_000,
    }
}

fn reply(replies: &Mutex<fs::File>, report: &Report) {
    let mut port = replies
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(err) = send(&mut port, report) {
        eprintln!("lab agent: cannot report {report:?}: {err}");
    }
}

fn send(port: &mut fs::File, report: &Report) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    port.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_steps_with_hundredths_of_a_second_and_anything_else_is_left_out() {
        let found = marks("init=5.12 x root=12.03 =. a=b.c");
        let found: Vec<_> = found
            .iter()
            .map(|mark| (mark.step.as_str(), mark.millis))
            .collect();
        assert_eq!(found, [("init", 5120), ("root", 12_030)]);
    }
}
