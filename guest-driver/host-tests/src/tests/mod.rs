// SPDX-License-Identifier: GPL-2.0-only

//! The tests: of the parts, and of one whole FIFO with a device in memory ([`machine`]).

mod calls;
mod ledger;
mod machine;
mod ops;
mod parts;
mod receiving;
mod requests;
mod resets;
mod schedules;
mod tracepoints;
