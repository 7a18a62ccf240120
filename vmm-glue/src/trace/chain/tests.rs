// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;

use super::*;

/// `12 daemon pop fifo=0 position=0 bytes=6`: microseconds, place, name, fields.
fn timeline(text: &str) -> Timeline {
    let events = text.lines().map(|line| {
        let mut words = line.trim().splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let ns = word().parse::<u64>().unwrap() * 1000;
        let place = word();
        let (kind, number) = place.split_once('-').unwrap_or((place, "0"));
        let number: u16 = number.parse().unwrap();
        let place = match kind {
            "daemon" => Place::Daemon,
            "driver" => Place::Driver(0),
            "irq" => Place::Interrupt(0),
            "kernel" => Place::Kernel(0),
            _ => Place::Task(number.into()),
        };
        Event {
            ns,
            lasts: if kind == "irq" { 100_000 } else { 0 },
            place,
            cpu: (kind != "daemon").then_some(0),
            pid: number.into(),
            name: word().into(),
            text: word().into(),
        }
    });
    Timeline {
        events: events.collect(),
        tasks: HashMap::new(),
    }
}

fn names<'a>(timeline: &'a Timeline, chain: &Chain) -> Vec<&'a str> {
    let name = |step: &Step| &*timeline.events[step.event].name;
    chain.steps.iter().map(name).collect()
}

const ECHO: &str = "1 task-7 sys_write fd: 1, count: 6
    2 driver-7 write device=v fifo=0 position=10 bytes=6
    3 driver-7 send device=v fifo=0 messages=1 position=16
    5 daemon kick queue=3
    6 daemon pop fifo=0 position=10 bytes=6
    8 daemon push fifo=0 position=10 bytes=6
    9 daemon notify queue=2 result=sent
    20 irq irq_handler_entry irq=9 name=v
    21 driver interrupt device=v queue=2
    22 driver receive device=v fifo=0 messages=1 position=16
    23 driver wake device=v fifo=0 events=IN
    24 task-8 sched_waking comm=cat pid=8
    26 driver signal device=v fifo=0 band=POLL_IN files=1
    27 kernel signal_generate sig=29 errno=0 pid=9
    40 task-9 signal_deliver sig=29 errno=0
    50 task-8 sched_switch prev_pid=0 ==> next_pid=8
    52 driver-8 read device=v fifo=0 position=10 bytes=6";

#[test]
fn a_write_is_followed_through_the_loop_to_the_handler_and_the_reader() {
    let timeline = timeline(ECHO);
    let chains = link(&timeline, &|_| true, 1000);
    assert_eq!(chains.len(), 1);
    let chain = &chains[0];
    assert_eq!((chain.fifo, chain.position, chain.bytes), (0, 10, 6));
    assert_eq!(
        names(&timeline, chain),
        [
            "sys_write",
            "write",
            "send",
            "kick",
            "pop",
            "push",
            "notify",
            "irq_handler_entry",
            "interrupt",
            "receive",
            "wake",
            "sched_waking",
            "signal",
            "signal_generate",
            "signal_deliver",
            "sched_switch",
            "read",
        ]
    );
    assert_eq!(inversions(&timeline, &chains), (0, 0));
    assert_eq!(chain.span(&timeline), (1000, 52_000));
    let parent = |name: &str| {
        let at = names(&timeline, chain)
            .iter()
            .position(|other| *other == name)
            .unwrap();
        names(&timeline, chain)[chain.steps[at].after.unwrap()]
    };
    assert_eq!(parent("signal_deliver"), "signal_generate");
    assert_eq!(parent("signal"), "receive");
    assert_eq!(parent("read"), "sched_switch");
}

