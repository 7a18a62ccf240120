// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest's kernel has traced, as text, made into events. Pure: it must not know how the text
//! came here, or which event leads to which.

use std::collections::HashMap;
use std::collections::HashSet;

use super::clock::Clock;
use super::event::Event;
use super::event::Place;
use super::event::Timeline;

/// Names of the driver's events begin so.
const DRIVER: &str = "globalfifo_";

/// A line of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// Name of the task that ran.
    pub task: &'a str,
    /// Its thread id.
    pub pid: i32,
    /// On which CPU.
    pub cpu: u16,
    /// Nanoseconds of the guest's CLOCK_MONOTONIC, of which the text has the microseconds.
    pub ns: u64,
    /// Name of the event; a system call's is `sys_…`.
    pub name: &'a str,
    /// A system call's end.
    pub ends: bool,
    /// What it says.
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// `  sh-98  [000] d..1.  8.563953: irq_handler_entry: irq=22 name=virtio1`, or as a system call:
    /// `sys_write(fd: 1, buf: 5, count: 2)` and `sys_write -> 0x2`.
    pub fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        // A task's name may have anything in it; what follows the CPU has not.
        let (head, rest) = line.split_once(": ")?;
        let open = head.rfind(" [")?;
        let (task, pid) = head.get(..open)?.trim().rsplit_once('-')?;
        let mut words = head.get(open + 2..)?.split_whitespace();
        let cpu = words.next()?.strip_suffix(']')?.parse().ok()?;
        let (seconds, micros) = words.next_back()?.split_once('.')?;
        let seconds = seconds.parse::<u64>().ok()?;
        let micros = micros.parse::<u64>().ok()?;
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let (name, text) = rest.split_at(end);
        let (text, ends) = if let Some(text) = text.strip_prefix(": ") {
            (text, false)
        } else if let Some(text) = text.strip_prefix('(') {
            (text.strip_suffix(')').unwrap_or(text), false)
        } else {
            (text.strip_prefix(" -> ")?, true)
        };
        Some(Self {
            task,
            pid: pid.parse().ok()?,
            cpu,
            ns: seconds
                .checked_mul(1_000_000_000)?
                .checked_add(micros * 1000)?,
            name,
            ends,
            text: text.trim_end(),
        })
    }

    fn number(&self, name: &str) -> Option<u64> {
        let mut words = self.text.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    fn place(&self, own: &HashSet<i32>) -> Place {
        if self.name.starts_with(DRIVER) {
            return Place::Driver(self.cpu);
        }
        let named = |field| {
            let pid = self.number(field).and_then(|pid| i32::try_from(pid).ok());
            pid.filter(|pid| own.contains(pid))
        };
        match self.name {
            // Of the task that is woken or runs from now on, not of the one that had the CPU.
            "sched_waking" | "sched_wakeup" => Place::Task(named("pid").unwrap_or(self.pid)),
            "sched_switch" => Place::Task(named("next_pid").unwrap_or(self.pid)),
            "irq_handler_entry" | "irq_handler_exit" => Place::Interrupt(self.cpu),
            "signal_generate" | "hrtimer_expire_entry" | "itimer_expire" => Place::Kernel(self.cpu),
            _ => Place::Task(self.pid),
        }
    }
}

/// Makes events of the two parts of a trace: what was traced of the command's tasks, and what was
/// traced in any task. Of the latter, signals to others and timers of others are left out.
pub fn timeline(of_command: &str, of_all: &str, clock: &Clock) -> Timeline {
    let mut builder = Builder::new(clock);
    let lines = || of_command.lines().filter_map(Line::parse);
    // The scheduler's events also name tasks that had the CPU before or after.
    builder.own = lines()
        .filter(|line| !line.name.starts_with("sched_"))
        .map(|line| line.pid)
        .collect();
    for line in lines() {
        builder.add(&line);
    }
    let mut all: Vec<_> = of_all.lines().filter_map(Line::parse).collect();
    all.retain(|line| builder.concerns(line));
    for line in all {
        builder.add(&line);
    }
    builder.finish()
}

