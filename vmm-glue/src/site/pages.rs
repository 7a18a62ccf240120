// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages of the site: the repository's own in Markdown, and one for each source and folder that they link to. Text in, text out.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

/// First page, and those beside it that are parts of the site where they are there.
const ROOT: [&str; 7] = [
    "README.md",
    "README.zh-CN.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    CRATES,
];
/// The first page of a folder, in the repository and in the site.
const README: &str = "README.md";
const INDEX: &str = "index.md";
/// The page that leads to rustdoc's.
pub const CRATES: &str = "crates.md";
/// Folders of pages: title of their part, the folder, and what is before all others.
const PARTS: [(&str, &str); 2] = [("Documentation", "docs"), ("The chapter", "docs/lessons")];
/// Ends of names in Chinese.
const CHINESE: &str = ".zh-CN.md";
/// Longest source that becomes a page, in bytes.
const SOURCE_MAX: u64 = 1 << 20;

/// The pages, by their path below the repository.
#[derive(Debug, Default)]
pub struct Pages {
    texts: BTreeMap<PathBuf, String>,
    /// Pictures and other files that pages show: copied as they are.
    pub files: BTreeSet<PathBuf>,
    /// Pages made of sources and folders.
    sources: BTreeSet<PathBuf>,
}

impl Pages {
    /// Reads the repository's.
    pub fn read(repository: &Path) -> Result<Self> {
        let mut own = Vec::new();
        for name in ROOT {
            own.push(PathBuf::from(name));
        }
        for (_, folder) in PARTS {
            let mut names = crate::cache::entries(&repository.join(folder));
            names.sort();
            for path in names.into_iter().filter(|path| is_page(path)) {
                own.push(path.strip_prefix(repository)?.to_owned());
            }
        }
        own.retain(|path| repository.join(path).is_file());
        let known: BTreeSet<PathBuf> = own.iter().cloned().collect();
        let mut pages = Self::default();
        for path in own {
            let text = read(&repository.join(&path))?;
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let text = relinked(&text, |target| {
                pages.link(repository, &known, &folder, target)
            });
            pages.texts.insert(path, text);
        }
        pages.add_sources(repository)?;
        Ok(pages)
    }

