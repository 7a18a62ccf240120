// SPDX-License-Identifier: GPL-2.0-only

//! Sets what Kbuild sets for the fast edition (`GLOBALFIFO_FAST=y`).

fn main() {
    println!("cargo::rustc-cfg=GLOBALFIFO_FAST");
    println!("cargo::rerun-if-changed=build.rs");
}
