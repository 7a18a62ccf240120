// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lessons' pages in docs/lessons: a page's transcript is made from what a run of its lesson printed.
//!
//! `cargo lab lesson all --update-pages` calls [`update`]. A page's translation has the same transcript. Must not know how a lesson is run. The tests here hold the
//! documentation against the source of the driver: a page that names what is gone, or a line number, fails.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::source::BEFORE_LINE;

const OPENS: &str = "```text\n";
const CLOSES: &str = "```\n";

/// Ends of the names of a lesson's page, and of its translations.
const ORIGINAL: &str = ".md";
const TRANSLATIONS: [&str; 1] = [".zh-CN.md"];

/// Replaces the transcript on the page of lesson `id` in `folder`, and on its translation if there is one, by `lines`,
/// all that the lesson printed.
///
/// # Errors
///
/// A page that is missing, or has no transcript or several.
pub fn update(folder: &Path, id: &str, lines: &[String]) -> Result<()> {
    let printed = transcript(lines, &folder.display().to_string());
    for path in languages(folder, id) {
        let page =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let updated = with_transcript(&page, &printed).with_context(|| {
            format!(
                "{}: a page has one block that begins with {OPENS:?}",
                path.display()
            )
        })?;
        fs::write(&path, updated).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The page of lesson `id`, then its translations that exist.
fn languages(folder: &Path, id: &str) -> Vec<PathBuf> {
    let path = |end: &str| folder.join(format!("{id}{end}"));
    let translations = TRANSLATIONS.iter().map(|end| path(end));
    std::iter::once(path(ORIGINAL))
        .chain(translations.filter(|path| path.exists()))
        .collect()
}

/// What a page shows of a run: without the lesson's title, of a quotation the first line, and figures in the current
/// directory rather than in `folder`.
fn transcript(lines: &[String], folder: &str) -> String {
    let body = lines.iter().skip_while(|line| !line.is_empty()).skip(1);
    let mut text = String::new();
    let mut quoted = 0;
    for line in body {
        quoted = if line.starts_with(BEFORE_LINE.trim_end()) {
            quoted + 1
        } else {
            0
        };
        match quoted {
            0 | 1 => text.push_str(line.replace(folder, ".").trim_end()),
            2 => text.push_str(&format!("{BEFORE_LINE}…")),
            _ => continue,
        }
        text.push('\n');
    }
    text
}

/// `page` with another transcript; `None` unless it has exactly one.
fn with_transcript(page: &str, printed: &str) -> Option<String> {
    let (before, rest) = page.split_once(OPENS)?;
    let (_, after) = rest.split_once(CLOSES)?;
    let only = !after.contains(OPENS);
    only.then(|| format!("{before}{OPENS}{printed}{CLOSES}{after}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::LESSONS;
    use super::super::source::{ALL, lines_of};
    use super::{languages, transcript, update, with_transcript};

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_transcript_has_the_first_line_of_a_quotation() {
        let run = lines(
            "=== 9.0: title\n    watch for it\n\n  a.rs, f: it\n    | fn f() {\n    |\n    |     1\n    | }\n\n\
             written: /mnt/x/a.svg\nPASS 9.0",
        );
        assert_eq!(
            transcript(&run, "/mnt/x"),
            "  a.rs, f: it\n    | fn f() {\n    | …\n\nwritten: ./a.svg\nPASS 9.0\n"
        );
    }

    #[test]
    fn the_transcript_of_a_page_is_replaced() {
        let page = "# t\n```sh\nrun\n```\n```text\nold\n```\nend\n";
        let updated = with_transcript(page, "new\n").unwrap();
        assert_eq!(updated, "# t\n```sh\nrun\n```\n```text\nnew\n```\nend\n");
    }

    #[test]
    fn a_page_with_no_transcript_or_with_two_is_not_updated() {
        assert_eq!(with_transcript("# t\n", "new\n"), None);
        let two = "```text\na\n```\n```text\nb\n```\n";
        assert_eq!(with_transcript(two, "new\n"), None);
    }

    #[test]
    fn an_update_writes_the_transcript_into_the_translation_too() {
        let folder = std::env::temp_dir().join(format!("lesson-pages-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let page = |title: &str, shown: &str| format!("# {title}\n```text\n{shown}\n```\nend\n");
        fs::write(folder.join("1.md"), page("one", "old")).unwrap();
        fs::write(folder.join("1.zh-CN.md"), page("一", "old")).unwrap();
        fs::write(folder.join("2.md"), page("two", "old")).unwrap();
        for id in ["1", "2"] {
            update(&folder, id, &lines("=== title\n\nnew")).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.join(name));
        let found = ["1.md", "1.zh-CN.md", "2.md"].map(|name| read(name).unwrap());
        let only_english = read("2.zh-CN.md").is_err();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            found,
            [page("one", "new"), page("一", "new"), page("two", "new")]
        );
        assert!(only_english, "a translation that nobody wrote");
    }

    #[test]
    fn a_page_in_another_language_has_the_transcript_of_the_original() {
        let block = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            let (_, rest) = text.split_once(super::OPENS).unwrap();
            rest.split_once(super::CLOSES).unwrap().0.to_owned()
        };
        for lesson in LESSONS {
            let pages = languages(&repository().join("docs/lessons"), lesson.id);
            assert_eq!(pages.len(), 2, "{}: a page in each language", lesson.id);
            assert_eq!(block(&pages[1]), block(&pages[0]), "{:?}", pages[1]);
        }
    }

    /// Files below `folder` whose names end so, with what is in them.
    fn files(folder: &Path, ends: &[&str]) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.append(&mut files(&path, ends));
            } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
        found.sort();
        found
    }

    /// The pages that tell of the driver as it is. Decisions may name what has been deleted.
    fn pages() -> Vec<(PathBuf, String)> {
        let docs = repository().join("docs");
        let mut pages = files(&docs.join("lessons"), &[".md"]);
        for page in ["driver.md", "api.md", "glossary.md", "glossary.zh-CN.md"] {
            let path = docs.join(page);
            let text = fs::read_to_string(&path).unwrap();
            pages.push((path, text));
        }
        pages
    }

    fn is_name(text: &str) -> bool {
        let mut chars = text.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    }

    /// What stands between backquotes, outside of code blocks.
    fn quoted(page: &str) -> Vec<&str> {
        let outside = page.split("```").step_by(2);
        outside
            .flat_map(|text| text.split('`').skip(1).step_by(2))
            .collect()
    }

    /// `Type::name`, with or without brackets behind it, where both are names and the type is no crate or module.
    fn as_item(word: &str) -> Option<(&str, &str)> {
        let (owner, name) = word.trim_end_matches("()").split_once("::")?;
        let is_type = owner.starts_with(|c: char| c.is_uppercase());
        (is_type && is_name(owner) && is_name(name)).then_some((owner, name))
    }

    /// Whether an `enum` or `struct` called `owner` has a variant or a field called `name`.
    fn has_member(text: &str, owner: &str, name: &str) -> bool {
        lines_of(text, owner).is_ok_and(|lines| {
            lines.iter().any(|line| {
                let member = line.trim_start().trim_start_matches("pub(crate) ");
                let member = member.trim_start_matches("pub(super) ");
                member
                    .strip_prefix(name)
                    .is_some_and(|after| after.starts_with([',', ':', '(', ' ', '{']))
            })
        })
    }

    #[test]
    fn every_function_that_a_page_names_is_in_the_driver() {
        let source = files(&repository().join("guest-driver"), &[".rs"]);
        let mut missing = Vec::new();
        let mut named = 0;
        for (page, text) in pages() {
            for (owner, name) in quoted(&text).into_iter().filter_map(as_item) {
                named += 1;
                let item = format!("{owner}::{name}");
                let is_there = source.iter().any(|(_, text)| {
                    // First what is quick.
                    text.contains(owner)
                        && text.contains(name)
                        && (lines_of(text, &item).is_ok() || has_member(text, owner, name))
                });
                if !is_there {
                    missing.push(format!("{}: {item}", page.display()));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(
            named > 40,
            "only {named} names found: are there none any more?"
        );
    }

    #[test]
    fn every_file_of_the_driver_that_a_page_names_is_there() {
        let driver = repository().join("guest-driver");
        let mut missing = Vec::new();
        for (page, text) in pages() {
            for word in quoted(&text) {
                let path = word.trim_start_matches("guest-driver/");
                let is_path = ["driver/", "kapi/"]
                    .iter()
                    .any(|start| path.starts_with(start));
                if is_path && path.ends_with(".rs") && !driver.join(path).is_file() {
                    missing.push(format!("{}: {word}", page.display()));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn no_page_has_a_line_number() {
        for (page, text) in pages() {
            for end in [".rs:", ".c:", ".h:"] {
                let number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
                let found = text.split(end).skip(1).find(|rest| number(rest));
                assert_eq!(
                    found.map(|rest| rest.lines().next()),
                    None,
                    "{}",
                    page.display()
                );
            }
        }
    }

    #[test]
    fn every_quotation_on_a_page_is_what_the_source_has() {
        let mut shown = 0;
        let folder = repository().join("docs/lessons");
        let pages = LESSONS.iter().map(|lesson| languages(&folder, lesson.id));
        for page in pages.flatten() {
            let text = fs::read_to_string(&page).unwrap();
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                let Some((path, rest)) = line.trim_start().split_once(", ") else {
                    continue;
                };
                if !path.starts_with("guest-driver/") || !line.starts_with("  guest-driver/") {
                    continue;
                }
                let item = rest.split(": ").next().unwrap();
                let excerpt = ALL.iter().find(|e| e.path == path && e.item == item);
                let excerpt = excerpt.unwrap_or_else(|| panic!("{}: {line}", page.display()));
                let first = lines_of(excerpt.text, item).unwrap()[0];
                let on_page = lines.next().unwrap().trim_start().trim_start_matches("| ");
                assert_eq!(on_page, first, "{}", page.display());
                shown += 1;
            }
        }
        assert!(
            shown >= 2 * ALL.len(),
            "{shown} quotations of {} are on a page, in two languages",
            ALL.len()
        );
    }

    #[test]
    fn every_counter_that_is_named_is_in_debugfs() {
        let stats = repository().join("guest-driver/driver/stats.rs");
        let stats = fs::read_to_string(stats).unwrap();
        let mut named = 0;
        for (path, text) in files(&repository().join("guest-tests/src"), &[".rs"]) {
            if path.ends_with(file!()) {
                continue;
            }
            for rest in text.split("system::counter(").skip(1) {
                let arguments = rest.split(')').next().unwrap();
                let Some(name) = arguments.split('"').nth(1) else {
                    continue;
                };
                named += 1;
                let shown = stats.contains(&format!("read_only_file(c\"{name}\""));
                assert!(shown, "{}: no counter {name}", path.display());
            }
        }
        assert!(named > 10, "only {named} counters found");
    }
}
