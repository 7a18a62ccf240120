// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals, as the event loop takes them: which end the daemon, and what the others ask for.
//!
//! No signal that somebody sends ends the daemon other than in order. Those by which the kernel
//! reports a fault of the program, those of job control and those that do nothing by themselves
//! stay as they are. This file must not know who writes metrics or opens files.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use tracing::error;
use tracing::info;
use tracing::warn;
use vmm_sys_util::event::EventNotifier;

use crate::server::StopHandle;
use crate::systemd::ServiceManager;

/// Signals that are left to the kernel.
const LEFT_ALONE: [Signal; 15] = [
    // A fault of this program.
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    // Job control.
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    // Nothing happens.
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
    // Ignored by Rust's runtime: the call fails with EPIPE.
    Signal::SIGPIPE,
];

/// Who wants to know of a signal that does not end the daemon.
#[derive(Debug, Default)]
pub struct Requests {
    /// Of SIGHUP: those who have files open by name.
    pub reopen: Vec<EventNotifier>,
    /// Of SIGUSR1: those who report.
    pub report: Vec<EventNotifier>,
}

/// See the module.
#[derive(Debug)]
pub struct Signals {
    signals: SignalFd,
    stop: StopHandle,
    requests: Requests,
    manager: Arc<ServiceManager>,
}

impl Signals {
    /// From now on signals come to the event loop. Call it before any other thread is started, so
    /// that none of them gets a signal instead.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn take_over(
        stop: StopHandle,
        requests: Requests,
        manager: Arc<ServiceManager>,
    ) -> nix::Result<Self> {
        let mut set = SigSet::all();
        for signal in LEFT_ALONE {
            set.remove(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            signals: SignalFd::with_flags(&set, flags)?,
            stop,
            requests,
            manager,
        })
    }

    fn act(&self, number: u32) {
        let signal = i32::try_from(number).map(Signal::try_from);
        match signal {
            Ok(Ok(Signal::SIGHUP)) => {
                info!("SIGHUP: files are opened anew");
                notify(&self.requests.reopen);
            }
            Ok(Ok(Signal::SIGUSR1)) => notify(&self.requests.report),
            // The write that was too much has failed with EFBIG.
            Ok(Ok(Signal::SIGXFSZ)) => {}
            _ => {
                info!(signal = number, "ending");
                self.manager.stopping();
                if let Err(error) = self.stop.stop() {
                    error!(%error, "cannot end");
                }
            }
        }
    }
}

fn notify(all: &[EventNotifier]) {
    for one in all {
        if let Err(error) = one.notify() {
            warn!(%error, "cannot pass a signal on");
        }
    }
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let fd = self.signals.as_fd().as_raw_fd();
        if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
            error!(%error, "signals are not heard");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            self.act(signal.ssi_signo);
        }
    }
}
