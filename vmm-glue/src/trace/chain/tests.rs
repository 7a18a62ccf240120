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
            "qemu" => Place::Qemu(number.into()),
            _ => Place::Task(number.into()),
        };
        Event {
            ns,
            lasts: match kind {
                "irq" => 100_000,
                "qemu" => 3000,
                _ => 0,
            },
            place,
            cpu: (!["daemon", "qemu"].contains(&kind)).then_some(0),
            pid: number.into(),
            name: word().into(),
            text: word().into(),
        }
    });
    Timeline {
        events: events.collect(),
        main_loop: Some(70),
        ..Timeline::default()
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

/// QEMU's main loop sleeps until it is notified. One that runs already is no step: nobody knows when it saw the notification.
#[test]
fn the_run_of_qemus_main_loop_that_raises_the_interrupt_is_a_step() {
    let with = |runs: &str| {
        let text = ECHO.replace("    20 irq", &format!("{runs}    20 irq"));
        let timeline = timeline(&text);
        let chains = link(&timeline, &|_| true, 1000);
        let names = names(&timeline, &chains[0]);
        let by = chains[0].steps.iter().map(|step| step.by);
        let by = by.zip(&names).find(|(_, name)| **name == "runs");
        assert_eq!(inversions(&timeline, &chains), (0, 0));
        (names.join(" "), by.map(|(by, _)| by))
    };
    let other = "    10 qemu-71 runs tid=71\n";
    let (names, by) = with(&format!("{other}    12 qemu-70 runs tid=70\n"));
    assert!(names.contains("notify runs irq_handler_entry"), "{names}");
    assert_eq!(by, Some("host's scheduler"));
    let ran = ECHO.replace("    9 daemon", "    8 qemu-70 runs tid=70\n    9 daemon");
    let timeline = timeline(&ran);
    let chains = link(&timeline, &|_| true, 1000);
    assert!(!self::names(&timeline, &chains[0]).contains(&"runs"));
    assert_eq!(with(other).1, None);
}

/// The line is shared by all virtqueues: a handler that runs already finds this queue, too. What it does until its end follows, however slow.
#[test]
fn a_handler_that_was_entered_before_the_notification_ends_the_chain_of_its_receive() {
    let slow = ECHO
        .replace("    20 irq irq_handler_entry irq=9 name=v\n", "")
        .replace(
            "    9 daemon notify",
            "    8 irq irq_handler_entry irq=9 name=v\n    9 daemon notify",
        );
    let mut timeline = timeline(&slow);
    for event in &mut timeline.events {
        match &*event.name {
            "irq_handler_entry" => event.lasts = 2_000_000,
            "wake" | "sched_waking" | "signal" | "signal_generate" => event.ns += 1_000_000,
            "signal_deliver" | "sched_switch" | "read" => event.ns += 2_000_000,
            _ => {}
        }
    }
    let chains = link(&timeline, &|_| true, 0);
    let names = names(&timeline, &chains[0]);
    assert!(!names.contains(&"irq_handler_entry"), "{names:?}");
    for step in ["wake", "signal_deliver", "read"] {
        assert!(names.contains(&step), "{step}: {names:?}");
    }
}

/// A driver that looks by itself sees the message before it is notified, by less than the clocks may differ.
#[test]
fn a_notification_after_the_receive_is_not_its_cause() {
    let polled = ECHO
        .replace("    9 daemon notify", "    23 daemon notify")
        .replace("    20 irq irq_handler_entry irq=9 name=v\n", "")
        .replace("    21 driver interrupt device=v queue=2\n", "");
    let mut timeline = timeline(&polled);
    timeline.events.sort_by_key(|event| event.ns);
    let chains = link(&timeline, &|_| true, 5000);
    let names = names(&timeline, &chains[0]);
    assert!(!names.contains(&"notify"), "{names:?}");
    assert!(names.contains(&"receive"), "{names:?}");
    assert!(names.contains(&"read"), "{names:?}");
    assert_eq!(inversions(&timeline, &chains), (0, 0));
}

/// A byte of an endpoint's that a waiting request gets: by the driver's server, on a CPU and at a time of its own.
#[test]
fn an_endpoints_byte_is_followed_to_the_completion_of_the_request_that_gets_it() {
    let text = "1 daemon endpoint-read fifo=0 position=4 bytes=3
         2 daemon push fifo=0 position=4 bytes=3
         3 daemon notify queue=2 result=sent
         5 irq irq_handler_entry irq=9 name=v
         6 driver interrupt device=v queue=2
         7 driver receive device=v fifo=0 messages=1 position=7
         300 driver-5 read device=v fifo=0 position=4 bytes=3
         301 driver-5 request_serve device=v fifo=0 id=12 result=3
         302 driver-5 request_complete device=v fifo=0 id=11 result=0
         303 driver-5 request_complete device=v fifo=0 id=12 result=3
         304 task-8 sched_waking comm=aio pid=8
         320 task-8 sched_switch prev_pid=0 ==> next_pid=8";
    let timeline = timeline(text);
    let chains = link(&timeline, &|_| false, 1000);
    let path = [
        "endpoint-read",
        "push",
        "notify",
        "irq_handler_entry",
        "interrupt",
        "receive",
        "read",
        "request_complete",
        "sched_waking",
        "sched_switch",
    ];
    assert_eq!(names(&timeline, &chains[0]), path);
    let completed = chains[0].steps[7].event;
    assert_eq!(timeline.events[completed].number("id"), Some(12));
    // A call that reads the byte is no request, though one is served beside it.
    let others = text.replace("id=12 result=3\n", "id=12 result=1\n");
    let others = self::timeline(&others);
    let chains = link(&others, &|_| false, 1000);
    assert_eq!(names(&others, &chains[0])[6..], ["read"]);
    // Nor is it one of a write, for which the read makes space.
    let queued =
        |want: &str| format!("0 driver request_queue device=v fifo=0 id=12 want={want}\n{text}");
    for (want, last) in [("data", "sched_switch"), ("space", "read")] {
        let timeline = self::timeline(&queued(want));
        let chains = link(&timeline, &|_| false, 1000);
        assert_eq!(names(&timeline, &chains[0]).last(), Some(&last), "{want}");
    }
}

/// io_uring polls: the task that it has woken reads, and posts an entry of what it has read.
#[test]
fn an_endpoints_byte_is_followed_to_the_entry_of_io_uring() {
    let text = "1 daemon endpoint-read fifo=0 position=4 bytes=3
         2 daemon push fifo=0 position=4 bytes=3
         7 driver receive device=v fifo=0 messages=1 position=7
         8 driver wake device=v fifo=0 events=IN
         9 task-8 sched_waking comm=uring pid=8
         20 task-8 sched_switch prev_pid=0 ==> next_pid=8
         22 driver-8 read device=v fifo=0 position=4 bytes=3
         23 task-9 io_uring_complete ring 1, req 2, user_data 0x7, result 3, cflags 0x0
         24 task-8 io_uring_complete ring 1, req 2, user_data 0x7, result 30, cflags 0x0
         25 task-8 io_uring_complete ring 1, req 2, user_data 0x7, result 3, cflags 0x0";
    let timeline = timeline(text);
    let chains = link(&timeline, &|_| false, 1000);
    assert_eq!(
        names(&timeline, &chains[0])[3..],
        [
            "wake",
            "sched_waking",
            "sched_switch",
            "read",
            "io_uring_complete"
        ]
    );
    assert_eq!(chains[0].steps.last().map(|step| step.event), Some(9));
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
    timeline.events[6].ns = 21_500;
    let chains = link(&timeline, &|_| true, 10_000);
    assert_eq!(inversions(&timeline, &chains), (1, 1500));
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