#[test]
fn without_a_loop_a_write_ends_at_the_endpoint_and_a_read_begins_there() {
    let timeline = timeline(
        "1 driver-7 write device=v fifo=1 position=0 bytes=2
         2 driver-7 send device=v fifo=1 messages=1 position=2
         3 daemon pop fifo=1 position=0 bytes=2
         4 daemon endpoint-write fifo=1 position=0 bytes=2
         5 daemon endpoint-read fifo=1 position=0 bytes=3
         6 daemon push fifo=1 position=0 bytes=3
         7 driver-7 receive device=v fifo=1 messages=1 position=3
         8 driver-7 read device=v fifo=1 position=0 bytes=3",
    );
    let chains = link(&timeline, &|_| false, 0);
    let all: Vec<_> = chains.iter().map(|chain| names(&timeline, chain)).collect();
    assert_eq!(
        all,
        [
            vec!["write", "send", "pop", "endpoint-write"],
            vec!["endpoint-read", "push", "receive", "read"],
        ]
    );
}

/// The driver records a message once the device was notified; on one CPU the daemon may be faster.
#[test]
fn a_message_that_is_recorded_after_the_daemon_has_it_follows_from_the_write() {
    let text = ECHO.replace("3 driver-7 send", "7 driver-7 send");
    let mut timeline = timeline(&text);
    timeline.events.sort_by_key(|event| event.ns);
    let chains = link(&timeline, &|_| true, 1000);
    let all = names(&timeline, &chains[0]);
    assert_eq!(
        all[..6],
        ["sys_write", "write", "kick", "pop", "send", "push"]
    );
    let cause = |at: usize| chains[0].steps[at].after.map(|after| all[after]);
    assert_eq!(
        (cause(2), cause(4), cause(5)),
        (Some("write"), Some("write"), Some("pop"))
    );
    assert_eq!(all.last(), Some(&"read"));
    assert_eq!(inversions(&timeline, &chains), (0, 0));
}

#[test]
fn an_effect_before_its_cause_is_told() {
    let mut timeline = timeline(ECHO);
    timeline.events[6].ns = 25_000;
    let chains = link(&timeline, &|_| true, 10_000);
    assert_eq!(inversions(&timeline, &chains), (1, 5000));
}

/// Positions of another FIFO, of later bytes, or of another CPU's interrupt are not mistaken for its own.
#[test]
fn what_belongs_to_others_is_left_out() {
    let text = ECHO.replace("fifo=0 position=10 bytes=6", "fifo=0 position=16 bytes=6");
    let text = format!("0 driver-7 write device=v fifo=0 position=10 bytes=6\n{text}");
    let timeline = timeline(&text);
    let chains = link(&timeline, &|_| true, 1000);
    assert_eq!(names(&timeline, &chains[0]), ["write", "send"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Writes of any sizes, in messages of any sizes: each chain has its own bytes, and rises.
    #[test]
    fn each_write_finds_its_own_bytes(sizes in prop::collection::vec(1_u64..50, 1..30), per in 1_usize..4) {
        let (mut text, mut position, mut now) = (String::new(), 0, 1);
        for group in sizes.chunks(per) {
            let from = position;
            for size in group {
                text += &format!("{now} driver-7 write device=v fifo=0 position={position} bytes={size}\n");
                position += size;
                now += 1;
            }
            let bytes = position - from;
            text += &format!(
                "{} driver-7 send device=v fifo=0 messages=1 position={position}\n\
                 {} daemon pop fifo=0 position={from} bytes={bytes}\n\
                 {} daemon push fifo=0 position={from} bytes={bytes}\n\
                 {} driver receive device=v fifo=0 messages=1 position={position}\n\
                 {} driver-8 read device=v fifo=0 position={from} bytes={bytes}\n",
                now, now + 1, now + 2, now + 3, now + 4
            );
            now += 5;
        }
        let timeline = timeline(text.trim_end());
        let chains = link(&timeline, &|_| true, 0);
        prop_assert_eq!(chains.len(), sizes.len());
        prop_assert_eq!(inversions(&timeline, &chains), (0, 0));
        for chain in &chains {
            prop_assert_eq!(names(&timeline, chain), ["write", "send", "pop", "push", "receive", "read"]);
            let last = &timeline.events[chain.steps[5].event];
            prop_assert!(holds(last, chain.position));
        }
    }
}
