// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What goes wrong with a device on demand: the kinds of faults, and the grammar of `--fault SPEC`.
//!
//! It must not know how a fault is carried out: that is the device's.

pub mod kind;
pub mod spec;

pub use self::kind::Kind;
pub use self::kind::Lane;
pub use self::spec::FaultError;
pub use self::spec::FaultSpec;
