// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Relative links of all pages in Markdown: the file must be there, and the heading in it. Must not use the network.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Pages in the repository, without what is built.
fn pages() -> Result<Vec<PathBuf>> {
    let root = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    let mut folders = vec![root];
    let mut pages = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(entry.path());
            } else if kind.is_file() && name.ends_with(".md") {
                pages.push(entry.path());
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// Lines that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Targets of the links and images of a page, `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // A word in backquotes may be the text of a link, but its target never is code.
        let line: String = line
            .split('`')
            .enumerate()
            .map(|(i, part)| if i % 2 == 0 { part } else { "code" })
            .collect();
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push(target.to_owned());
        }
    }
    found
}

/// The names that GitHub gives the headings of a page.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            let slug: String = kept.collect();
            let before = seen.entry(slug.clone()).or_default();
            *before += 1;
            match *before {
                1 => slug,
                n => format!("{slug}-{}", n - 1),
            }
        })
        .collect()
}

/// What is wrong with a link to `target` on a page in `folder` whose own text is `text`.
fn fault(folder: &Path, text: &str, target: &str) -> Result<Option<&'static str>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = folder.join(path);
    if !file.exists() {
        return Ok(Some("no such file"));
    }
    let other = match path {
        "" => text.to_owned(),
        _ if path.ends_with(".md") => fs::read_to_string(&file)?,
        _ => return Ok((!anchor.is_empty()).then_some("a heading in what is no page")),
    };
    let is_there = anchor.is_empty() || anchors(&other).iter().any(|found| found == anchor);
    Ok((!is_there).then_some("no such heading"))
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading_that_exist() -> Result<()> {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let folder = page.parent().unwrap_or(&page);
        for target in links(&text) {
            followed += 1;
            if let Some(why) = fault(folder, &text, &target)? {
                broken.push(format!("{}: {target}: {why}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(
        followed > 100,
        "only {followed} links found: are there none any more?"
    );
    Ok(())
}

#[test]
fn links_in_code_are_none_and_code_in_a_link_is_its_text() {
    let page = "[`a`](b.md#c) `[no](x)` ![d](e.svg)\n```\n[no](x)\n```\n[f](g.md)";
    assert_eq!(links(page), ["b.md#c", "e.svg", "g.md"]);
}

#[test]
fn a_heading_is_named_as_on_github() {
    let page = "# A b: `c_d`, e-f!\n## 试试 看？\n```\n# no\n```\n## 试试 看？\n";
    assert_eq!(anchors(page), ["a-b-c_d-e-f", "试试-看", "试试-看-1"]);
}

#[test]
fn a_missing_file_and_a_missing_heading_are_faults() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let fault = |target| fault(&folder, "# Here\n", target);
    assert_eq!(fault("README.md")?, None);
    assert_eq!(fault("#here")?, None);
    assert_eq!(fault("#there")?, Some("no such heading"));
    assert_eq!(fault("README.md#nowhere-at-all")?, Some("no such heading"));
    assert_eq!(fault("NO.md")?, Some("no such file"));
    Ok(())
}
