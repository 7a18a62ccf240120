// SPDX-License-Identifier: GPL-2.0-only

//! The parts of a FIFO, one by one: [`Chain`], [`TxSide`], and the check of what a device tells.

use crate::driver::buffers::{Tx, TxBuffer};
use crate::driver::chain::{Chain, Linked};
use crate::driver::fifo::state::check_told;
use crate::driver::fifo::tx::TxSide;
use crate::driver::policy::Await;
use crate::kapi::virtio::Ring;
use crate::prelude::*;
use crate::virtio_fifo::{State, TxHeader, MAX_POSITION, STATE_LOOPBACK};
use crate::world;
use proptest::prelude::*;

// Chain.

struct Link(u32, Option<KBox<Link>>);

impl Linked for Link {
    fn next(&mut self) -> &mut Option<KBox<Self>> {
        &mut self.1
    }
}

fn link(n: u32) -> KBox<Link> {
    KBox::new(Link(n, None), GFP_KERNEL).unwrap()
}

#[test]
fn chain_gives_the_oldest_first() {
    let mut chain = Chain::new();
    let mut other = Chain::new();
    (2..5).for_each(|n| chain.push_back(link(n)));
    chain.push_front(link(1));
    (5..7).for_each(|n| other.push_back(link(n)));
    chain.append(other);
    assert_eq!(chain.oldest().map(|link| link.0), Some(1));
    let got: Vec<_> = std::iter::from_fn(|| chain.pop_front().map(|link| link.0)).collect();
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
    assert!(chain.is_empty());
}

#[test]
fn only_link_of_a_chain_is_found_wherever_it_is() {
    let mut chain = Chain::new();
    assert!(chain.only().is_none());
    chain.push_back(link(1));
    assert!(chain.only().is_some() && chain.newest().is_some());
    chain.oldest();
    assert!(chain.only().is_some() && chain.newest().is_none());
    chain.push_back(link(2));
    assert!(chain.only().is_none());
}

proptest! {
    #[test]
    fn chain_is_sorted_and_keeps_the_order_of_equals(
        keys in proptest::collection::vec(0..50_u32, 0..300),
    ) {
        let mut chain = Chain::new();
        let mut numbered: Vec<u32> = (0..).zip(&keys).map(|(at, key)| key * 1000 + at).collect();
        numbered.iter().for_each(|n| chain.push_back(link(*n)));
        chain.sort_by_key(|link| u64::from(link.0 / 1000));
        numbered.sort_by_key(|n| n / 1000);
        let got: Vec<_> = std::iter::from_fn(|| chain.pop_front().map(|link| link.0)).collect();
        prop_assert_eq!(got, numbered);
    }
}

#[test]
fn long_chain_is_dropped_without_recursion() {
    let mut chain = Chain::new();
    (0..1_000_000).for_each(|n| chain.push_back(link(n)));
}

// What a device tells.

pub(super) fn told() -> State {
    State {
        capacity: 100,
        tx_limit: 100,
        ..State::default()
    }
}

/// DRV-12, and DEV-31 as the driver sees it.
#[test]
fn impossible_states_are_refused() {
    let check = |state: State| check_told(&state, 0, 100);
    assert_eq!(check(told()), Ok(()));
    assert_eq!(
        check(State {
            rx_end: 100,
            ..told()
        }),
        Ok(())
    );
    for state in [
        State { fifo: 1, ..told() },
        State {
            capacity: 0,
            ..told()
        },
        State {
            capacity: 101,
            ..told()
        },
        State {
            rx_floor: 1,
            ..told()
        },
        State {
            rx_end: 101,
            ..told()
        },
        State {
            tx_accepted: 101,
            ..told()
        },
        State {
            tx_limit: 101,
            ..told()
        },
        State {
            rx_floor: MAX_POSITION - 1,
            rx_end: MAX_POSITION,
            ..told()
        },
        State {
            flags: STATE_LOOPBACK,
            rx_end: 1,
            ..told()
        },
    ] {
        assert_eq!(check(state), Err(EIO), "{state:?}");
    }
}

// TxSide.

struct Sender {
    tx: TxSide,
    ring: Ring<Tx>,
    done: Chain<TxBuffer>,
}

impl Sender {
    fn new(flags: u32, descriptors: u32) -> Self {
        world::reset();
        let state = State { flags, ..told() };
        let mut this = Self {
            tx: TxSide::new(&state).unwrap(),
            ring: Ring::new(descriptors),
            done: Chain::new(),
        };
        this.tx.attach(this.ring.queue());
        this
    }

    fn enqueue(&mut self, n: usize, most: usize) -> usize {
        let mut message = TxBuffer::for_tx(4096 - TxHeader::LEN).unwrap();
        assert!(message.append(&vec![7; n]));
        let mut messages = Chain::new();
        messages.push_back(message);
        self.tx.enqueue(&mut messages, most)
    }

