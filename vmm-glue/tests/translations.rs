// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A translated page names the text that it translates by its hash, and so says itself when it is behind.

use std::path::{Path, PathBuf};

/// Pages in Chinese end with this.
const CHINESE: &str = ".zh-CN.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The translated pages: beside README.md, and below docs/.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![root().join("docs")];
    let mut pages = vec![root().join(format!("README{CHINESE}"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of docs/") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(CHINESE) {
                pages.push(path);
            }
        }
    }
    pages
}

/// Sixteen digits: a page is compared with one other, by people of good will.
fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

#[test]
fn no_translated_page_is_behind() {
    let behind: Vec<String> = pages()
        .iter()
        .filter_map(|page| {
            let text = std::fs::read_to_string(page).expect("a page");
            let original = page.to_string_lossy().replace(CHINESE, ".md");
            let wanted =
                hash(&std::fs::read_to_string(&original).expect("the page that is translated"));
            let name = Path::new(&original)
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let line = format!("<!-- Translation of {name}, BLAKE3 {wanted} -->");
            let first = text.lines().next().unwrap_or_default();
            (first != line).then(|| {
                format!(
                    "{}: translate what changed in {name}, then let its first line be {line}",
                    page.display()
                )
            })
        })
        .collect();
    assert!(
        behind.is_empty(),
        "pages that are behind:\n{}",
        behind.join("\n")
    );
}
