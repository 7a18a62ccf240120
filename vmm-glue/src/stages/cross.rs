// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tools for guests of another architecture than this machine's: QEMU and a cross compiler with its libraries, kept as a layer to lie over
//! the tree. Fetched at the first `--arch` of another architecture.

use anyhow::Result;

use super::layer;
use super::shop::Shop;
use super::shop::overlay;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "cross-tools";
/// dpkg wants to give files to users that an ordinary user's namespace does not have; fakeroot makes it believe so.
const INSTALL: &str = r#"
if [ "$FAKE" = yes ]; then fake=fakeroot; else fake=; fi
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
$fake dpkg --add-architecture "$ARCHITECTURE"
$fake apt-get -q -o APT::Sandbox::User=root update
$fake apt-get -q -y -o APT::Sandbox::User=root --no-install-recommends install $PACKAGES
apt-get clean
rm -f /usr/sbin/policy-rc.d
rm -rf /var/lib/apt/lists/*
"#;

/// What the layer is made from.
pub fn key(shop: &Shop) -> Key {
    KeyBuilder::new(STAGE)
        .field("tree", &super::tree::key(shop).id)
        .field("architecture", shop.arch.debian())
        .field("packages", &packages(shop).join(" "))
        .field("script", INSTALL)
        .finish()
}

fn packages(shop: &Shop) -> Vec<String> {
    let of_arch = |package: &String| format!("{package}:{}", shop.arch.debian());
    let tools = [shop.guest.emulator.clone(), shop.guest.compiler.clone()];
    let libraries = shop.recipe.foreign.libraries.iter().map(of_arch);
    tools.into_iter().chain(libraries).collect()
}

/// The layer for this shop's architecture; its files are under [`layer::UPPER`].
pub fn obtain(shop: &Shop, tree: &Entry) -> Result<Entry> {
    let what = format!("installing QEMU and a compiler for {}", shop.arch);
    shop.obtain(STAGE, &key(shop), &what, |bench| {
        let mut view = shop.bare_view(tree.path(), bench.dir);
        view.overlay = Some(overlay(bench.dir)?);
        let spec = tool_spec(&view, "/bin/sh")
            .args(["-e", "-c", INSTALL])
            .cwd("/")
            .env("ARCHITECTURE", shop.arch.debian())
            .env("PACKAGES", packages(shop).join(" "))
            .env("FAKE", layer::fake());
        bench.run(&spec)?;
        crate::cache::remove(&bench.dir.join("work"))
    })
}
