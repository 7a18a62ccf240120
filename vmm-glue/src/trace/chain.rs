// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What led to what: chains of events from a byte's write to the handler or the reader that it reaches.
//!
//! Bytes are followed by their positions, which driver and daemon name alike; interrupts by their
//! virtqueue and CPU; signals, wake-ups and requests by the task or number that they name. Pure; it
//! must not know how events are shown.

use std::collections::HashMap;

use super::event::Event;
use super::event::Place;
use super::event::Timeline;

/// Events that are looked at for one link, at most: what is not among them is not there.
const FAR: usize = 20_000;
/// What follows from a receive outside of an interrupt comes within this, in nanoseconds.
const SOON: u64 = 200_000;
/// A completion wakes its task within this, in nanoseconds: the CPU itself may be kept waiting by its host meanwhile.
const WAKES: u64 = 50_000_000;

/// One event of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which of the timeline's events.
    pub event: usize,
    /// The step of this chain that led to it; `None` for the first.
    pub after: Option<usize>,
    /// Who took the time from that one to this.
    pub by: &'static str,
}

/// What one write, or one read of an endpoint, led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Number of the FIFO.
    pub fifo: u64,
    /// Of its first byte, in the stream where it began.
    pub position: u64,
    /// Bytes of the write, or of the read.
    pub bytes: u64,
    /// In order of time.
    pub steps: Vec<Step>,
}

impl Chain {
    /// A chain of what `of` says, whose first step is `event`.
    fn begin(event: usize, of: &Event) -> Option<Self> {
        Some(Self {
            fifo: of.number("fifo")?,
            position: of.number("position")?,
            bytes: of.number("bytes").filter(|bytes| *bytes > 0)?,
            steps: vec![Step {
                event,
                after: None,
                by: "",
            }],
        })
    }

    fn add(&mut self, event: usize, after: usize, by: &'static str) -> usize {
        self.steps.push(Step {
            event,
            after: Some(after),
            by,
        });
        self.steps.len() - 1
    }

    /// First and last moment, in nanoseconds.
    pub fn span(&self, timeline: &Timeline) -> (u64, u64) {
        let times = self
            .steps
            .iter()
            .filter_map(|step| timeline.events.get(step.event));
        times.fold((u64::MAX, 0), |(from, to), event| {
            (from.min(event.ns), to.max(event.ns))
        })
    }
}

/// Effects before their causes: how many, and by how many nanoseconds at most.
pub fn inversions(timeline: &Timeline, chains: &[Chain]) -> (usize, u64) {
    let time = |chain: &Chain, step: usize| {
        let event = chain.steps.get(step)?.event;
        Some(timeline.events.get(event)?.ns)
    };
    let mut found = (0, 0);
    for chain in chains {
        for (at, step) in chain.steps.iter().enumerate() {
            let cause = step.after.and_then(|after| time(chain, after));
            if let (Some(cause), Some(effect)) = (cause, time(chain, at))
                && effect < cause
            {
                found = (found.0 + 1, found.1.max(cause - effect));
            }
        }
    }
    found
}

/// An event's name, with its FIFO, virtqueue, task or CPU.
type Key = (&'static str, u64);

/// Events of the daemon, the driver and the kernel that are parts of chains, and the field that tells
/// those of one name apart; without one, it is the CPU. The names are disjoint.
const DAEMON: [(&str, &str); 6] = [
    ("kick", "queue"),
    ("pop", "fifo"),
    ("push", "fifo"),
    ("notify", "queue"),
    ("endpoint-read", "fifo"),
    ("endpoint-write", "fifo"),
];
const DRIVER: [(&str, &str); 10] = [
    ("write", "fifo"),
    ("send", "fifo"),
    ("interrupt", "queue"),
    ("receive", "fifo"),
    ("read", "fifo"),
    ("wake", "fifo"),
    ("signal", "fifo"),
    ("request_queue", "fifo"),
    ("request_serve", "fifo"),
    ("request_complete", "fifo"),
];
const KERNEL: [(&str, &str); 5] = [
    ("signal_generate", "pid"),
    ("sched_waking", "pid"),
    ("sched_switch", "next_pid"),
    ("irq_handler_entry", ""),
    ("io_uring_complete", ""),
];

const QEMU: [(&str, &str); 1] = [("runs", "tid")];

/// Links the events of a timeline. `is_loop` tells of which FIFOs what is written is read; times of
/// guest and host may be off by `bound` nanoseconds.
pub fn link(timeline: &Timeline, is_loop: &dyn Fn(u64) -> bool, bound: u64) -> Vec<Chain> {
    let linker = Linker::new(timeline, bound);
    let mut chains = Vec::new();
    for (at, event) in timeline.events.iter().enumerate() {
        let chain = if event.is_driver("write") {
            linker.after_write(at, event, is_loop)
        } else if event.is_daemon("endpoint-read") {
            linker.after_read(at, event)
        } else {
            None
        };
        chains.extend(chain.map(|chain| linker.in_order(chain)));
    }
    chains
}

struct Linker<'a> {
    events: &'a [Event],
    bound: u64,
    index: HashMap<Key, Vec<usize>>,
    /// System calls, and signals delivered, of each task.
    calls: HashMap<i32, Vec<usize>>,
    delivered: HashMap<i32, Vec<usize>>,
    /// QEMU's thread that raises interrupts.
    main_loop: Option<u64>,
}