    fn pump(&mut self) -> Result<u64, &'static str> {
        let pumped = self.tx.pump(0, Await::Interrupt, &mut self.done);
        pumped
            .map(|pumped| pumped.messages)
            .map_err(|broken| broken.0)
    }

    fn use_one(&mut self) -> usize {
        let packet = self.ring.take().expect("a message");
        let n = packet.device_reads().len() - TxHeader::LEN;
        self.ring.give(packet, 0);
        n
    }
}

#[test]
fn messages_that_wait_for_room_are_joined_and_cut_to_the_credit() {
    let mut sender = Sender::new(0, 1);
    assert_eq!(sender.enqueue(10, 10), 10);
    sender.pump().unwrap();
    assert_eq!(sender.enqueue(10, 10), 10);
    assert_eq!(sender.enqueue(90, 80), 80);
    assert_eq!(sender.tx.credit(0), 0);
    assert_eq!(sender.use_one(), 10);
    sender.pump().unwrap();
    assert_eq!(sender.use_one(), 90);
    sender.pump().unwrap();
    assert_eq!(sender.tx.accepted(), 100);
}

#[test]
fn credit_follows_the_limit_or_in_a_loop_what_is_read() {
    let mut sender = Sender::new(0, 4);
    assert!(sender.tx.raise_limit(101).is_err());
    sender.enqueue(100, 100);
    sender.pump().unwrap();
    assert!(sender.tx.raise_limit(150).is_ok());
    assert_eq!(sender.tx.credit(1000), 50);
    let mut sender = Sender::new(STATE_LOOPBACK, 4);
    sender.enqueue(100, 100);
    assert_eq!((sender.tx.credit(0), sender.tx.credit(30)), (0, 30));
    assert!(sender.tx.is_beyond(1));
    sender.pump().unwrap();
    assert!(!sender.tx.is_beyond(100) && sender.tx.is_beyond(101));
}

/// DRV-12.
#[test]
fn limit_beyond_what_was_posted_and_the_capacity_is_refused() {
    let mut sender = Sender::new(0, 1);
    sender.enqueue(50, 50);
    sender.pump().unwrap();
    sender.enqueue(50, 50);
    assert!(sender.tx.raise_limit(150).is_ok());
    assert!(sender.tx.raise_limit(151).is_err());
}

#[test]
fn broken_tx_queue_is_told() {
    let mut sender = Sender::new(0, 4);
    sender.ring.break_it();
    sender.enqueue(1, 1);
    assert!(sender.pump().is_err());
}

/// DRV-8.
#[test]
fn half_of_the_capacity_read_is_acknowledged_at_once() {
    let mut sender = Sender::new(0, 4);
    sender.tx.note_consumed(50, false);
    let pumped = sender.tx.pump(50, Await::None, &mut sender.done);
    assert_eq!(pumped.map_err(|broken| broken.0).unwrap().messages, 1);
    let packet = sender.ring.take().unwrap();
    let header = TxHeader::from_bytes(*packet.device_reads().first_chunk().unwrap());
    assert_eq!(
        header,
        TxHeader {
            offset: 0,
            rx_consumed: 50
        }
    );
}

#[test]
fn messages_that_the_device_did_not_accept_are_sent_again_in_order() {
    let mut sender = Sender::new(0, 4);
    for n in 1..=3 {
        sender.enqueue(n, n);
        sender.pump().unwrap();
    }
    let mut queue = sender.tx.detach().unwrap();
    let mut unused = Chain::new();
    while let Some(message) = queue.take_unused() {
        unused.push_back(message);
    }
    unused.sort_by_key(TxBuffer::tx_position);
    sender.tx.take_back(unused);
    sender.ring = Ring::new(4);
    sender.tx.attach(sender.ring.queue());
    let state = State {
        tx_accepted: 1,
        tx_limit: 101,
        ..told()
    };
    assert!(sender.tx.resume(&state, &mut sender.done).is_ok());
    sender.pump().unwrap();
    assert_eq!((sender.use_one(), sender.use_one()), (2, 3));
    sender.pump().unwrap();
    assert_eq!(sender.tx.accepted(), 6);
}

#[test]
fn device_that_accepted_part_of_a_message_is_not_resumed() {
    let mut sender = Sender::new(0, 4);
    sender.enqueue(10, 10);
    sender.pump().unwrap();
    let mut queue = sender.tx.detach().unwrap();
    let mut unused = Chain::new();
    unused.push_back(queue.take_unused().unwrap());
    sender.tx.take_back(unused);
    let state = State {
        tx_accepted: 5,
        tx_limit: 105,
        ..told()
    };
    assert!(sender.tx.resume(&state, &mut sender.done).is_err());
}
