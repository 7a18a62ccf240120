// SPDX-License-Identifier: GPL-2.0-only

//! What has happened in a schedule to requests and to bytes, and whether it may have. Must not know what happens next.

use super::machine::{byte_at, Call};
use super::ops::Buffer;
use crate::prelude::*;
use std::rc::Rc;

/// What has happened to a request.
pub(super) struct Entry {
    pub(super) call: Rc<Call>,
    pub(super) kind: Buffer,
    pub(super) was_cancelled: bool,
    pub(super) file: usize,
    /// It was submitted in the middle of something else.
    pub(super) is_nested: bool,
}

impl Entry {
    /// Whether it keeps its place in line until it is served.
    fn was_served_in_line(&self) -> bool {
        let got = self
            .call
            .result()
            .is_some_and(|result| result.is_ok_and(|n| n > 0));
        self.kind == Buffer::There && !self.was_cancelled && got
    }
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) requests: Vec<Entry>,
    /// Bytes that were written by writes that are over, each by its number.
    pub(super) writes: u8,
    pub(super) results: Vec<(u8, usize)>,
    pub(super) has_cleared: bool,
    pub(super) has_hung_up: bool,
    /// Position of the next byte that a read gets.
    pub(super) read_position: u64,
    pub(super) may_jump: bool,
}

impl Ledger {
    /// What was copied to user memory follows what was copied before; only a clear makes a gap.
    pub(super) fn check_copied(&mut self, copied: &[u8]) {
        for byte in copied {
            if *byte != byte_at(self.read_position) && self.may_jump {
                while *byte != byte_at(self.read_position) {
                    self.read_position += 1;
                }
            }
            assert_eq!(*byte, byte_at(self.read_position), "bytes out of order");
            self.read_position += 1;
        }
    }

    /// After everything is quiet: each request has a right result or waits for what is not there.
    pub(super) fn check_results(&self, accepted: &[u8]) {
        for entry in &self.requests {
            let Entry {
                call,
                kind,
                was_cancelled,
                ..
            } = entry;
            let Some(result) = call.result() else {
                continue;
            };
            match result {
                Ok(n) => assert!(n <= call.length && (call.reads || n > 0), "{n} bytes"),
                Err(ECANCELED) => assert!(was_cancelled, "a cancel that nobody asked for"),
                Err(EPIPE) => assert!(!call.reads && self.has_hung_up, "EPIPE"),
                Err(EFAULT) => assert_eq!(*kind, Buffer::Cut, "memory that is there"),
                Err(ENODEV) => {}
                Err(other) => panic!("a request ended with {other:?}"),
            }
        }
        self.check_order(true);
        if !self.has_cleared {
            self.check_order(false);
        }
        self.check_written(accepted);
    }

    /// Requests of a direction complete in the order in which they came to be in line; none that is answered at once
    /// overtakes one that came before.
    fn check_order(&self, reads: bool) {
        let of_direction = self
            .requests
            .iter()
            .filter(|entry| entry.call.reads == reads);
        let in_line: Vec<_> = of_direction
            .filter(|entry| entry.was_served_in_line())
            .collect();
        let mut deferred: Vec<_> = in_line
            .iter()
            .filter(|entry| entry.call.kiocb.id() > 0)
            .collect();
        deferred.sort_by_key(|entry| entry.call.kiocb.id());
        let is_ordered = deferred.is_sorted_by_key(|entry| entry.call.kiocb.order());
        assert!(is_ordered, "requests complete out of order");
        for (index, entry) in in_line.iter().enumerate() {
            if entry.call.kiocb.id() == 0 && !entry.is_nested {
                let order = entry.call.kiocb.order();
                let is_last = in_line[..index]
                    .iter()
                    .all(|other| other.call.kiocb.order() < order);
                assert!(is_last, "an answer overtakes a completion");
            }
        }
    }

    /// What the device has is what was written, each write in one piece.
    fn check_written(&self, accepted: &[u8]) {
        let mut pieces: Vec<(u8, usize)> = Vec::new();
        for byte in accepted {
            match pieces.last_mut() {
                Some((number, n)) if number == byte => *n += 1,
                _ => pieces.push((*byte, 1)),
            }
        }
        let requests = self.requests.iter().filter(|entry| !entry.call.reads);
        let of_requests = requests.filter_map(|entry| {
            let number = entry.call.buffer.bytes.borrow()[0];
            Some((number, entry.call.result()?.unwrap_or(0)))
        });
        let written: Vec<_> = of_requests.chain(self.results.iter().copied()).collect();
        for (number, n) in &pieces {
            let same = pieces.iter().filter(|piece| piece.0 == *number).count();
            assert_eq!(same, 1, "write {number} is in several pieces");
            let result = written.iter().find(|written| written.0 == *number);
            if let Some((_, result)) = result {
                assert!(n <= result, "write {number}: {n} bytes of {result}");
            }
        }
        for (number, n) in &written {
            let got = pieces
                .iter()
                .find(|piece| piece.0 == *number)
                .map_or(0, |piece| piece.1);
            assert!(
                self.has_cleared || got == *n,
                "write {number}: {got} bytes of {n}"
            );
        }
    }
}
