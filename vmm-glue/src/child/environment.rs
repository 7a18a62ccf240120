// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the user's environment variables reach a child: those that are about something else would change what is built or run.

use super::spec::Environment;

/// Change how a program is loaded, or where the C library looks for its parts.
const LOADERS: [&str; 5] = ["LD_", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH"];
/// Change what cargo makes of the same sources. `CARGO_TARGET_DIR` and linkers stay: they are about this machine.
const BUILDS: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_PROFILE_",
    "CARGO_INCREMENTAL",
    "CARGO_UNSTABLE_",
];
/// cargo-nextest's: retries, profiles, and those that a test of it sees.
const NEXTEST: &str = "NEXTEST";
/// Where programs, the user and the user's files are.
const LITTLE: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR"];

/// Whether a variable reaches a child.
pub fn passes(environment: Environment, name: &str) -> bool {
    match environment {
        Environment::Whole => true,
        Environment::NotTheLoaders => !LOADERS.iter().any(|start| name.starts_with(start)),
        Environment::NotTheBuilds => !is_about_builds(name),
        Environment::NotNextests => !name.starts_with(NEXTEST),
        Environment::Little => LITTLE.contains(&name) || is_proxy(name),
    }
}

fn is_about_builds(name: &str) -> bool {
    let of_a_target = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
    of_a_target
        || BUILDS
            .iter()
            .any(|start| name == *start || start.ends_with('_') && name.starts_with(start))
}

/// Whether it says how the network is reached.
pub fn is_proxy(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("_proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_profiles_do_not_reach_a_build() {
        for bad in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        ] {
            assert!(!passes(Environment::NotTheBuilds, bad), "{bad}");
        }
        for good in [
            "PATH",
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_JOBS",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "RUSTC_WRAPPER",
            "https_proxy",
        ] {
            assert!(passes(Environment::NotTheBuilds, good), "{good}");
        }
    }

    #[test]
    fn options_of_another_nextest_do_not_reach_the_labs() {
        for bad in ["NEXTEST", "NEXTEST_RETRIES", "NEXTEST_PROFILE"] {
            assert!(!passes(Environment::NotNextests, bad), "{bad}");
        }
        assert!(passes(Environment::NotNextests, "CARGO_HOME"));
    }

    #[test]
    fn the_hosts_libraries_do_not_reach_the_trees_programs() {
        for bad in ["LD_PRELOAD", "LD_LIBRARY_PATH", "GCONV_PATH"] {
            assert!(!passes(Environment::NotTheLoaders, bad), "{bad}");
        }
        assert!(passes(Environment::NotTheLoaders, "TMPDIR"));
    }

    #[test]
    fn only_what_is_about_this_machine_reaches_the_making_of_the_tree() {
        for bad in ["TAR_OPTIONS", "BASH_ENV", "PERL5LIB", "APT_CONFIG", "LANG"] {
            assert!(!passes(Environment::Little, bad), "{bad}");
        }
        for good in ["PATH", "HTTPS_PROXY", "no_proxy", "TMPDIR"] {
            assert!(passes(Environment::Little, good), "{good}");
        }
    }
}