    /// Where a link of a page in `folder` leads in the site.
    fn link(
        &mut self,
        repository: &Path,
        known: &BTreeSet<PathBuf>,
        folder: &Path,
        target: &str,
    ) -> Option<String> {
        let (path, anchor) = target
            .split_once('#')
            .map_or((target, ""), |(path, anchor)| (path, anchor));
        if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
            return None;
        }
        let file = flattened(&folder.join(path))?;
        if known.contains(&file) {
            let first = path.strip_suffix(README)?;
            return Some(with_anchor(&format!("{first}{INDEX}"), anchor));
        }
        let absolute = repository.join(&file);
        if absolute.is_dir() {
            if known.contains(&file.join(README)) {
                let folder = path.trim_end_matches('/');
                return Some(with_anchor(&format!("{folder}/{INDEX}"), anchor));
            }
        } else if is_picture(&file) {
            self.files.insert(file);
            return None;
        }
        self.sources.insert(file);
        Some(format!("{}.md", path.trim_end_matches('/')))
    }

    /// Makes a page of each source: its text in a block of code, or the names in a folder.
    fn add_sources(&mut self, repository: &Path) -> Result<()> {
        for path in self.sources.clone() {
            let absolute = repository.join(&path);
            let title = path.display();
            let text = if absolute.is_dir() {
                let mut names: Vec<String> = crate::cache::entries(&absolute)
                    .iter()
                    .filter_map(|entry| Some(entry.file_name()?.to_string_lossy().into_owned()))
                    .collect();
                names.sort();
                let names: String = names.iter().map(|name| format!("- `{name}`\n")).collect();
                format!("# {title}\n\nA folder of the repository:\n\n{names}")
            } else {
                let size = fs::metadata(&absolute).map_or(0, |meta| meta.len());
                let text = if size > SOURCE_MAX {
                    String::new()
                } else {
                    read(&absolute)?
                };
                let fence = fence_for(&text);
                let language = path.extension().unwrap_or_default().display();
                format!("# {title}\n\n{fence}{language}\n{text}{fence}\n")
            };
            self.texts.insert(appended(&path), text);
        }
        Ok(())
    }

    /// Adds a page.
    pub fn add(&mut self, path: &str, text: String) {
        self.texts.insert(path.into(), text);
    }

    /// Texts of all pages, by their path in the site.
    pub fn texts(&self) -> impl Iterator<Item = (PathBuf, &str)> {
        self.texts
            .iter()
            .map(|(path, text)| (placed(path), text.as_str()))
    }

    /// mdBook's list of chapters: first the root's, then the parts, in Chinese, and the sources.
    pub fn summary(&self) -> String {
        let mut summary = String::from("# Summary\n\n");
        let is_own =
            |path: &&PathBuf| !self.sources.iter().any(|source| appended(source) == **path);
        let own: Vec<&PathBuf> = self.texts.keys().filter(is_own).collect();
        let line = |path: &Path| {
            let title = self
                .texts
                .get(path)
                .map_or_else(String::new, |text| title(text, path));
            format!("- [{title}]({})\n", placed(path).display())
        };
        for name in ROOT.iter().filter(|name| !name.ends_with(CHINESE)) {
            if self.texts.contains_key(Path::new(name)) {
                summary.push_str(&line(Path::new(name)));
            }
        }
        let below = |folder: &str, chinese: bool| {
            let mut some: Vec<&PathBuf> = own
                .iter()
                .copied()
                .filter(|path| path.parent() == Some(Path::new(folder)))
                .filter(|path| is_chinese(path) == chinese)
                .collect();
            let readme = self.texts.get(&Path::new(folder).join(README));
            let readme = readme.map_or("", String::as_str);
            some.sort_by_cached_key(|path| order(readme, path));
            some
        };
        for (part, folder) in PARTS {
            summary.push_str(&format!("\n# {part}\n\n"));
            for path in below(folder, false) {
                summary.push_str(&line(path));
            }
        }
        summary.push_str("\n# 中文\n\n");
        for folder in ["", "docs", "docs/lessons"] {
            for path in below(folder, true) {
                summary.push_str(&line(path));
            }
        }
        summary.push_str("\n# Sources\n\n");
        for path in &self.sources {
            summary.push_str(&format!(
                "- [{}]({})\n",
                path.display(),
                appended(path).display()
            ));
        }
        summary
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a page of the repository is in the site.
fn placed(path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) if name == README => path.with_file_name(INDEX),
        _ => path.to_owned(),
    }
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn is_chinese(path: &Path) -> bool {
    path.to_string_lossy().ends_with(CHINESE)
}

fn is_picture(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "svg" || extension == "png")
}

/// Where its folder's first page links to it, or in English to what it translates: the order of chapters.
fn order(readme: &str, path: &Path) -> (bool, usize, PathBuf) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let english = name.replace(CHINESE, ".md");
    let link = readme.find(&format!("]({english}"));
    (
        english != README,
        link.unwrap_or(usize::MAX),
        path.to_owned(),
    )
}

/// A path without `.` and `..`, or nothing if it leaves the repository.
fn flattened(path: &Path) -> Option<PathBuf> {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => flat.push(name),
            Component::ParentDir => {
                if !flat.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(flat)
}

/// `x.rs` becomes `x.rs.md`.
fn appended(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".md");
    name.into()
}

fn with_anchor(path: &str, anchor: &str) -> String {
    if anchor.is_empty() {
        path.to_owned()
    } else {
        format!("{path}#{anchor}")
    }
}

/// A fence that the text has not.
fn fence_for(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    fence
}

