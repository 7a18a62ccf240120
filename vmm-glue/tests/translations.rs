// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A translated page names the text that it translates by its hash, and so says itself when it is behind. Transcripts
//! do not count: a command rewrites them, in both languages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Pages in Chinese end with this.
const CHINESE: &str = ".zh-CN.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The translated pages: beside README.md, and below docs/.
fn pages() -> Result<Vec<PathBuf>> {
    let mut folders = vec![root().join("docs")];
    let mut pages = vec![root().join(format!("README{CHINESE}"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(CHINESE) {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// The text without what stands in blocks of the languages `text` and `console`.
fn without_transcripts(text: &str) -> String {
    let mut kept = String::new();
    let mut block = None;
    for line in text.split_inclusive('\n') {
        match (line.trim().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(["text", "console"].contains(&language)),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => continue,
            (None, _) => {}
        }
        kept.push_str(line);
    }
    kept
}

/// Sixteen digits: a page is compared with one other, by people of good will.
fn hash(text: &str) -> String {
    blake3::hash(without_transcripts(text).as_bytes())
        .to_hex()
        .chars()
        .take(16)
        .collect()
}

/// The page that `page` translates, and its name.
fn original(page: &Path) -> (String, String) {
    let path = page.to_string_lossy().replace(CHINESE, ".md");
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    (path, name)
}

/// What to do about a page that is behind.
fn behind(page: &Path) -> Result<Option<String>> {
    let (original, name) = original(page);
    let wanted = hash(&fs::read_to_string(&original)?);
    let line = format!("<!-- Translation of {name}, BLAKE3 {wanted} -->");
    let text = fs::read_to_string(page)?;
    let is_behind = text.lines().next() != Some(&line);
    let page = page.display();
    Ok(is_behind.then(|| {
        format!("{page}: translate what changed in {name}, then let its first line be {line}")
    }))
}

#[test]
fn no_translated_page_is_behind() -> Result<()> {
    let all = pages()?
        .iter()
        .map(|page| behind(page))
        .collect::<Result<Vec<_>>>()?;
    let behind: Vec<String> = all.into_iter().flatten().collect();
    assert!(
        behind.is_empty(),
        "pages that are behind:\n{}",
        behind.join("\n")
    );
    Ok(())
}

#[test]
fn a_page_and_its_translation_link_to_each_other() -> Result<()> {
    for page in pages()? {
        let (original, name) = original(&page);
        let translated = name.replace(".md", CHINESE);
        for (path, line) in [
            (&original, format!("**English** · [中文]({translated})")),
            (
                &page.to_string_lossy().into_owned(),
                format!("[English]({name}) · **中文**"),
            ),
        ] {
            let text = fs::read_to_string(path)?;
            let is_there = text.lines().take(8).any(|found| found == line);
            assert!(is_there, "{path}: no line {line} at its top");
        }
    }
    Ok(())
}

#[test]
fn a_rewritten_transcript_leaves_the_hash_as_it_was() {
    for language in ["text", "console"] {
        let page = |shown: &str| format!("# t\n```{language}\n{shown}\n```\nend\n");
        assert_eq!(hash(&page("took 1 ms")), hash(&page("took 2 ms\nPASS")));
    }
}

#[test]
fn all_but_a_transcript_is_in_the_hash() {
    let page = |before, command, shown, after| {
        format!("{before}\n```sh\n{command}\n```\n```text\n{shown}\n```\n```\n{after}\n```\n")
    };
    let original = hash(&page("a", "b", "c", "d"));
    assert_ne!(hash(&page("x", "b", "c", "d")), original);
    assert_ne!(hash(&page("a", "x", "c", "d")), original);
    assert_ne!(hash(&page("a", "b", "c", "x")), original);
    assert_ne!(hash(&page("a", "b", "c\n```\n\n```text", "d")), original);
}
