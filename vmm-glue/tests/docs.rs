// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The documentation's site, built whole. Ignored by plain `cargo test`, which must not fetch programs; `cargo lab test` runs it.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use common::command;
use regex::Regex;

/// Files below a folder whose names end so.
fn below(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// What a page's attributes of this kind say.
fn values<'a>(text: &'a str, attribute: &str) -> Vec<&'a str> {
    let regex = Regex::new(&format!(r#"\s{attribute}="([^"]*)""#)).unwrap();
    let found = regex.captures_iter(text);
    found
        .map(|captures| captures.get(1).unwrap().as_str())
        .collect()
}

#[test]
#[ignore = "builds mdBook: run by `cargo lab test`"]
fn every_link_of_the_site_holds_and_nothing_in_it_is_fetched() {
    let temporary = tempfile::tempdir().unwrap();
    let site = temporary.path().join("a site");
    let output = command(&["docs", "-o"]).arg(&site).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("index.html"), "{stderr}");

    let pages: HashMap<PathBuf, String> = below(&site, ".html")
        .into_iter()
        // rustdoc's own, whose links are made by it and by its scripts.
        .filter(|path| {
            ["rustdoc", "rustdoc-kapi"]
                .iter()
                .all(|part| !path.starts_with(site.join(part)))
        })
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(pages.len() > 100, "{}", pages.len());
    let ids: HashMap<&PathBuf, HashSet<&str>> = pages
        .iter()
        .map(|(path, text)| (path, values(text, "id").into_iter().collect()))
        .collect();
    let mut broken = Vec::new();
    for (path, text) in &pages {
        // One page of all has the links of all.
        if path.ends_with("print.html") || path.ends_with("404.html") {
            continue;
        }
        let folder = path.parent().unwrap();
        for target in values(text, "href") {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => {
                    let joined = folder.join(file.replace("%20", " "));
                    joined.canonicalize().unwrap_or(joined)
                }
            };
            let is_there = file.exists()
                && (anchor.is_empty()
                    || ids.get(&file).is_none_or(|ids| {
                        let anchor = percent_decoded(anchor);
                        ids.contains(anchor.as_str())
                    }));
            if !is_there {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
        for source in values(text, "src") {
            assert!(!source.contains("://"), "{}: {source}", path.display());
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    for page in [
        "rustdoc/vhost_device_fifo/index.html",
        "rustdoc-kapi/globalfifo_main/kapi/index.html",
        "docs/virtio-fifo.html",
        "print.html",
    ] {
        assert!(site.join(page).is_file(), "{page}");
    }

    let again = command(&["docs", "-o"]).arg(&site).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "a folder that is not empty");
}

/// Headings in Chinese are percent-encoded in links.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
