// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Table 9.1: every signal's number, as the kernel shows it.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use super::Desk;
use super::show::{holds, say};
use crate::signals;

/// What happens to a process that does not catch the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ends,
    Stops,
    Ignores,
}
use Fate::{Ends, Ignores, Stops};

/// A line of the table: the number on x86 and most others, what the C library calls it, what happens
/// by default, what it is for.
type Row = (c_int, &'static str, c_int, Fate, &'static str);

const ROWS: &[Row] = &[
    (1, "SIGHUP", libc::SIGHUP, Ends, "the terminal was hung up"),
    (2, "SIGINT", libc::SIGINT, Ends, "Ctrl-C"),
    (
        3,
        "SIGQUIT",
        libc::SIGQUIT,
        Ends,
        "Ctrl-\\, with a core dump",
    ),
    (4, "SIGILL", libc::SIGILL, Ends, "no such instruction"),
    (5, "SIGTRAP", libc::SIGTRAP, Ends, "a debugger's breakpoint"),
    (
        6,
        "SIGABRT",
        libc::SIGABRT,
        Ends,
        "abort(); also called SIGIOT",
    ),
    (
        7,
        "SIGBUS",
        libc::SIGBUS,
        Ends,
        "no memory behind an address",
    ),
    (
        8,
        "SIGFPE",
        libc::SIGFPE,
        Ends,
        "division by zero and the like",
    ),
    (
        9,
        "SIGKILL",
        libc::SIGKILL,
        Ends,
        "the end, not to be caught",
    ),
    (10, "SIGUSR1", libc::SIGUSR1, Ends, "free for programs"),
    (
        11,
        "SIGSEGV",
        libc::SIGSEGV,
        Ends,
        "an address that is not mapped",
    ),
    (12, "SIGUSR2", libc::SIGUSR2, Ends, "free for programs"),
    (
        13,
        "SIGPIPE",
        libc::SIGPIPE,
        Ends,
        "a pipe without a reader",
    ),
    (14, "SIGALRM", libc::SIGALRM, Ends, "alarm() has run out"),
    (
        15,
        "SIGTERM",
        libc::SIGTERM,
        Ends,
        "please end: kill's default",
    ),
    (16, "SIGSTKFLT", libc::SIGSTKFLT, Ends, "not used any more"),
    (
        17,
        "SIGCHLD",
        libc::SIGCHLD,
        Ignores,
        "a child has ended or stopped",
    ),
    (18, "SIGCONT", libc::SIGCONT, Ignores, "go on after a stop"),
    (
        19,
        "SIGSTOP",
        libc::SIGSTOP,
        Stops,
        "stop, not to be caught",
    ),
    (20, "SIGTSTP", libc::SIGTSTP, Stops, "Ctrl-Z"),
    (
        21,
        "SIGTTIN",
        libc::SIGTTIN,
        Stops,
        "the background reads a terminal",
    ),
    (
        22,
        "SIGTTOU",
        libc::SIGTTOU,
        Stops,
        "the background writes to one",
    ),
    (
        23,
        "SIGURG",
        libc::SIGURG,
        Ignores,
        "urgent data on a socket",
    ),
    (24, "SIGXCPU", libc::SIGXCPU, Ends, "CPU time limit"),
    (25, "SIGXFSZ", libc::SIGXFSZ, Ends, "file size limit"),
    (
        26,
        "SIGVTALRM",
        libc::SIGVTALRM,
        Ends,
        "timer of the process's own time",
    ),
    (27, "SIGPROF", libc::SIGPROF, Ends, "timer for profilers"),
    (
        28,
        "SIGWINCH",
        libc::SIGWINCH,
        Ignores,
        "the window's size has changed",
    ),
    (
        29,
        "SIGIO",
        libc::SIGIO,
        Ends,
        "a file is ready: kill_fasync; also SIGPOLL",
    ),
    (30, "SIGPWR", libc::SIGPWR, Ends, "the power fails"),
    (
        31,
        "SIGSYS",
        libc::SIGSYS,
        Ends,
        "a system call that is not allowed",
    ),
];

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

