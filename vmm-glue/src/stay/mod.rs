// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine that stays: who keeps it, where it is found, how any number of commands reach it.
//!
//! [`registry`] says which machines there are and which processes belong to them; [`hub`] relays frames between the guest's agent and the
//! lab's `exec`s; [`client`] is such an `exec`. This module must not know what is in a machine.

pub mod client;
pub mod hub;
pub mod registry;
