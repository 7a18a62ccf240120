// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One file a command: what the user asked for, in terms of set-up and machine.

mod batch;
pub mod bench;
pub mod cc;
pub mod clean;
pub mod console;
pub mod demo;
pub mod doctor;
pub mod down;
pub mod dry_run;
pub mod exec;
pub mod grade;
pub mod lesson;
pub mod module;
pub mod new;
pub mod pages;
pub mod ps;
pub mod run;
pub mod scale;
pub mod soak;
pub mod test;
pub mod trace;
pub mod up;