struct Builder<'a> {
    clock: &'a Clock,
    timeline: Timeline,
    /// The command's tasks.
    own: HashSet<i32>,
    timers: HashSet<String>,
    /// Where the entry of a system call, or of an interrupt, is that has not ended.
    open: HashMap<Place, usize>,
}

impl<'a> Builder<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            clock,
            timeline: Timeline::default(),
            own: HashSet::new(),
            timers: HashSet::new(),
            open: HashMap::new(),
        }
    }

    fn concerns(&self, line: &Line<'_>) -> bool {
        match line.name {
            "signal_generate" => line
                .number("pid")
                .and_then(|pid| i32::try_from(pid).ok())
                .is_some_and(|pid| self.own.contains(&pid)),
            "hrtimer_expire_entry" => timer(line).is_some_and(|timer| self.timers.contains(timer)),
            _ => true,
        }
    }

    /// Whether it is of a timer that no task has asked for: the scheduler's tick.
    fn is_of_kernel(&self, line: &Line<'_>) -> bool {
        match line.name {
            "hrtimer_start" => line.text.contains("function=tick_"),
            "hrtimer_cancel" => !timer(line).is_some_and(|timer| self.timers.contains(timer)),
            _ => false,
        }
    }

    fn add(&mut self, line: &Line<'_>) {
        if self.is_of_kernel(line) {
            return;
        }
        let ns = self.clock.to_host(line.ns);
        let place = line.place(&self.own);
        if let Place::Task(pid) = place {
            let name = self.timeline.tasks.entry(pid).or_default();
            if pid == line.pid && *name != line.task && line.task != "<...>" {
                line.task.clone_into(name);
            }
            if line.name == "hrtimer_start"
                && let Some(timer) = timer(line)
            {
                self.timers.insert(timer.to_owned());
            }
        }
        let opens = line.name.starts_with("sys_") || line.name == "irq_handler_entry";
        if line.ends || line.name == "irq_handler_exit" {
            // An end whose beginning was before the trace says nothing.
            if let Some(event) = self
                .open
                .remove(&place)
                .and_then(|at| self.timeline.events.get_mut(at))
            {
                event.lasts = ns.saturating_sub(event.ns).max(1);
                if line.ends {
                    event.text = format!("{} -> {}", event.text, line.text).into();
                }
            }
            return;
        }
        let name = line.name.strip_prefix(DRIVER).unwrap_or(line.name);
        let text = match place {
            Place::Driver(_) => format!("device={}", line.text).into(),
            _ => line.text.into(),
        };
        if opens {
            self.open.insert(place, self.timeline.events.len());
        }
        self.timeline.events.push(Event {
            ns,
            lasts: 0,
            place,
            cpu: Some(line.cpu),
            pid: line.pid,
            name: name.into(),
            text,
        });
    }

    fn finish(mut self) -> Timeline {
        // What happened in the same microsecond stays in the order in which each part has it.
        self.timeline.events.sort_by_key(|event| event.ns);
        self.timeline
    }
}

