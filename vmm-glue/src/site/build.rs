// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The site, built by mdBook and rustdoc into the cache.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::kapi;
use super::pages::CRATES as CRATES_PAGE;
use super::pages::Pages;
use crate::cache::Entry;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::files;
use crate::key::KeyBuilder;
use crate::stages::installed;
use crate::stages::module;
use crate::stages::shop::Bench;
use crate::stages::shop::Shop;

/// Its name in the cache.
const STAGE: &str = "site";
/// mdBook, without its server.
const MDBOOK: installed::Wanted = installed::Wanted {
    stage: "mdbook",
    program: "mdbook",
    version: "0.5.4",
    options: &["--no-default-features", "--features", "search"],
    what: "building mdBook",
};
/// Crates whose own pages are part of the site: name, folder, rustdoc's folder, what they are.
const CRATES: [(&str, &str, &str, &str); 3] = [
    (
        "vhost-device-fifo",
        "device",
        "vhost_device_fifo",
        "the device: to embed it in a VMM of one's own",
    ),
    (
        "fifo-control",
        "device/control",
        "fifo_control",
        "the control socket: its protocol as types, and a client",
    ),
    (
        "virtio-fifo-protocol",
        "protocol",
        "virtio_fifo_protocol",
        "what goes over the wire",
    ),
];
/// Folder of kapi's own pages in the site.
const KAPI: &str = "rustdoc-kapi";
/// How mdBook is to work, without its preprocessors: one would take `{{#` in a source for its own.
const CONFIG: &str = r#"[book]
title = "globalfifo"
language = "en"
src = "src"

[build]
build-dir = "site"
create-missing = false
use-default-preprocessors = false

[output.html]
no-section-label = true

[output.html.fold]
enable = true
level = 0

[output.html.playground]
runnable = false
copyable = true

[output.html.search]
limit-results = 40
use-boolean-and = true
boost-title = 4
"#;

/// The built site.
#[derive(Debug)]
pub struct Site(Entry);

impl Site {
    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.0.join("site")
    }
}

/// Builds it, if anything in it has changed.
pub fn obtain(shop: &Shop) -> Result<Site> {
    let mut pages = Pages::read(&shop.repository)?;
    let mut crates_page = String::from("# Crates\n\n| crate | what it is |\n|---|---|\n");
    for (name, _, folder, what) in CRATES {
        crates_page.push_str(&format!(
            "| [{name}](rustdoc/{folder}/index.html) | {what} |\n"
        ));
    }
    crates_page.push_str(&format!(
        "| [kapi]({KAPI}/{}) | safe abstractions over the kernel's C interfaces, within the driver |\n",
        kapi::FIRST
    ));
    pages.add(CRATES_PAGE, crates_page);
    let mut key = KeyBuilder::new(STAGE)
        .field("rustc", env!("LAB_RUSTC_VERSION"))
        .field("mdbook", MDBOOK.version)
        .field("config", CONFIG)
        .field("summary", &pages.summary())
        .file("Cargo.lock", &shop.repository.join("Cargo.lock"))?;
    for (path, text) in pages.texts() {
        key = key.field(&path.display().to_string(), text);
    }
    for path in &pages.files {
        key = key.file(&path.display().to_string(), &shop.repository.join(path))?;
    }
    for (_, folder, ..) in CRATES {
        key = key.dir(folder, &shop.repository.join(folder), &module::is_source)?;
    }
    let key = kapi::key(shop, key)?.finish();
    let what = "building the documentation's site";
    let entry = shop.obtain(STAGE, &key, what, |bench| {
        let kapi = kapi::obtain(shop)?;
        let mdbook = installed::obtain(shop, &MDBOOK)?;
        lay_out(bench.dir, &shop.repository, &pages)?;
        let build = Spec::new(mdbook.program())
            .arg("build")
            .arg(bench.dir)
            .place(Place::Group);
        bench.run(&build)?;
        for part in ["src", "book.toml"] {
            crate::cache::remove(&bench.dir.join(part))?;
        }
        crates(shop, bench)?;
        let (from, to) = (kapi.folder(), bench.dir.join("site").join(KAPI));
        for file in crate::key::files(&from)? {
            files::copy(&file, &to.join(file.strip_prefix(&from)?))?;
        }
        Ok(())
    })?;
    Ok(Site(entry))
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// mdBook's folder.
fn lay_out(dir: &Path, repository: &Path, pages: &Pages) -> Result<()> {
    let mut files = vec![(PathBuf::from("SUMMARY.md"), pages.summary().into_bytes())];
    files.extend(
        pages
            .texts()
            .map(|(path, text)| (path, text.as_bytes().to_vec())),
    );
    for path in &pages.files {
        let from = repository.join(path);
        let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        files.push((path.clone(), bytes));
    }
    files::write(&dir.join("src"), &files)?;
    fs::write(dir.join("book.toml"), CONFIG).context("cannot write book.toml")
}

/// rustdoc's pages, at `rustdoc/` in the site.
fn crates(shop: &Shop, bench: &mut Bench<'_>) -> Result<()> {
    let target = bench.dir.join("target");
    let mut doc = Spec::new(cargo())
        .args(["doc", "--no-deps", "--locked", "--lib", "--target-dir"])
        .arg(&target)
        .cwd(&shop.repository)
        .environment(Environment::NotTheBuilds)
        .place(Place::Group);
    for (name, ..) in CRATES {
        doc = doc.args(["--package", name]);
    }
    bench.run(&doc)?;
    fs::rename(target.join("doc"), bench.dir.join("site/rustdoc"))
        .context("rustdoc has made no pages")?;
    crate::cache::remove(&target)
}
