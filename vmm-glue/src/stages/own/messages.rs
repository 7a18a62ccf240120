// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a build says, for the user: without make's own progress, with the user's paths in place of the copy's, and with an explanation under
//! what a change of the kernel causes.
//!
//! Text in, text out. This file must not know how the build is run.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Captures;
use regex::Regex;

use super::sandbox::PLACE;
use super::source::Recipe;
use super::source::Source;

/// Names of the copy's files, as the user writes them.
#[derive(Debug)]
pub struct Names {
    /// By the name in the copy.
    files: HashMap<PathBuf, PathBuf>,
    place: PathBuf,
    folder: PathBuf,
}

/// A path at the place where compilers write one: first in the line, or after one of these introductions.
static LEADING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?P<before>In file included from |\s+from |\s*-->\s|\s*::: )?(?P<path>[^\s:,()]+)(?P<after>[:,])").ok()
});
/// A path of the copy anywhere.
static ABSOLUTE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"{PLACE}/(?P<path>[^\s:,()'\]]*)")).ok());
/// Lines of make and Kbuild that say what they do, not what is wrong.
static PROGRESS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let lines = [
        r"^make(\[\d+\])?: (Entering|Leaving) directory",
        r"^make(\[\d+\])?: \*\*\* \[(/lab/kernel|scripts/|Makefile|Kbuild|Module|.*\.mk)[^\]]*\] Error",
        r"^make(\[\d+\])?: \*\*\* Waiting for unfinished jobs",
        r"^make(\[\d+\])?: (Nothing to be done|'.*' is up to date)",
        r"^make(\[\d+\])?: Target '.*' not remade because of errors",
        r"^\s+[A-Z][A-Z0-9_+]+ +(\[M\] +)?\S+$",
        r"^warning: the compiler differs from the one used to build the kernel",
        r"^  The kernel was built by: ",
        r"^  You are using: ",
        r"^Skipping BTF generation",
        r"^make( |$)",
    ];
    Regex::new(&lines.join("|")).ok()
});

/// A compiler's message that ends a build.
static ERROR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(^|\s|:)(fatal )?error(\[\w+\])?: ").ok());
/// A compiler that is not there, because a Makefile names one for another architecture.
static CROSS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?P<name>[a-z0-9_]+(-[a-z0-9_]+)+-gcc): (No such file|not found)").ok()
});

/// Why a build failed, in one line: the first error, or that the Makefile is for another architecture.
pub fn reason(lines: &[String]) -> Option<String> {
    let cross = |line: &String| Some(CROSS.as_ref()?.captures(line)?["name"].to_owned());
    if let Some(name) = lines.iter().find_map(cross) {
        return Some(format!(
            "the Makefile asks for {name}, a compiler for another architecture; leave ARCH and CROSS_COMPILE out of it"
        ));
    }
    let error = ERROR.as_ref()?;
    lines.iter().find(|line| error.is_match(line)).cloned()
}

impl Names {
    /// Those of a source.
    pub fn of(source: &Source) -> Self {
        let folder = source.folder();
        let alone = matches!(source.recipe, Recipe::Generated(_));
        let shown = |name: &Path, from: &Path| {
            if !alone {
                return None;
            }
            // The copy of a single file may be called otherwise.
            let own = from.file_name() == source.given.file_name();
            let here = if own {
                source.given.clone()
            } else {
                folder.join(name)
            };
            Some((name.to_owned(), here))
        };
        let files = source.files.iter();
        let renamed = files.clone().filter_map(|(name, from)| shown(name, from));
        let rest = files.filter_map(|(name, _)| {
            let inside = name.strip_prefix(&source.place);
            let here =
                inside.map_or_else(|_| folder.join("..").join(name), |name| folder.join(name));
            (!alone).then(|| (name.clone(), here))
        });
        Self {
            files: renamed.chain(rest).collect(),
            place: source.place.clone(),
            folder: folder.clone(),
        }
    }

    /// The line for the user; `None` for one that is make's own affair.
    pub fn line(&self, line: &str) -> Option<String> {
        if PROGRESS
            .as_ref()
            .is_some_and(|progress| progress.is_match(line))
        {
            return None;
        }
        let line = match LEADING.as_ref() {
            Some(leading) => leading.replace(line, |found: &Captures<'_>| self.leading(found)),
            None => line.into(),
        };
        let line = match ABSOLUTE.as_ref() {
            Some(absolute) => absolute.replace_all(&line, |found: &Captures<'_>| {
                self.user(Path::new(
                    found.name("path").map_or("", |path| path.as_str()),
                ))
                .display()
                .to_string()
            }),
            None => line.clone(),
        };
        Some(line.into_owned())
    }