fn timer<'a>(line: &Line<'a>) -> Option<&'a str> {
    let mut words = line.text.split_whitespace();
    words.find_map(|word| word.strip_prefix("hrtimer="))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::clock::Exchange;
    use super::*;

    fn clock() -> Clock {
        let exchange = Exchange {
            before: 1_000_000_000,
            host: 6_000_000_500,
            after: 1_000_001_000,
        };
        Clock::new(&[vec![exchange]]).unwrap()
    }

    #[test]
    fn lines_of_a_trace_are_read() {
        let line = Line::parse(
            "     my-prog-98      [001] dNh1.     8.563953: irq_handler_entry: irq=22 name=virtio1",
        )
        .unwrap();
        assert_eq!(
            (line.task, line.pid, line.cpu, line.ns),
            ("my-prog", 98, 1, 8_563_953_000)
        );
        assert_eq!(
            (line.name, line.text, line.ends),
            ("irq_handler_entry", "irq=22 name=virtio1", false)
        );
        let line =
            Line::parse("  sh-7  [000] .....    12.000001: sys_write(fd: 1, buf: 5, count: 2)")
                .unwrap();
        assert_eq!(
            (line.name, line.text, line.ends),
            ("sys_write", "fd: 1, buf: 5, count: 2", false)
        );
        let line = Line::parse("  sh-7  [000] .....    12.000003: sys_write -> 0x2").unwrap();
        assert_eq!(
            (line.name, line.text, line.ends),
            ("sys_write", "0x2", true)
        );
        let line = Line::parse(
            " kworker/0:1-9  [000] d....    2.000003: globalfifo_interrupt: virtio3 queue=2",
        )
        .unwrap();
        assert_eq!((line.task, line.number("queue")), ("kworker/0:1", Some(2)));
        for other in [
            "",
            "# tracer: nop",
            "CPU:0 [LOST 5 EVENTS]",
            "x",
            "a-1 [0] 1: b",
        ] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_system_call_and_an_interrupt_last_from_their_beginning_to_their_end() {
        let command = "sh-7 [000] ..... 2.000001: sys_write(fd: 1, count: 2)\n\
                       sh-7 [000] ..... 2.000009: sys_write -> 0x2\n\
                       sh-7 [000] ..... 2.000011: sys_read -> 0x2\n";
        let all = "<idle>-0 [000] d.h1. 2.000003: irq_handler_entry: irq=22 name=virtio3\n\
                   <idle>-0 [000] d.h2. 2.000004: globalfifo_interrupt: virtio3 queue=2\n\
                   <idle>-0 [000] d.h1. 2.000006: irq_handler_exit: irq=22 ret=handled\n";
        let timeline = timeline(command, all, &clock());
        let seen: Vec<_> = timeline
            .events
            .iter()
            .map(|event| {
                (
                    &*event.name,
                    event.ns - 7_000_000_000,
                    event.lasts,
                    &*event.text,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("sys_write", 1000, 8000, "fd: 1, count: 2 -> 0x2"),
                ("irq_handler_entry", 3000, 3000, "irq=22 name=virtio3"),
                ("interrupt", 4000, 0, "device=virtio3 queue=2"),
            ]
        );
        assert_eq!(timeline.tasks.get(&7).map(String::as_str), Some("sh"));
    }

    #[test]
    fn signals_and_timers_of_others_are_left_out() {
        let command = "sh-7 [000] d.... 2.000000: hrtimer_start: hrtimer=0xb function=tick_nohz_handler\nsh-7 [000] d.... 2.000001: hrtimer_start: hrtimer=0xa function=f\n";
        let all = "<idle>-0 [000] d.h. 2.000003: signal_generate: sig=29 errno=0 code=1 comm=sh pid=7 grp=1 res=0\n\
                   <idle>-0 [000] d.h. 2.000003: signal_generate: sig=29 errno=0 code=1 comm=x pid=8 grp=1 res=0\n\
                   <idle>-0 [000] d.h. 2.000004: hrtimer_expire_entry: hrtimer=0xa function=f now=1\n\
                   <idle>-0 [000] d.h. 2.000004: hrtimer_expire_entry: hrtimer=0xb function=f now=1\n";
        let timeline = timeline(command, all, &clock());
        let seen: Vec<_> = timeline
            .events
            .iter()
            .map(|event| (&*event.name, event.field("pid")))
            .collect();
        assert!(seen.contains(&("signal_generate", Some("7"))), "{seen:?}");
        assert_eq!(
            seen.iter()
                .filter(|(name, _)| *name == "signal_generate")
                .count(),
            1
        );
        assert_eq!(
            seen.iter()
                .filter(|(name, _)| *name == "hrtimer_expire_entry")
                .count(),
            1
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a task calls itself.
        #[test]
        fn any_name_of_a_task_is_read(task in "[ -9;-~]{1,15}", pid in 0..99_999_i32, micros in 0..1_000_000_u64) {
            prop_assume!(!task.starts_with('#') && task.trim() == task && !task.contains(": "));
            let text = format!("{task:>16}-{pid:<7} [000] d..1. {:>5}.{micros:06}: sched_switch: a=b", 12);
            let line = Line::parse(&text).unwrap();
            prop_assert_eq!((line.task, line.pid, line.ns), (task.as_str(), pid, 12_000_000_000 + micros * 1000));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = Line::parse(&text);
            let _ = timeline(&text, &text, &clock());
        }
    }
}