impl<'a> Linker<'a> {
    fn new(timeline: &'a Timeline, bound: u64) -> Self {
        let mut linker = Self {
            events: &timeline.events,
            bound,
            index: HashMap::new(),
            calls: HashMap::new(),
            delivered: HashMap::new(),
            main_loop: timeline.main_loop.and_then(|tid| u64::try_from(tid).ok()),
        };
        for (at, event) in timeline.events.iter().enumerate() {
            if event.name.starts_with("sys_") {
                linker.calls.entry(event.pid).or_default().push(at);
                continue;
            }
            if &*event.name == "signal_deliver" {
                linker.delivered.entry(event.pid).or_default().push(at);
                continue;
            }
            let kinds: &[_] = match event.place {
                Place::Daemon => &DAEMON,
                Place::Driver(_) => &DRIVER,
                Place::Qemu(_) => &QEMU,
                _ => &KERNEL,
            };
            let Some((name, field)) = kinds.iter().find(|(name, _)| *name == &*event.name) else {
                continue;
            };
            let number = if field.is_empty() {
                event.cpu.map(u64::from)
            } else {
                event.number(field)
            };
            if let Some(number) = number {
                linker.index.entry((name, number)).or_default().push(at);
            }
        }
        linker
    }

    fn list(&self, key: Key) -> &[usize] {
        self.index.get(&key).map_or(&[], Vec::as_slice)
    }

