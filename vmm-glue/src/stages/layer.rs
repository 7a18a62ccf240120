// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Debian packages added to the guest's userland: what their installation changed in the tree, kept as a layer to lie over it.

use anyhow::Result;

use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::overlay;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::child::Spec;
use crate::exit::usage;
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
if ! $fake apt-get -q -y -o APT::Sandbox::User=root --no-install-recommends install $PACKAGES; then
    apt-cache pkgnames >$NAMES
    exit 100
fi
apt-get clean
rm -f /usr/sbin/policy-rc.d
rm -rf /var/lib/apt/lists/*
"#;

/// Where the names of all packages are after a failure, in the directory of the entry.
const NAMES: &str = "names";

/// The package that apt does not know, if a line says so.
fn unknown_package(line: &str) -> Option<&str> {
    line.strip_prefix("E: Unable to locate package ")
        .or_else(|| {
            let rest = line.strip_prefix("E: Package '")?;
            rest.strip_suffix("' has no installation candidate")
        })
        .map(str::trim)
}

/// Says so, with the name that is nearest to it.
fn no_such_package(unknown: &str, names: &str) -> String {
    let far = unknown.len() / 3 + 1;
    let nearest = names
        .lines()
        .map(|name| (strsim::osa_distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= far)
        .min();
    let hint = match nearest {
        Some((_, name)) if name != unknown => format!("; the nearest name is {name}"),
        _ => String::new(),
    };
    format!("--install {unknown}: Debian has no such package{hint}")
}

/// True for what can be a package's name, with an optional version.
pub fn is_package_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-.:=~".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed)
}

/// What a layer is made from.
pub fn key(shop: &Shop, packages: &[String]) -> Key {
    KeyBuilder::new(STAGE)
        .field("tree", &super::tree::key(shop).id)
        .field("packages", &sorted(packages).join(" "))
        .field("script", INSTALL)
        .finish()
}

/// The same packages give the same layer, in whichever order they are named.
pub fn sorted(packages: &[String]) -> Vec<String> {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    packages
}

/// What the scripts that install have as FAKE.
pub fn fake() -> &'static str {
    if nix::unistd::geteuid().is_root() {
        "no"
    } else {
        "yes"
    }
}

/// Runs what installs or unpacks packages; a name that Debian does not know is the user's error. The script leaves all names in `names`.
pub fn install(bench: &mut Bench<'_>, spec: &Spec) -> Result<()> {
    let mut unknown = None;
    let installed = bench.watch(spec, &mut |line| {
        unknown = unknown_package(line).map(str::to_owned).or(unknown.take());
    });
    if let (Err(_), Some(unknown)) = (&installed, unknown) {
        let names = std::fs::read_to_string(bench.dir.join(NAMES)).unwrap_or_default();
        return Err(usage(no_such_package(&unknown, &names)));
    }
    installed
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
        let mut view = shop.bare_view(tree.path(), bench.dir);
        view.overlay = Some(overlay(bench.dir)?);
        let spec: Spec = tool_spec(&view, "/bin/sh")
            .args(["-e", "-c", INSTALL])
            .cwd("/")
            .env("PACKAGES", packages.join(" "))
            .env("NAMES", format!("{WORK}/{NAMES}"))
            .env("FAKE", fake());
        install(bench, &spec)?;
        crate::cache::remove(&bench.dir.join("work"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_package_is_called_unknown_and_the_nearest_is_named() {
        for line in [
            "E: Unable to locate package strce",
            "E: Package 'strce' has no installation candidate",
        ] {
            assert_eq!(unknown_package(line), Some("strce"));
        }
        assert_eq!(unknown_package("Get:1 strce"), None);
        let said = no_such_package("strce", "gdb\nstrace\nltrace\nstress\n");
        assert_eq!(
            said,
            "--install strce: Debian has no such package; the nearest name is strace"
        );
        assert!(no_such_package("xyzzyx", "gdb\nstrace\n").ends_with("no such package"));
    }

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
