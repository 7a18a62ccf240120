// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A translated page names the text that it translates by its hash, and so says itself when it is behind.

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

/// Sixteen digits: a page is compared with one other, by people of good will.
fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes())
        .to_hex()
        .chars()
        .take(16)
        .collect()
}

/// What to do about a page that is behind.
fn behind(page: &Path) -> Result<Option<String>> {
    let original = page.to_string_lossy().replace(CHINESE, ".md");
    let wanted = hash(&fs::read_to_string(&original)?);
    let name = original.rsplit('/').next().unwrap_or_default();
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