    fn event(&self, at: usize) -> Option<&'a Event> {
        self.events.get(at)
    }

    /// The first of a list at or after `from` for which `wanted` holds.
    fn first(&self, list: &[usize], from: u64, wanted: impl Fn(&Event) -> bool) -> Option<usize> {
        let start = list.partition_point(|at| self.event(*at).is_some_and(|event| event.ns < from));
        let mut rest = list.get(start..)?.iter().take(FAR);
        rest.find(|at| self.event(**at).is_some_and(&wanted))
            .copied()
    }

    /// The last of a list at or before `to` for which `wanted` holds.
    fn last(&self, list: &[usize], to: u64, wanted: impl Fn(&Event) -> bool) -> Option<usize> {
        let end = list.partition_point(|at| self.event(*at).is_some_and(|event| event.ns <= to));
        let mut before = list.get(..end)?.iter().rev().take(FAR);
        before
            .find(|at| self.event(**at).is_some_and(&wanted))
            .copied()
    }

    fn time(&self, at: usize) -> u64 {
        self.event(at).map_or(0, |event| event.ns)
    }

    fn after_write(
        &self,
        at: usize,
        write: &Event,
        is_loop: &dyn Fn(u64) -> bool,
    ) -> Option<Chain> {
        // The call in which it happened, before it.
        let calls = self.calls.get(&write.pid).map_or(&[][..], Vec::as_slice);
        let call = self.last(calls, write.ns, |call| {
            call.lasts == 0 || call.ns + call.lasts >= write.ns
        });
        let mut chain = Chain::begin(call.unwrap_or(at), write)?;
        let (fifo, position) = (chain.fifo, chain.position);
        let mut tail = 0;
        if call.is_some() {
            tail = chain.add(at, tail, "kernel");
        }
        let wrote = tail;
        let written = write.ns;
        // A message's position is that after its last byte. The driver records it once the device has
        // been notified: by then the daemon may have it.
        let covers = |event: &Event| event.number("position").is_some_and(|end| end > position);
        let send = self.first(self.list(("send", fifo)), written, covers);
        if let Some(send) = send {
            tail = chain.add(send, wrote, "driver");
        }
        let pop = self.first(
            self.list(("pop", fifo)),
            written.saturating_sub(self.bound),
            |pop| holds(pop, position),
        );
        let Some(pop) = pop else {
            return Some(chain);
        };
        let popped = self.time(pop);
        let tx = 3 + 2 * fifo;
        let kick = self.last(self.list(("kick", tx)), popped, |kick| {
            kick.ns + self.bound >= written
        });
        // What came to the daemon before the driver had recorded the message follows from the write.
        let came = kick.map_or(popped, |kick| self.time(kick));
        if send.is_some_and(|send| self.time(send) > came) {
            tail = wrote;
        }
        if let Some(kick) = kick {
            tail = chain.add(kick, tail, "driver, QEMU");
        }
        let by = if kick.is_some() { "daemon" } else { "driver" };
        tail = chain.add(pop, tail, by);
        if is_loop(fifo) {
            self.to_driver(&mut chain, tail, popped, position);
        } else {
            let written = self.list(("endpoint-write", fifo));
            if let Some(written) = self.first(written, popped, |written| holds(written, position)) {
                chain.add(written, tail, "daemon");
            }
        }
        Some(chain)
    }

    /// The steps in order of time, as far as no effect seems to come before its cause.
    fn in_order(&self, mut chain: Chain) -> Chain {
        let mut order: Vec<usize> = (0..chain.steps.len()).collect();
        order.sort_by_key(|step| self.step_time(&chain, *step));
        let mut place = vec![0; order.len()];
        for (now, before) in order.iter().enumerate() {
            if let Some(place) = place.get_mut(*before) {
                *place = now;
            }
        }
        let moved = |step: &Step| Step {
            after: step.after.and_then(|after| place.get(after).copied()),
            ..*step
        };
        chain.steps = order
            .iter()
            .filter_map(|before| chain.steps.get(*before).map(moved))
            .collect();
        chain
    }

    fn after_read(&self, at: usize, read: &Event) -> Option<Chain> {
        let mut chain = Chain::begin(at, read)?;
        let position = chain.position;
        self.to_driver(&mut chain, 0, read.ns, position);
        Some(chain)
    }

    /// From the daemon's rx stream on.
    fn to_driver(&self, chain: &mut Chain, tail: usize, since: u64, position: u64) {
        let fifo = chain.fifo;
        let Some(push) = self.first(self.list(("push", fifo)), since, |push| {
            holds(push, position)
        }) else {
            return;
        };
        let mut tail = chain.add(push, tail, "daemon");
        let pushed = self.time(push);
        let covers = |event: &Event| event.number("position").is_some_and(|end| end > position);
        let receive = self.first(
            self.list(("receive", fifo)),
            pushed.saturating_sub(self.bound),
            covers,
        );
        let rx = 2 + 2 * fifo;
        let notify = self.first(self.list(("notify", rx)), pushed, |_| true);
        let received = receive.map_or(u64::MAX, |receive| self.time(receive));
        // A driver that looks by itself may be faster, by less than the bound as well: what seems to come later
        // is no cause. From a notification to the interrupt it takes far longer than the clocks may differ.
        let notify = notify.filter(|notify| self.time(*notify) <= received);
        if let Some(notify) = notify {
            tail = chain.add(notify, tail, "daemon");
        }
        let Some(receive) = receive else { return };
        let cpu = self.event(receive).and_then(|event| event.cpu);
        let not_before = notify
            .map_or(pushed, |notify| self.time(notify))
            .saturating_sub(self.bound);
        let on_cpu = |event: &Event| event.cpu == cpu && event.ns >= not_before;
        let interrupt = self.last(self.list(("interrupt", rx)), received, on_cpu);
        let mut ends = received.saturating_add(SOON);
        if let (Some(interrupt), Some(number)) = (interrupt, cpu) {
            let irq = self.list(("irq_handler_entry", u64::from(number)));
            let mut by = "QEMU";
            if let Some(entry) = self.last(irq, self.time(interrupt), |_| true) {
                let ended = self.event(entry).map_or(0, |event| event.ns + event.lasts);
                if ended >= received {
                    ends = ended;
                }
                // One that was entered for another reason may see this one as well.
                if self.time(entry) >= not_before {
                    if let Some(run) = notify.and_then(|notify| self.raises(notify, entry)) {
                        tail = chain.add(run, tail, "host's scheduler");
                    }
                    tail = chain.add(entry, tail, by);
                    by = "driver";
                }
            }
            tail = chain.add(interrupt, tail, by);
        }
        tail = chain.add(receive, tail, "driver");
        self.consequences(chain, tail, receive, (received, ends), position);
    }

    /// The run of QEMU's main loop that takes a notification and raises the interrupt, if the loop slept before.
    fn raises(&self, notify: usize, entry: usize) -> Option<usize> {
        let runs = self.list(("runs", self.main_loop?));
        let notified = self.time(notify);
        let before = self.last(runs, notified, |_| true);
        let ends = |run| self.event(run).map_or(0, |run| run.ns + run.lasts);
        if before.is_some_and(|run| ends(run) > notified) {
            return None;
        }
        let run = self.first(runs, notified, |_| true)?;
        (self.time(run) <= self.time(entry)).then_some(run)
    }

    /// What the driver did with what it received, until the end of the interrupt.
    fn consequences(
        &self,
        chain: &mut Chain,
        tail: usize,
        receive: usize,
        time: (u64, u64),
        position: u64,
    ) {
        let fifo = chain.fifo;
        let cpu = self.event(receive).and_then(|event| event.cpu);
        let (since, ends) = time;
        let here = |event: &Event| event.cpu == cpu && event.ns <= ends;
        let next = |kind, from| self.first(self.list((kind, fifo)), from, here);
        let served = self.request(fifo, since, position);
        match next("wake", since) {
            Some(wake) => {
                let wake_step = chain.add(wake, tail, "driver");
                if served.is_none() {
                    self.reader(chain, wake_step, (self.time(wake), ends), cpu, position);
                }
            }
            None if served.is_none() => self.reader(chain, tail, (since, ends), cpu, position),
            None => {}
        }
        if let Some(signal) = next("signal", since) {
            let signal_step = chain.add(signal, tail, "driver");
            self.handlers(chain, signal_step, (self.time(signal), ends), cpu);
        }
        if let Some((read, complete)) = served {
            let read = chain.add(read, tail, "driver");
            self.completion(chain, read, complete);
        }
    }

    /// The request of native AIO that has read a byte: when it read, and its completion. The driver tells the bytes
    /// that were read, and then on the same CPU whose request that was.
    fn request(&self, fifo: u64, since: u64, position: u64) -> Option<(usize, usize)> {
        let reads = self.list(("read", fifo));
        let read = self.first(reads, since, |read| holds(read, position))?;
        let (cpu, at) = (self.event(read)?.cpu, self.time(read));
        let here = |event: &Event| event.cpu == cpu;
        let serve = self.first(self.list(("request_serve", fifo)), at, here)?;
        let between = self.first(reads, at + 1, here);
        if between.is_some_and(|other| other != read && self.time(other) < self.time(serve)) {
            return None;
        }
        let (served, event) = (self.time(serve), self.event(serve)?);
        if event.number("result") != self.event(read)?.number("bytes") {
            return None;
        }
        let id = event.number("id")?;
        let same = |event: &Event| event.number("id") == Some(id);
        // One of a write is served beside it when the read has made space. One from before the trace is taken for a read's.
        let queued = self.last(self.list(("request_queue", fifo)), served, same);
        let want = queued.and_then(|at| self.event(at)?.field("want"));
        if want.is_some_and(|want| want != "data") {
            return None;
        }
        let complete = self.first(self.list(("request_complete", fifo)), served, same)?;
        Some((read, complete))
    }

    /// From a request's read to its completion, and the task that this wakes.
    fn completion(&self, chain: &mut Chain, read: usize, complete: usize) {
        let step = chain.add(complete, read, "driver");
        let (at, cpu) = (
            self.time(complete),
            self.event(complete).and_then(|event| event.cpu),
        );
        self.woken(chain, step, (at, at.saturating_add(WAKES)), cpu);
    }

    /// The entry in io_uring's queue that says of a read of the same task what it has read.
    fn posted(&self, chain: &mut Chain, step: usize, read: usize) {
        let Some(read) = self.event(read) else { return };
        let result = format!("result {}", read.number("bytes").unwrap_or_default());
        let is_its = |event: &Event| {
            let mut fields = event.text.split(", ");
            event.pid == read.pid && fields.any(|field| field == result)
        };
        // On whichever CPU the task runs by then.
        let lists = self
            .index
            .iter()
            .filter(|((name, _), _)| *name == "io_uring_complete");
        let found = lists.filter_map(|(_, list)| self.first(list, read.ns, is_its));
        if let Some(posted) = found.min() {
            chain.add(posted, step, "io_uring");
        }
    }

    /// Signals that were generated here, and the handlers that they reach.
    fn handlers(&self, chain: &mut Chain, tail: usize, time: (u64, u64), cpu: Option<u16>) {
        let (since, ends) = time;
        let mut generated: Vec<usize> = self
            .index
            .iter()
            .filter(|((name, _), _)| *name == "signal_generate")
            .filter_map(|(_, list)| {
                self.first(list, since, |event| event.cpu == cpu && event.ns <= ends)
            })
            .collect();
        generated.sort_unstable();
        for at in generated {
            let step = chain.add(at, tail, "kernel");
            let Some(generate) = self.event(at) else {
                continue;
            };
            let Some(pid) = generate
                .number("pid")
                .and_then(|pid| i32::try_from(pid).ok())
            else {
                continue;
            };
            let list = self.delivered.get(&pid).map_or(&[][..], Vec::as_slice);
            let same = |event: &Event| event.field("sig") == generate.field("sig");
            if let Some(deliver) = self.first(list, generate.ns, same) {
                chain.add(deliver, step, "scheduler");
            }
        }
    }

    /// Tasks that were woken here: the step of the one that runs first, and its pid.
    fn woken(
        &self,
        chain: &mut Chain,
        tail: usize,
        time: (u64, u64),
        cpu: Option<u16>,
    ) -> Option<(usize, u64)> {
        let (since, ends) = time;
        let woken = self
            .index
            .iter()
            .filter(|((name, _), _)| *name == "sched_waking")
            .filter_map(|((_, pid), list)| {
                let at = self.first(list, since, |event| event.cpu == cpu && event.ns <= ends)?;
                Some((at, *pid))
            })
            .min()?;
        let (waking, pid) = woken;
        let mut step = chain.add(waking, tail, "kernel");
        if let Some(switch) =
            self.first(self.list(("sched_switch", pid)), self.time(waking), |_| {
                true
            })
        {
            step = chain.add(switch, step, "scheduler");
        }
        Some((step, pid))
    }

    /// The call that reads the byte, after the wake-up of its task if it waited.
    fn reader(
        &self,
        chain: &mut Chain,
        tail: usize,
        time: (u64, u64),
        cpu: Option<u16>,
        position: u64,
    ) {
        let woken = self.woken(chain, tail, time, cpu);
        let reads = self.list(("read", chain.fifo));
        let Some(read) = self.first(reads, time.0, |read| holds(read, position)) else {
            return;
        };
        let reader = self
            .event(read)
            .and_then(|event| u64::try_from(event.pid).ok());
        let step = match woken {
            Some((woke, pid))
                if Some(pid) == reader && self.step_time(chain, woke) <= self.time(read) =>
            {
                chain.add(read, woke, "driver")
            }
            _ => chain.add(read, tail, "reader"),
        };
        self.posted(chain, step, read);
    }

    fn step_time(&self, chain: &Chain, step: usize) -> u64 {
        chain
            .steps
            .get(step)
            .map_or(0, |step| self.time(step.event))
    }
}

/// Whether a byte is among those that an event names by the first one's position and their number.
fn holds(event: &Event, position: u64) -> bool {
    let (Some(first), Some(bytes)) = (event.number("position"), event.number("bytes")) else {
        return false;
    };
    first <= position && position < first.saturating_add(bytes)
}

#[cfg(test)]
mod tests;
