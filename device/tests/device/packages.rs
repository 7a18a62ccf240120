// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `examples/pages.rs` makes for packages.

use std::fs;
use std::process::Command;

#[expect(dead_code, reason = "its main is for packages")]
#[path = "../../examples/pages.rs"]
mod pages;

#[test]
fn the_page_has_every_option_and_each_subcommand_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    pages::write(dir.path()).unwrap();
    let page = fs::read_to_string(dir.path().join("vhost-device-fifo.1")).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_vhost-device-fifo"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options: Vec<_> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|name| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == '-')
        })
        .collect();
    assert!(options.contains(&"fifo"), "{help}");
    for option in options {
        let escaped = format!("--{option}").replace('-', "\\-");
        assert!(page.contains(&escaped), "--{option} is not in the page");
    }
    assert!(dir.path().join("vhost-device-fifo-ctl.1").is_file());
}

/// As a shell asks: the words before the cursor and the one that it is in.
#[test]
fn bash_completes_how_a_fifo_begins() {
    let dir = tempfile::tempdir().unwrap();
    pages::write(dir.path()).unwrap();
    let script = "source \"$1\"
        COMP_WORDS=(vhost-device-fifo --fifo u) COMP_CWORD=2
        how=$(complete -p vhost-device-fifo) && how=${how#*-F } && ${how%% *} vhost-device-fifo u --fifo
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(dir.path().join("vhost-device-fifo.bash"))
        .output()
        .unwrap();
    let completed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        completed,
        "unix=\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
