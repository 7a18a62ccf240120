//! Wildcards that the host's shell could not expand, because the files are the guest's: `ls /dev/globalfifo*`.
//!
//! Only an argument that is an absolute path is looked at: what else holds wildcards (a pattern for `grep`, a script for `sh -c`) means
//! something to the command. An argument that matches nothing stays as it is, as in a shell.

/// The arguments with those expanded.
pub fn expand(argv: &[String]) -> Vec<String> {
    let Some((program, args)) = argv.split_first() else {
        return Vec::new();
    };
    let mut expanded = vec![program.clone()];
    for arg in args {
        expanded.extend(matches(arg).unwrap_or_else(|| vec![arg.clone()]));
    }
    expanded
}

/// Files that a pattern matches, if it is one that should be expanded and there are any.
fn matches(arg: &str) -> Option<Vec<String>> {
    let pattern =
        arg.starts_with('/') && arg.contains(['*', '?', '[']) && !arg.contains(char::is_whitespace);
    if !pattern || std::fs::symlink_metadata(arg).is_ok() {
        return None;
    }
    let found: Vec<String> = glob::glob(arg)
        .ok()?
        .flatten()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: &[&str]) -> Vec<String> {
        expand(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_absolute_pattern_becomes_the_files_it_matches() {
        assert_eq!(
            expanded(&["ls", "/proc/self/stat[u]s"]),
            ["ls", "/proc/self/status"]
        );
        assert_eq!(
            expanded(&["ls", "/proc/self/nothing*"]),
            ["ls", "/proc/self/nothing*"]
        );
    }

    #[test]
    fn scripts_patterns_and_the_programs_name_stay_as_they_are() {
        let untouched = [
            "/bin/s?",
            "-c",
            "ls /proc/self/stat*",
            "*.c",
            "/proc/self/stat* x",
        ];
        assert_eq!(expanded(&untouched), untouched);
    }
}
