// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One guest command: its streams, its process, its end.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::process::Command as Process;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::thread;
use std::thread::JoinHandle;

use fifo_lab_agent::Command;
use fifo_lab_agent::Report;
use fifo_lab_agent::Size;
use fifo_lab_agent::Stdin;
use fifo_lab_agent::Terminal;
use rustix::event::EventfdFlags;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;

use crate::exec;
use crate::pump;
use crate::reaper::Reaper;
use crate::wires::Output;
use crate::wires::Wires;

/// What the requests that come during a run act on.
#[derive(Debug, Default)]
pub struct Current {
    /// There is one set of streams, so one command at a time.
    is_taken: bool,
    session: Option<Pid>,
    terminal: Option<OwnedFd>,
}

/// As all who have to do with one command share it.
pub type Shared = Arc<Mutex<Current>>;

/// Runs a command to its end. `started` is called once it can be fed.
pub fn run(
    command: &Command,
    reaper: &Reaper,
    wires: &Arc<impl Wires>,
    current: &Shared,
    started: impl FnOnce(),
) -> Report {
    if std::mem::replace(&mut lock(current).is_taken, true) {
        return refused(&**wires, "another command is running");
    }
    let report = try_run(command, reaper, wires, current, started)
        .unwrap_or_else(|err| refused(&**wires, &format!("cannot start the command: {err}")));
    *lock(current) = Current::default();
    report
}

fn refused(wires: &impl Wires, why: &str) -> Report {
    let text = format!("lab agent: {why}\n");
    let sent = wires
        .write(Output::Stderr, text.as_bytes())
        .map_or(0, |()| text.len() as u64);
    Report::Exited {
        status: 126,
        stdout: 0,
        stderr: sent,
    }
}

fn try_run(
    command: &Command,
    reaper: &Reaper,
    wires: &Arc<impl Wires>,
    current: &Shared,
    started: impl FnOnce(),
) -> io::Result<Report> {
    let ended = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
    let running = match &command.stdin {
        Stdin::Terminal(terminal) => {
            on_terminal(command, terminal, reaper, wires, current, &ended)?
        }
        Stdin::Null | Stdin::Port => on_pipes(command, reaper, wires, &ended)?,
    };
    lock(current).session = Some(running.pid);
    started();
    let status = running.status.recv().map_err(io::Error::other)?;
    // What comes late is about nobody: the process's id may be another's soon.
    {
        let mut current = lock(current);
        current.session = None;
        current.terminal = None;
    }
    rustix::io::write(&*ended, &1_u64.to_ne_bytes())?;
    let stdout = running.stdout.join().unwrap_or_default();
    let stderr = running
        .stderr
        .map_or(0, |pump| pump.join().unwrap_or_default());
    // The host ends the machine when it has read everything: what the command wrote to shared folders must be there by then.
    rustix::fs::sync();
    Ok(Report::Exited {
        status,
        stdout,
        stderr,
    })
}

struct Running {
    pid: Pid,
    status: Receiver<u8>,
    stdout: JoinHandle<u64>,
    stderr: Option<JoinHandle<u64>>,
}

fn on_pipes(
    command: &Command,
    reaper: &Reaper,
    wires: &Arc<impl Wires>,
    ended: &Arc<OwnedFd>,
) -> io::Result<Running> {
    let (stdout, to_stdout) = io::pipe()?;
    let (stderr, to_stderr) = io::pipe()?;
    let mut process = process(command, "-");
    process.stdout(to_stdout).stderr(to_stderr);
    if command.stdin == Stdin::Port {
        let (from_host, stdin) = io::pipe()?;
        process.stdin(from_host);
        let wires = wires.clone();
        thread::spawn(move || pump::input(&*wires, stdin.into()));
    } else {
        process.stdin(Stdio::null());
    }
    let (pid, status) = reaper.spawn(process)?;
    let stderr = OwnedFd::from(stderr).into();
    Ok(Running {
        pid,
        status,
        stdout: pump_out(OwnedFd::from(stdout).into(), wires, Output::Stdout, ended),
        stderr: Some(pump_out(stderr, wires, Output::Stderr, ended)),
    })
}

fn on_terminal(
    command: &Command,
    terminal: &Terminal,
    reaper: &Reaper,
    wires: &Arc<impl Wires>,
    current: &Shared,
    ended: &Arc<OwnedFd>,
) -> io::Result<Running> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    // Held open until the command runs: a terminal that nobody has open reads as ended.
    let slave = File::options()
        .read(true)
        .write(true)
        .open(std::ffi::OsString::from_vec(name.to_bytes().to_vec()))?;
    terminal.apply(slave.as_fd());
    let mut process = process(command, &name.to_string_lossy());
    process
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave);
    let (pid, status) = reaper.spawn(process)?;
    lock(current).terminal = Some(master.try_clone()?);
    let input = master.try_clone()?;
    let input_wires = wires.clone();
    thread::spawn(move || pump::terminal_input(&*input_wires, &input));
    Ok(Running {
        pid,
        status,
        stdout: pump_out(master.into(), wires, Output::Stdout, ended),
        stderr: None,
    })
}

fn process(command: &Command, tty: &str) -> Process {
    let mut process = Process::new("/proc/self/exe");
    process
        .arg(exec::SUBCOMMAND)
        .arg(tty)
        .args(&command.argv)
        .env_remove(crate::MARKS)
        .envs(&command.env);
    if !command.cwd.is_empty() {
        process.current_dir(&command.cwd);
    }
    process
}

fn pump_out(
    from: File,
    wires: &Arc<impl Wires>,
    to: Output,
    ended: &Arc<OwnedFd>,
) -> JoinHandle<u64> {
    let (wires, ended) = (wires.clone(), ended.clone());
    thread::spawn(move || pump::out(from, &*wires, to, &ended))
}

/// Gives the running command's terminal a new size; the kernel sends SIGWINCH.
pub fn resize(current: &Shared, size: Size) {
    if let Some(terminal) = &lock(current).terminal {
        size.apply(terminal.as_fd());
    }
}

/// Ends the running command's session leader and its process group.
pub fn kill(current: &Shared) {
    if let Some(session) = lock(current).session {
        let _ = rustix::process::kill_process_group(session, Signal::KILL);
        let _ = rustix::process::kill_process(session, Signal::KILL);
    }
}

/// Sends a signal to the running command's process group; to its process alone while that has none of its own yet.
pub fn signal(current: &Shared, number: i32) {
    // A real-time signal is not passed on.
    let Some(signal) = Signal::from_named_raw(number) else {
        return;
    };
    if let Some(session) = lock(current).session
        && rustix::process::kill_process_group(session, signal).is_err()
    {
        let _ = rustix::process::kill_process(session, signal);
    }
}

fn lock(current: &Shared) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}
