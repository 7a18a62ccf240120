// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Buries all children of this process, which as process 1 has orphans too, and hands the statuses of commands to those who wait for them.
//!
//! One thread reaps: several that waited for any child would take each other's. It must not know what the children are.

use std::collections::HashMap;
use std::io;
use std::process::Command as Process;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;

use nix::errno::Errno;
use nix::sys::wait::Id;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitid;
use nix::sys::wait::waitpid;
use rustix::process::Pid;

type Waiting = HashMap<i32, Sender<u8>>;

/// The one that reaps.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<Waiting>,
    /// A child has been started.
    started: Condvar,
}

impl Reaper {
    /// Starts reaping.
    pub fn start() -> Arc<Self> {
        let reaper = Arc::new(Self::default());
        let thread = reaper.clone();
        thread::spawn(move || thread.reap());
        reaper
    }

    /// Starts a child; the receiver gets its status as a shell gives it. The `Process`, and with it our copies of the child's ends of pipes, is gone
    /// afterwards.
    pub fn spawn(&self, mut process: Process) -> io::Result<(Pid, Receiver<u8>)> {
        let (sender, receiver) = mpsc::channel();
        // Held from before the child is there: its end is not looked at before it can be found here.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = Pid::from_child(&process.spawn()?);
        waiting.insert(pid.as_raw_pid(), sender);
        self.started.notify_all();
        Ok((pid, receiver))
    }

    fn reap(&self) {
        loop {
            // Looked at first and reaped under the lock: a child that could not start is reaped by who tried.
            let seen = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match seen {
                Ok(status) => {
                    let Some(pid) = status.pid() else { continue };
                    let Ok(status) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) else {
                        continue;
                    };
                    if let Some(waiter) = waiting.remove(&pid.as_raw()) {
                        let _ = waiter.send(shell_status(status));
                    }
                }
                // Without a child there are no orphans, either.
                Err(Errno::ECHILD) if waiting.is_empty() => {
                    drop(self.started.wait(waiting));
                }
                Err(_) => {}
            }
        }
    }
}

fn shell_status(status: WaitStatus) -> u8 {
    let status = match status {
        WaitStatus::Exited(_, status) => status,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 255,
    };
    u8::try_from(status).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut process = Process::new("/bin/sh");
        process.args(["-c", script]);
        process
    }

    #[test]
    fn each_waiter_gets_its_own_childs_status_and_a_child_that_cannot_start_harms_none() {
        let reaper = Reaper::start();
        let children: Vec<_> = (0..20)
            .map(|status| {
                let mut lost = shell("true");
                lost.current_dir("/no/such/folder");
                assert!(reaper.spawn(lost).is_err());
                (
                    status,
                    reaper.spawn(shell(&format!("exit {status}"))).unwrap(),
                )
            })
            .collect();
        let (_, killed) = reaper.spawn(shell("kill -TERM $$")).unwrap();
        for (status, (_, receiver)) in children {
            assert_eq!(receiver.recv().unwrap(), status);
        }
        assert_eq!(killed.recv().unwrap(), 128 + 15);
        // It waits without children, and goes on with the next.
        let (_, last) = reaper.spawn(shell("exit 9")).unwrap();
        assert_eq!(last.recv().unwrap(), 9);
    }
}
