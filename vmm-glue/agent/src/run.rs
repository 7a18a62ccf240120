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
use rustix::process::WaitOptions;
use rustix::process::WaitStatus;
use rustix::pty::OpenptFlags;

use crate::exec;
use crate::ports::Ports;
use crate::pump;

/// What the requests that come during a run act on.
#[derive(Debug, Default)]
pub struct Current {
    /// There is one set of streams, so one command at a time.
    is_taken: bool,
    session: Option<Pid>,
    terminal: Option<OwnedFd>,
}

type Shared = Arc<Mutex<Current>>;

/// Runs a command to its end. `started` is called once it can be fed.
pub fn run(
    command: &Command,
    ports: &Arc<Ports>,
    current: &Shared,
    started: impl FnOnce(),
) -> Report {
    if std::mem::replace(&mut lock(current).is_taken, true) {
        return refused(ports, "another command is running");
    }
    let report = try_run(command, ports, current, started)
        .unwrap_or_else(|err| refused(ports, &format!("cannot start the command: {err}")));
    *lock(current) = Current::default();
    report
}

fn refused(ports: &Ports, why: &str) -> Report {
    let text = format!("lab agent: {why}\n");
    let sent =
        io::Write::write_all(&mut &ports.stderr, text.as_bytes()).map_or(0, |()| text.len() as u64);
    Report::Exited {
        status: 126,
        stdout: 0,
        stderr: sent,
    }
}

fn try_run(
    command: &Command,
    ports: &Arc<Ports>,
    current: &Shared,
    started: impl FnOnce(),
) -> io::Result<Report> {
    let ended = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
    let running = match &command.stdin {
        Stdin::Terminal(terminal) => on_terminal(command, terminal, ports, current, &ended)?,
        Stdin::Null | Stdin::Port => on_pipes(command, ports, &ended)?,
    };
    lock(current).session = Some(running.pid);
    started();
    let status = wait(running.pid)?;
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
    stdout: JoinHandle<u64>,
    stderr: Option<JoinHandle<u64>>,
}

fn on_pipes(command: &Command, ports: &Arc<Ports>, ended: &Arc<OwnedFd>) -> io::Result<Running> {
    let (stdout, to_stdout) = io::pipe()?;
    let (stderr, to_stderr) = io::pipe()?;
    let mut process = process(command, "-");
    process.stdout(to_stdout).stderr(to_stderr);
    if command.stdin == Stdin::Port {
        let (from_port, stdin) = io::pipe()?;
        process.stdin(from_port);
        let ports = ports.clone();
        thread::spawn(move || pump::input(&ports.stdin, stdin.into()));
    } else {
        process.stdin(Stdio::null());
    }
    let pid = spawn(process)?;
    Ok(Running {
        pid,
        stdout: pump_out(OwnedFd::from(stdout).into(), ports, ended, |ports| {
            &ports.stdout
        }),
        stderr: Some(pump_out(
            OwnedFd::from(stderr).into(),
            ports,
            ended,
            |ports| &ports.stderr,
        )),
    })
}

fn on_terminal(
    command: &Command,
    terminal: &Terminal,
    ports: &Arc<Ports>,
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
    let pid = spawn(process)?;
    lock(current).terminal = Some(master.try_clone()?);
    let input = master.try_clone()?;
    let input_ports = ports.clone();
    thread::spawn(move || pump::terminal_input(&input_ports.stdin, &input));
    Ok(Running {
        pid,
        stdout: pump_out(master.into(), ports, ended, |ports| &ports.stdout),
        stderr: None,
    })
}

fn process(command: &Command, tty: &str) -> Process {
    let mut process = Process::new("/proc/self/exe");
    process
        .arg(exec::SUBCOMMAND)
        .arg(tty)
        .args(&command.argv)
        .envs(&command.env);
    if !command.cwd.is_empty() {
        process.current_dir(&command.cwd);
    }
    process
}

/// Starts it; the `Process` and with it our copies of the command's ends of the pipes are gone afterwards.
fn spawn(mut process: Process) -> io::Result<Pid> {
    let child = process.spawn()?;
    Ok(Pid::from_child(&child))
}

fn pump_out(
    from: File,
    ports: &Arc<Ports>,
    ended: &Arc<OwnedFd>,
    port: fn(&Ports) -> &File,
) -> JoinHandle<u64> {
    let (ports, ended) = (ports.clone(), ended.clone());
    thread::spawn(move || pump::out(from, port(&ports), &ended))
}

/// Waits for a child, burying the orphans that end meanwhile: this is process 1.
fn wait(pid: Pid) -> io::Result<u8> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((found, status))) if found == pid => return Ok(shell_status(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

fn shell_status(status: WaitStatus) -> u8 {
    let status = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    u8::try_from(status).unwrap_or(255)
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

fn lock(current: &Shared) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}