pub(super) fn run(_: &Desk) -> Result<()> {
    say!("  number  name       header  handler got  not caught        what it is for");
    for (number, name, header, default, meaning) in ROWS {
        let caught = catch(*header)?;
        let (shown, ended_by) = suffer(*header)?;
        let catchable = !matches!(*header, libc::SIGKILL | libc::SIGSTOP);
        let handler = caught.map_or_else(|| "refused".to_owned(), |n| n.to_string());
        let fate = match ended_by {
            Some(by) => format!("{shown:?} ({by})").to_lowercase(),
            None => format!("{shown:?}").to_lowercase(),
        };
        say!("  {number:>6}  {name:<9}  {header:>6}  {handler:>11}  {fate:<16}  {meaning}");
        if number != header {
            bail!("{name} is {header} here, not {number}");
        }
        if caught != catchable.then_some(*number) {
            bail!("the handler of {name} got {caught:?}");
        }
        if shown != *default || ended_by.is_some_and(|by| by != *number) {
            bail!("{name}, not caught: expected {default:?}, saw {fate}");
        }
    }
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    for signal in first..=last {
        let caught = catch(signal)?;
        if caught != Some(signal) {
            bail!("the handler of real-time signal {signal} got {caught:?}");
        }
    }
    say!(
        "  {first:>2} … {last}  SIGRTMIN … SIGRTMAX: each was caught. (The C library keeps 32 and 33.)\n"
    );
    holds!(
        libc::SIGIO == 29 && libc::SIGPOLL == 29,
        "SIGIO and SIGPOLL are one signal, 29"
    );
    queueing(first)
}

/// A handler for `signal` is installed and run: the number it got. `None` if that is not allowed.
fn catch(signal: c_int) -> Result<Option<c_int>> {
    let handler = note as extern "C" fn(c_int);
    // SAFETY: The handler only stores to an atomic.
    let old = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    if old == libc::SIG_ERR {
        return match Errno::last() {
            Errno::EINVAL => Ok(None),
            error => Err(error).context("signal()"),
        };
    }
    CAUGHT.store(0, Ordering::Relaxed);
    // SAFETY: The signal is caught. One sent to oneself has come before raise() returns.
    let raised = unsafe { libc::raise(signal) };
    // SAFETY: Puts back what was there.
    unsafe { libc::signal(signal, old) };
    Errno::result(raised).context("raise()")?;
    Ok(Some(CAUGHT.load(Ordering::Relaxed)))
}

/// A child raises `signal` without catching it: what became of it, and by which signal.
fn suffer(signal: c_int) -> Result<(Fate, Option<c_int>)> {
    // SAFETY: This process has one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // No core dumps; and a group of its own, since a group without a parent is never stopped.
            let _ = nix::sys::prctl::set_dumpable(false);
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            // SAFETY: Takes a number: the default action.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // SAFETY: What it does is what we want to know.
            unsafe { libc::raise(signal) };
            // SAFETY: Ends the process.
            unsafe { libc::_exit(0) }
        }
    };
    // Not nix's waitpid: it knows no real-time signals, but it is none of those here.
    match waitpid(child, Some(WaitPidFlag::WUNTRACED))? {
        WaitStatus::Signaled(_, by, _) => Ok((Ends, Some(by as c_int))),
        WaitStatus::Stopped(_, by) => {
            nix::sys::signal::kill(child, Signal::SIGKILL)?;
            waitpid(child, None)?;
            Ok((Stops, Some(by as c_int)))
        }
        WaitStatus::Exited(_, 0) => Ok((Ignores, None)),
        other => bail!("the child's end: {other:?}"),
    }
}

/// Why F_SETSIG exists: of two signals that wait, one is left of SIGIO and both of a real-time signal.
fn queueing(real_time: c_int) -> Result<()> {
    let own = nix::unistd::getpid().as_raw();
    for (signal, name, expected) in [(libc::SIGIO, "SIGIO", 1), (real_time, "SIGRTMIN", 2)] {
        signals::block(signal)?;
        for _ in 0..2 {
            // SAFETY: The signal is blocked, so it stays pending.
            Errno::result(unsafe { libc::kill(own, signal) })?;
        }
        let mut got = 0;
        while signals::take(signal, Duration::ZERO)?.is_some() {
            got += 1;
        }
        holds!(
            got == expected,
            "{name} sent twice while it was blocked: {got} delivered"
        );
    }
    Ok(())
}
