// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Well-known reasons why a set-up step fails, recognised in its log.

/// What a log may contain, and what that means and asks for. The first match wins.
const CAUSES: [(&[&str], &str); 6] = [
    (
        &["No space left on device", "Disk quota exceeded"],
        "the disk is full: free some space (`cargo lab clean`) or put the cache elsewhere with XDG_CACHE_HOME",
    ),
    (
        &[
            "Temporary failure resolving",
            "Could not resolve",
            "Could not connect",
            "Network is unreachable",
            "Connection timed out",
            "Connection refused",
            "Unable to connect",
            "Cannot initiate the connection",
        ],
        "no network: the Debian archive cannot be reached; mend the connection, set http_proxy, or name a mirror in \
         GLOBALFIFO_MIRROR",
    ),
    (
        &[
            "NO_PUBKEY",
            "signatures couldn't be verified",
            "signatures were invalid",
            "BADSIG",
            "no usable keyring",
        ],
        "the Debian archive's signature cannot be checked: install the package debian-archive-keyring",
    ),
    (
        &[
            "Failed to fetch",
            "404  Not Found",
            "does not have a Release file",
            "has no installation candidate",
            "Unable to locate package",
        ],
        "the Debian archive has moved on, or GLOBALFIFO_MIRROR names no mirror of it: it lacks a file that its index or \
         images/tree.toml names; try again later, or name another mirror in GLOBALFIFO_MIRROR",
    ),
    (
        &["newuidmap", "/etc/subuid", "/etc/subgid"],
        "this user has no subordinate ids: `cargo lab doctor` says how to get them, or run as root",
    ),
    (
        &[
            "unable to unshare",
            "unshare: Operation not permitted",
            "unshare() failed",
            "unprivileged_userns_clone",
        ],
        "user namespaces are not allowed here: `cargo lab doctor` says how to allow them, or run as root",
    ),
];

/// The cause that a log shows, if it is a known one.
pub fn known(log: &str) -> Option<&'static str> {
    CAUSES
        .iter()
        .find(|(signs, _)| signs.iter().any(|sign| log.contains(sign)))
        .map(|(_, cause)| *cause)
}

/// What to show of a log: from a compiler's first error on, else the last lines.
pub fn excerpt(log: &str, lines: usize) -> String {
    let is_error = |line: &&str| {
        line.starts_with("error") || line.contains(": error:") || line.contains(": fatal error:")
    };
    let start = log.lines().position(|line| is_error(&line));
    match start {
        Some(start) => indented(log.lines().skip(start).take(lines)),
        None => tail(log, lines),
    }
}

/// The last lines, indented.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    indented(
        all.get(all.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .iter()
            .copied(),
    )
}

fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_even_when_the_network_also_complains() {
        let log = "E: Could not resolve x\ndpkg: error: No space left on device";
        assert!(known(log).unwrap().starts_with("the disk is full"));
        assert_eq!(known("all is well"), None);
    }

    #[test]
    fn a_wrong_mirror_is_not_taken_for_a_missing_key() {
        let log = "E: Failed to fetch http://x  400  Bad Request\nE: The repository 'http://x' is not signed.";
        assert!(
            known(log)
                .unwrap()
                .contains("GLOBALFIFO_MIRROR names no mirror")
        );
        let log = "W: GPG error: NO_PUBKEY 123\nE: Failed to fetch http://x";
        assert!(known(log).unwrap().contains("debian-archive-keyring"));
    }

    #[test]
    fn an_excerpt_begins_at_the_first_error() {
        let log = "CC x\nx.c:1:1: error: no\nmore\nmake: failed";
        assert_eq!(excerpt(log, 2), "  | x.c:1:1: error: no\n  | more");
        assert_eq!(excerpt("a\nb", 1), "  | b");
    }

    #[test]
    fn the_tail_of_a_short_text_is_the_text() {
        assert_eq!(tail("a\nb", 5), "  | a\n  | b");
        assert_eq!(tail("a\nb\nc", 1), "  | c");
        assert_eq!(tail("", 3), "");
    }
}
