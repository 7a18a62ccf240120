// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The FIFO device that the lab has built, for machines that need one more.

use std::path::Path;
use std::process::Command;

/// The lab's daemon, from what the lab says that it would run.
pub fn program() -> String {
    let lab = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fifo-lab"))
            .args(["-q", "run"])
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let plan = lab(&["--dry-run"]);
    let mut words = plan.split_whitespace();
    let program = words
        .find(|word| word.ends_with("/vhost-device-fifo"))
        .unwrap_or_else(|| panic!("{plan}"));
    // Where nothing was run before, it is not built yet.
    if !Path::new(program).exists() {
        lab(&["--", "true"]);
    }
    program.to_owned()
}
