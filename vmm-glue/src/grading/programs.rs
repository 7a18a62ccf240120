// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rules' programs, compiled for the guest by the tree's gcc: all in one go, kept in the cache.

use anyhow::Result;

use super::catalog;
use crate::cache::Entry;
use crate::child::Bind;
use crate::key::KeyBuilder;
use crate::stages::kernel;
use crate::stages::shop::Shop;

/// Its name in the cache.
pub const STAGE: &str = "rules";
/// Where the compiler sees the sources.
const SOURCES: &str = "/lab/rules";
/// Static, so that a program starts at once wherever it runs. -P2: the machine's CPUs may be few, and are shared.
const COMPILE: &str = r#"
cd /lab/rules
ls *.c | sed 's/\.c$//' | xargs -P2 -I@ gcc -O1 -Wall -Wno-unused-result -static -s @.c -o /lab/work/@ -lrt -luring
"#;

/// A folder with a program for each rule that has one.
pub fn obtain(shop: &Shop, tree: &Entry) -> Result<Entry> {
    let sources = shop.repository.join(catalog::FOLDER).join("rules");
    let compile = COMPILE.replace("gcc", &shop.arch.tool("gcc"));
    let key = kernel::of_arch(shop, KeyBuilder::new(STAGE))
        .field("tree", &crate::stages::tree::key(shop).id)
        .field("compile", &compile)
        .dir("rules", &sources, &|_| true)?
        .finish();
    shop.obtain(STAGE, &key, "compiling the rules' programs", |bench| {
        let mut view = shop.view(tree.path(), bench.dir);
        view.binds.push(Bind {
            from: sources.clone(),
            to: SOURCES.into(),
            read_only: true,
        });
        bench.script(&view, &compile, &[])
    })
}
