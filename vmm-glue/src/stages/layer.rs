//! Debian packages added to the guest's userland: what their installation changed in the tree, kept as a layer to lie over it.

use anyhow::Result;

use super::shop::Shop;
use super::shop::overlay;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::child::Spec;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache, for the guest's userland.
pub const STAGE: &str = "layer";
/// The directory of an entry that holds the layer's files.
pub const UPPER: &str = "upper";
/// dpkg wants to give files to users that an ordinary user's namespace does not have; fakeroot makes it believe so.
const INSTALL: &str = r#"
if [ "$FAKE" = yes ]; then fake=fakeroot; else fake=; fi
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
$fake apt-get -q -o APT::Sandbox::User=root update
$fake apt-get -q -y -o APT::Sandbox::User=root --no-install-recommends install $PACKAGES
apt-get clean
rm -f /usr/sbin/policy-rc.d
rm -rf /var/lib/apt/lists/*
"#;

/// True for what can be a package's name, with an optional version.
pub fn is_package_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-.:=~".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed)
}

/// What a layer is made from.
pub fn key(shop: &Shop, packages: &[String]) -> Key {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    KeyBuilder::new(STAGE)
        .field("tree", &super::tree::key(shop).id)
        .field("packages", &packages.join(" "))
        .field("script", INSTALL)
        .finish()
}

/// The layer with these packages and what they need; its files are under [`UPPER`]. `stage` keeps layers of different uses apart.
pub fn obtain(
    shop: &Shop,
    tree: &Entry,
    stage: &str,
    packages: &[String],
    whom: &str,
) -> Result<Entry> {
    let what = format!("installing {} for {whom}", packages.join(", "));
    shop.obtain(stage, &key(shop, packages), &what, |bench| {
        let mut view = shop.view(tree.path(), bench.dir);
        view.overlay = Some(overlay(bench.dir)?);
        let fake = if nix::unistd::geteuid().is_root() {
            "no"
        } else {
            "yes"
        };
        let spec: Spec = tool_spec(&view, "/bin/sh")
            .args(["-e", "-c", INSTALL])
            .cwd("/")
            .env("PACKAGES", packages.join(" "))
            .env("FAKE", fake);
        bench.run(&spec)?;
        crate::cache::remove(&bench.dir.join("work"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_shell_words_are_no_package_names() {
        for good in [
            "socat",
            "libstdc++6",
            "g++-14",
            "gdb:amd64",
            "strace=6.13+ds-1",
        ] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["", "-y", "a b", "x;reboot", "../x", "$(x)"] {
            assert!(!is_package_name(bad), "{bad}");
        }
    }
}