/// The first heading, without the marks of code; the name for a page without.
fn title(text: &str, path: &Path) -> String {
    let heading = text.lines().find_map(|line| line.strip_prefix("# "));
    let title = heading.map_or_else(|| path.display().to_string(), |line| line.replace('`', ""));
    title
        .replace('[', "\\[")
        .replace(']', "\\]")
        .trim()
        .to_owned()
}

/// The text with other targets of its links, outside of code: `[text](target)`.
fn relinked(text: &str, mut target: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_code = false;
    for line in text.split_inclusive('\n') {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence {
            out.push_str(line);
            continue;
        }
        for (index, part) in line.split('`').enumerate() {
            if index > 0 {
                out.push('`');
            }
            // Odd parts are code, but a link's text may be: its target is in the part behind.
            if index % 2 == 1 {
                out.push_str(part);
                continue;
            }
            let mut rest = part;
            while let Some(at) = rest.find("](") {
                let (before, after) = rest.split_at(at + 2);
                let end = after.find([')', ' ']).unwrap_or(after.len());
                let (old, behind) = after.split_at(end);
                out.push_str(before);
                out.push_str(&target(old).unwrap_or_else(|| old.to_owned()));
                rest = behind;
            }
            out.push_str(rest);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn links_outside_of_code_get_their_new_targets() {
        let text =
            "[`a`](b.rs) `[no](b.rs)` ![d](e.svg)\n```\n[no](b.rs)\n```\n[f](b.rs#L1) [g](h.md)";
        let changed = relinked(text, |old| old.starts_with("b.rs").then(|| "x".to_owned()));
        let expected = "[`a`](x) `[no](b.rs)` ![d](e.svg)\n```\n[no](b.rs)\n```\n[f](x) [g](h.md)";
        assert_eq!(changed, expected);
    }

    #[test]
    fn chapters_are_in_the_order_in_which_the_first_page_links_to_them() {
        let readme = "| [b](b.md) | [9.13](l-9.13.md) [9.2](l-9.2.md)";
        let mut names =
            ["a.md", "l-9.2.zh-CN.md", "l-9.13.md", "README.md", "b.md"].map(PathBuf::from);
        names.sort_by_cached_key(|path| order(readme, path));
        let expected = ["README.md", "b.md", "l-9.13.md", "l-9.2.zh-CN.md", "a.md"];
        assert_eq!(names, expected.map(PathBuf::from));
    }

    #[test]
    fn a_path_that_leaves_the_repository_is_none() {
        assert_eq!(flattened(Path::new("docs/../a/./b")), Some("a/b".into()));
        assert_eq!(flattened(Path::new("docs/../../a")), None);
    }

    #[test]
    fn a_block_of_code_has_a_fence_that_its_text_has_not() {
        assert_eq!(fence_for("a"), "```");
        assert_eq!(fence_for("```\na\n````"), "`````");
    }

    #[test]
    fn each_page_is_a_chapter_once_and_each_link_leads_to_one() {
        let pages = Pages::read(repository()).unwrap();
        let summary = pages.summary();
        assert!(pages.texts.len() > 100, "{}", pages.texts.len());
        let all: BTreeSet<PathBuf> = pages.texts().map(|(path, _)| path).collect();
        for (path, text) in pages.texts() {
            let entry = format!("]({})", path.display());
            assert_eq!(summary.matches(&entry).count(), 1, "{entry}");
            if pages.sources.iter().any(|source| appended(source) == path) {
                continue;
            }
            let folder = path.parent().unwrap();
            relinked(text, |target| {
                let file = target.split('#').next().unwrap();
                if !file.is_empty() && !file.contains("://") {
                    let file = flattened(&folder.join(file)).unwrap();
                    let is_there = all.contains(&file) || pages.files.contains(&file);
                    assert!(is_there, "{}: {target}", path.display());
                }
                None
            });
        }
    }
}
