// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of this machine's that a guest would run into. It must not know who is told.

use rustix::process::Resource;

/// Open files that a guest at work makes a file server hold: it keeps one for each file that the guest's kernel remembers.
const OPEN_FILES: u64 = 16_384;

/// What raises the limit.
pub const MORE_OPEN_FILES: &str =
    "ulimit -Hn 65536 (as root; or LimitNOFILE=, nofile in /etc/security/limits.conf, docker run --ulimit nofile=65536)";

/// What is wrong with the limit of open files, if anything: root's file servers raise it themselves.
pub fn few_open_files() -> Option<String> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum?;
    too_few(hard, nix::unistd::geteuid().is_root())
}

fn too_few(hard: u64, is_root: bool) -> Option<String> {
    (hard < OPEN_FILES && !is_root).then(|| {
        format!(
            "the hard limit of open files is {hard}: a guest that touches more files gets EMFILE"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_low_limit_of_an_ordinary_user_is_told() {
        assert!(too_few(1024, false).unwrap().contains("1024"));
        assert_eq!(too_few(1024, true), None);
        assert_eq!(too_few(OPEN_FILES, false), None);
    }
}
