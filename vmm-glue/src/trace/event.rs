// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One event of the timeline, and where it belongs in a picture. It must not know where events come
//! from, what one leads to, or how they are drawn.

use std::collections::HashMap;

/// Where an event happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the daemon, on the host.
    Daemon,
    /// In this thread of QEMU's, on the host.
    Qemu(i32),
    /// In the driver, on this CPU of the guest.
    Driver(u16),
    /// In an interrupt of the device, on this CPU of the guest.
    Interrupt(u16),
    /// In a task of the guest, by its thread id.
    Task(i32),
    /// In the guest's kernel otherwise, on this CPU.
    Kernel(u16),
}

/// What stands for its part of the trace.
impl Place {
    /// `daemon`, `qemu`, `driver`, `interrupt`, `task` or `kernel`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Qemu(_) => "qemu",
            Self::Driver(_) => "driver",
            Self::Interrupt(_) => "interrupt",
            Self::Task(_) => "task",
            Self::Kernel(_) => "kernel",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Nanoseconds of the host's CLOCK_MONOTONIC.
    pub ns: u64,
    /// How long it lasts, in nanoseconds; 0 for a moment.
    pub lasts: u64,
    /// Where.
    pub place: Place,
    /// Which CPU of the guest; `None` on the host.
    pub cpu: Option<u16>,
    /// Task that the CPU was running, in the guest.
    pub pid: i32,
    /// What; of the driver without `globalfifo_`.
    pub name: Box<str>,
    /// Its fields: `fifo=0 bytes=6`, or as the kernel writes them.
    pub text: Box<str>,
}

impl Event {
    /// The value of a field that is written `name=value` or `name: value`.
    pub fn field(&self, name: &str) -> Option<&str> {
        let text = &*self.text;
        let mut from = 0;
        while let Some(at) = text.get(from..)?.find(name).map(|at| at + from) {
            let rest = text.get(at + name.len()..)?;
            let starts = text
                .get(..at)?
                .chars()
                .next_back()
                .is_none_or(|c| " (,".contains(c));
            if starts && let Some(rest) = rest.strip_prefix('=').or_else(|| rest.strip_prefix(": "))
            {
                return rest.split([' ', ',']).next();
            }
            from = at + name.len();
        }
        None
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// Whether it is one of the driver's of this name.
    pub fn is_driver(&self, name: &str) -> bool {
        matches!(self.place, Place::Driver(_)) && &*self.name == name
    }

    /// Whether it is one of the daemon's of this name.
    pub fn is_daemon(&self, name: &str) -> bool {
        self.place == Place::Daemon && &*self.name == name
    }
}

/// A whole trace.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// In order of time.
    pub events: Vec<Event>,
    /// What the guest's tasks are called, by thread id.
    pub tasks: HashMap<i32, String>,
    /// What QEMU's threads are called, by thread id.
    pub threads: HashMap<i32, String>,
    /// QEMU's thread that takes notifications and raises interrupts, where one does.
    pub main_loop: Option<i32>,
}

impl Timeline {
    /// What a place is called.
    pub fn label(&self, place: Place) -> String {
        match place {
            Place::Daemon => "daemon".to_owned(),
            Place::Qemu(tid) => {
                let name = self.threads.get(&tid).map_or("thread", String::as_str);
                format!("QEMU, {name}")
            }
            Place::Driver(cpu) => format!("driver, CPU {cpu}"),
            Place::Interrupt(cpu) => format!("interrupt, CPU {cpu}"),
            Place::Kernel(cpu) => format!("kernel, CPU {cpu}"),
            Place::Task(pid) => {
                let name = self.tasks.get(&pid).map_or("task", String::as_str);
                format!("{name}-{pid}")
            }
        }
    }

    /// Every place where something happened: the guest's tasks, its CPUs, the driver, QEMU, the daemon.
    pub fn places(&self) -> Vec<Place> {
        let mut seen = std::collections::HashSet::new();
        let mut places: Vec<_> = self
            .events
            .iter()
            .map(|event| event.place)
            .filter(|place| seen.insert(*place))
            .collect();
        places.sort_by_key(|place| match place {
            Place::Task(_) => (0, 0),
            Place::Kernel(cpu) => (1, u32::from(*cpu)),
            Place::Interrupt(cpu) => (2, u32::from(*cpu)),
            Place::Driver(cpu) => (3, u32::from(*cpu)),
            // The main loop first: threads are numbered as they were made.
            Place::Qemu(tid) => (4, u32::try_from(*tid).unwrap_or_default()),
            Place::Daemon => (5, 0),
        });
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event {
            ns: 0,
            lasts: 0,
            place: Place::Daemon,
            cpu: None,
            pid: 0,
            name: "x".into(),
            text: text.into(),
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let signal = event("sig=29 errno=0 code=1 comm=monitor pid=97 grp=1 res=0");
        assert_eq!(signal.number("sig"), Some(29));
        assert_eq!(signal.field("comm"), Some("monitor"));
        assert_eq!(signal.number("pid"), Some(97));
        assert_eq!(signal.field("ode"), None);
        let switch = event("prev_pid=5 prev_prio=120 ==> next_comm=sh next_pid=7 next_prio=120");
        assert_eq!(
            (switch.number("next_pid"), switch.field("pid")),
            (Some(7), None)
        );
        let call = event("fd: 1, buf: 55d0, count: 6");
        assert_eq!(
            (call.number("fd"), call.number("count")),
            (Some(1), Some(6))
        );
        assert_eq!(event("").field("x"), None);
    }
}