    fn leading(&self, found: &Captures<'_>) -> String {
        let part = |name: &str| found.name(name).map_or("", |part| part.as_str());
        let name = plain(&self.place.join(part("path")));
        let path = match self.files.get(&name) {
            Some(path) => path.display().to_string(),
            None => part("path").to_owned(),
        };
        format!("{}{path}{}", part("before"), part("after"))
    }

    /// A path of the copy, as the user writes it.
    fn user(&self, path: &Path) -> PathBuf {
        let name = plain(path);
        match self.files.get(&name) {
            Some(path) => path.clone(),
            None => self
                .folder
                .join(name.strip_prefix(&self.place).unwrap_or(&name)),
        }
    }
}

/// Without `.` and `..` where they can be seen to lead nowhere else.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn names(given: &str, place: &str, files: &[(&str, &str)], recipe: Recipe) -> Names {
        let files = files.iter().map(|(name, from)| (name.into(), from.into()));
        Names::of(&Source {
            given: given.into(),
            files: files.collect(),
            links: BTreeMap::new(),
            place: place.into(),
            recipe,
        })
    }

    #[test]
    fn the_first_error_is_the_reason_and_a_compiler_for_another_architecture_before_it() {
        let said = |text: &str| reason(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let c = "fifo.c:1:2: warning: unused: error\nfifo.c:10:9: fatal error: asm/system.h: No such file or directory\n";
        assert_eq!(said(c).as_deref(), c.lines().nth(1));
        let rust = "warning: x\nerror[E0425]: cannot find value `x`\n --> fifo.rs:3:4\n";
        assert_eq!(said(rust).as_deref(), rust.lines().nth(1));
        let words = "the case's own words\nmake: *** [Makefile:4: all] Error 3\n";
        assert_eq!(said(words), None);
        let cross = "make[3]: arm-linux-gnueabihf-gcc: No such file or directory\n/bin/sh: 1: arm-linux-gnueabihf-gcc: not found\nx.c:1:1: error: y\n";
        assert!(said(cross).is_some_and(|line| line.contains("asks for arm-linux-gnueabihf-gcc")));
    }

    #[test]
    fn messages_about_a_single_file_name_the_users_file() {
        let files = [
            ("my_fifo.c", "/home/me/x/my fifo.c"),
            ("a.h", "/home/me/x/a.h"),
        ];
        let names = names(
            "../x/my fifo.c",
            "",
            &files,
            Recipe::Generated(String::new()),
        );
        for (line, shown) in [
            (
                "my_fifo.c:3:10: error: no",
                "../x/my fifo.c:3:10: error: no",
            ),
            (
                "In file included from my_fifo.c:1:",
                "In file included from ../x/my fifo.c:1:",
            ),
            (
                "                 from a.h:2,",
                "                 from ../x/a.h:2,",
            ),
            (
                "/lab/module/a.h:1:1: warning: w",
                "../x/a.h:1:1: warning: w",
            ),
            (" --> my_fifo.c:1:2", " --> ../x/my fifo.c:1:2"),
            (
                "./include/linux/fs.h:7:1: note: n",
                "./include/linux/fs.h:7:1: note: n",
            ),
            (
                "   12 |  my_fifo.c: not a path",
                "   12 |  my_fifo.c: not a path",
            ),
        ] {
            assert_eq!(names.line(line).as_deref(), Some(shown));
        }
    }

    #[test]
    fn messages_about_a_folder_name_files_below_it_and_beside_it() {
        let files = [
            ("guest-driver/kapi/x.rs", "/r/guest-driver/kapi/x.rs"),
            ("protocol/src/lib.rs", "/r/protocol/src/lib.rs"),
        ];
        let names = names("/", "guest-driver", &files, Recipe::Kernel);
        for (line, shown) in [
            ("  --> kapi/x.rs:1:2", "  --> /kapi/x.rs:1:2"),
            (
                "  --> ../protocol/src/lib.rs:1:2",
                "  --> /../protocol/src/lib.rs:1:2",
            ),
        ] {
            assert_eq!(names.line(line).as_deref(), Some(shown));
        }
    }

    #[test]
    fn makes_own_progress_is_left_out_and_its_errors_are_not() {
        let names = names("x", "", &[], Recipe::Kernel);
        for line in [
            "  CC [M]  globalfifo.o",
            "make[1]: Entering directory '/lab/module'",
            "make[2]: *** [/lab/kernel/source/scripts/Makefile.build:289: x.o] Error 1",
            "make -C /lib/modules/7.3.4/build M=/lab/module modules",
        ] {
            assert_eq!(names.line(line), None, "{line}");
        }
        for line in [
            "make: *** No rule to make target 'x.h', needed by 'x.o'.  Stop.",
            "ERROR: modpost: missing MODULE_LICENSE() in x.o",
            "    5 | CONSTANT",
        ] {
            assert!(names.line(line).is_some(), "{line}");
        }
    }
}
