// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! rustdoc's pages of guest-driver/kapi, with the crates of the lab's kernel.
//!
//! kapi is a part of a module, and public to no one: the pages are those of the whole driver, private items included. rustdoc gets the
//! flags with which kbuild has compiled the module a moment before. This file must not know the site.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::cache::Entry;
use crate::key::KeyBuilder;
use crate::stages;
use crate::stages::KernelChoice;
use crate::stages::System;
use crate::stages::module;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;
use crate::stages::tree;

/// Its name in the cache.
const STAGE: &str = "kapi-docs";
/// Its pages, and the first of them, in the stage's folder.
const PAGES: &str = "doc";
/// The page of kapi, seen from [`Pages::folder`].
pub const FIRST: &str = "globalfifo_main/kapi/index.html";
/// Takes kbuild's command of the module's Rust, without what compilers write, to rustdoc. The first argument is where pages go.
const SCRIPT: &str = r#"
command=$(sed -n 's/^savedcmd_[^ ]* := //p' .globalfifo_main.o.cmd | sed 's/ ;.*//')
command=$(printf '%s\n' "$command" | sed 's/ rustc / rustdoc /; s/--emit=[^ ]*//g; s/--out-dir [^ ]*//')
# Of this copy: all that the kernel binds would be thousands of pages.
sed -i '1a #![doc(hidden)]' kapi/bindings.rs
# The kernel's flags are those of a nightly compiler, which kbuild makes of a stable one by this variable, too.
export GLOBALFIFO_BINDINGS=$PWD/bindings_generated.rs RUSTC_BOOTSTRAP=1
eval "$command --document-private-items --cap-lints allow --output $1"
"#;

/// The pages.
#[derive(Debug)]
pub struct Pages(Entry);

impl Pages {
    /// Their folder.
    pub fn folder(&self) -> PathBuf {
        self.0.join(PAGES)
    }
}

/// What the pages are made of.
pub fn key(shop: &Shop, key: KeyBuilder) -> Result<KeyBuilder> {
    let module = module::key(shop, System::default())?;
    Ok(key.field("module", &module.id).field("kapi-script", SCRIPT))
}

/// Makes the pages, if the driver or the kernel has changed.
pub fn obtain(shop: &Shop) -> Result<Pages> {
    let tree = tree::obtain(shop)?;
    let kernel = stages::kernel(shop, &tree, KernelChoice::Stock)?;
    let key = key(shop, KeyBuilder::new(STAGE))?.finish();
    let entry = shop.obtain(STAGE, &key, "documenting kapi", |bench| {
        module::copy_sources(shop, bench.dir)?;
        let view = module::view(shop, &tree, &kernel, bench.dir);
        let edition = System::default().edition;
        let make = module::make(&view, &shop.repository, edition).args(kernel.make_variables());
        bench.run(&make)?;
        let seen = module::seen_as(&shop.repository).join(module::DRIVER);
        let doc = tool_spec(&view, "/bin/sh")
            .args(["-e", "-c", SCRIPT, "sh"])
            .arg(seen.join(PAGES))
            .cwd(&seen);
        bench.run(&doc)?;
        let made = bench.dir.join(module::DRIVER).join(PAGES);
        fs::rename(made, bench.dir.join(PAGES)).context("rustdoc has made no pages of kapi")?;
        for part in module::PARTS {
            crate::cache::remove(&bench.dir.join(part))?;
        }
        Ok(())
    })?;
    Ok(Pages(entry))
}
