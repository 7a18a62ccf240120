// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of this machine's that a guest would run into. It must not know who is told.

use rustix::process::Resource;

/// Open files that a guest at work makes a file server hold: it keeps one for each file that the guest's kernel remembers.
const OPEN_FILES: u64 = 16_384;

/// What raises the limit.
pub const MORE_OPEN_FILES: &str = "ulimit -Hn 65536 (as root; or LimitNOFILE=, nofile in /etc/security/limits.conf, docker run --ulimit nofile=65536)";

/// What is wrong with the limit of open files, if anything: where they may, file servers raise it themselves.
pub fn few_open_files() -> Option<String> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum?;
    too_few(hard, may_raise())
}

/// Whether file servers may raise it (CAP_SYS_RESOURCE, capabilities(7)): root in a container often may not.
fn may_raise() -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_some_and(|mask| mask & 1 << SYS_RESOURCE != 0)
}

fn too_few(hard: u64, may_raise: bool) -> Option<String> {
    (hard < OPEN_FILES && !may_raise).then(|| {
        format!(
            "the hard limit of open files is {hard}: a guest that touches more files gets EMFILE"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_low_limit_that_cannot_be_raised_is_told() {
        assert!(too_few(1024, false).unwrap().contains("1024"));
        assert_eq!(too_few(1024, true), None);
        assert_eq!(too_few(OPEN_FILES, false), None);
    }
}
