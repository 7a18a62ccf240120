// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's own check of style, `scripts/checkpatch.pl --strict`, on the driver's sources: nothing that it reports is allowed.
//!
//! This file knows how it is called and what it prints. Who runs it knows the tree and the kernel's source.

use std::path::Path;

/// Where it is in the kernel's source.
pub const SCRIPT: &str = "source/scripts/checkpatch.pl";
/// The cache's name for Perl, which lies over the tree.
pub const PERL_STAGE: &str = "checkpatch-perl";
/// How it is called, before the files. No message type is ignored.
pub const OPTIONS: [&str; 5] = [
    "--strict",
    "--show-types",
    "--emacs",
    "--color=never",
    // The files as they are, not as a patch: what is asked of a patch (MAINTAINERS, a description) does not come up.
    "--file",
];
/// Reports that are shown.
const SHOWN: usize = 40;

/// Whether a file of the driver is checked: C, Rust, and what Kbuild reads.
pub fn is_checked(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let kbuild = ["Kbuild", "Makefile", "Kconfig"];
    let code = ["c", "h", "S", "rs"];
    kbuild.iter().any(|wanted| name == *wanted)
        || path
            .extension()
            .is_some_and(|ext| code.iter().any(|wanted| ext == *wanted))
}

/// What it found in so many files, from what it printed; an error says what is wrong.
pub fn judge(text: &str, files: usize) -> Result<(), String> {
    let reports = reports(text);
    if !reports.is_empty() {
        let shown: Vec<_> = reports.iter().copied().take(SHOWN).collect();
        return Err(format!("{} reports\n{}", reports.len(), shown.join("\n")));
    }
    // It passes over a file that it cannot read, and says so nowhere but here: by not counting its lines.
    let checked = text.lines().filter(|line| is_clean_total(line)).count();
    if files > 0 && checked == files {
        Ok(())
    } else {
        Err(format!(
            "checkpatch has checked {checked} of {files} files\n{}",
            crate::causes::excerpt(text, SHOWN)
        ))
    }
}

/// Its reports, a line each.
pub fn reports(text: &str) -> Vec<&str> {
    text.lines().filter(|line| is_report(line)).collect()
}

/// `rx.rs:12: CHECK:LONG_LINE: line length of 102 exceeds 100 columns`
fn is_report(line: &str) -> bool {
    // A line of the source, quoted.
    if line.starts_with('+') {
        return false;
    }
    let mut parts = line.splitn(3, ": ");
    let (place, kind) = (parts.next(), parts.next());
    let place = place.and_then(|place| place.rsplit_once(':'));
    let kind = kind.and_then(|kind| kind.split_once(':'));
    place.is_some_and(|(_, line)| line.parse::<u32>().is_ok())
        && kind.is_some_and(|(level, _)| ["ERROR", "WARNING", "CHECK"].contains(&level))
}

/// `total: 0 errors, 0 warnings, 0 checks, 82 lines checked`
fn is_clean_total(line: &str) -> bool {
    line.strip_prefix("total: 0 errors, 0 warnings, 0 checks, ")
        .and_then(|rest| rest.strip_suffix(" lines checked"))
        .and_then(|lines| lines.parse::<u32>().ok())
        .is_some_and(|lines| lines > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "-----\na.rs\n-----\ntotal: 0 errors, 0 warnings, 0 checks, 82 lines checked\n\n\
        a.rs has no obvious style problems and is ready for submission.\n";
    const BAD: &str = "helpers.c:22: WARNING:INCLUDE_LINUX: Use #include <linux/x.h> instead of <asm/x.h>\n#22: FILE: helpers.c:22:\n\
        +#include <asm/x.h>\n\nhelpers.c:65: CHECK:LONG_LINE: line length of 102 exceeds 100 columns\n#65: FILE: helpers.c:65:\n\
        +\tsaid(\"a.c:1: ERROR:NOT_ONE: of the source\");\n\ntotal: 0 errors, 1 warnings, 1 checks, 321 lines checked\n";

    #[test]
    fn files_without_a_report_pass() {
        assert_eq!(judge(CLEAN, 1), Ok(()));
        assert_eq!(judge(&CLEAN.repeat(3), 3), Ok(()));
    }

    #[test]
    fn each_report_is_shown_whatever_its_level_and_no_line_of_source_is_taken_for_one() {
        let said = judge(&format!("{CLEAN}{BAD}"), 2).unwrap_err();
        assert!(said.starts_with("2 reports\n"), "{said}");
        for part in ["WARNING:INCLUDE_LINUX", "CHECK:LONG_LINE"] {
            assert!(said.contains(part), "{said}");
        }
        let error = "x.c:1: ERROR:SPACING: space required\n";
        assert!(judge(error, 1).unwrap_err().starts_with("1 reports"));
    }

    #[test]
    fn a_file_that_was_not_looked_at_is_a_failure() {
        let said = judge("diff: b.rs: No such file or directory\n", 1).unwrap_err();
        assert!(said.contains("0 of 1 files"), "{said}");
        assert!(judge(CLEAN, 2).is_err());
        assert!(judge("", 0).is_err());
        let empty = CLEAN.replace("82 lines", "0 lines");
        assert!(judge(&empty, 1).is_err());
    }

    #[test]
    fn sources_and_kbuild_files_are_checked() {
        for checked in [
            "Kbuild",
            "Makefile",
            "helpers.c",
            "include/uapi/x.h",
            "core/rx.rs",
        ] {
            assert!(is_checked(Path::new(checked)), "{checked}");
        }
        for other in ["README.md", "99-globalfifo.rules", ".rustfmt.toml"] {
            assert!(!is_checked(Path::new(other)), "{other}");
        }
    }
}
