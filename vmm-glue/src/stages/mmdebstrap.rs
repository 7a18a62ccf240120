// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! mmdebstrap, which makes the Debian tree: this machine's, or one that is fetched and unpacked into the cache. Nothing is installed here,
//! but for what cannot be had otherwise, and that only after a yes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::Arch;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::enough_room_in;
use crate::cache::Entry;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::key::KeyBuilder;
use crate::scratch;
use crate::scratch::Scratch;
use crate::ui;

/// Its name in the cache.
pub const STAGE: &str = "mmdebstrap";
/// Gives an ordinary user the subordinate ids that mmdebstrap needs. It works only with rights that the archive's package gives it.
pub const INSTALL_UIDMAP: &str = "apt-get install -y uidmap";
/// Bytes that an ordinary user's tree takes in $TMPDIR while it is made.
const SCRATCH_BYTES: u64 = 2_500_000_000;
/// A scratch directory younger than this may not have its lock yet.
const GRACE: Duration = Duration::from_secs(10);
/// Where the archive's keys are, in a package as on a machine.
const KEYRINGS: [&str; 2] = [
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
];
/// Fetches by apt, with lists of its own: neither rights nor lists of the machine are needed. A machine without all of Perl gets it here too.
const FETCH: &str = r#"
mkdir -p state/lists/partial cache/archives/partial root
apt() {
    program=$1; shift
    "$program" -q -o Dir::State="$PWD/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User= "$@"
}
apt apt-get update
packages="mmdebstrap debian-archive-keyring"
if ! perl -MEnglish -MGetopt::Long -MPod::Usage -MFile::Find -MMath::BigInt -MTime::HiRes -e 'require "syscall.ph"; require "sys/ioctl.ph"'
then
    packages="$packages perl $(apt apt-cache depends --important perl | sed -n 's/^ *Depends: \(perl-modules-.*\|libperl5.*\)$/\1/p')"
fi
apt apt-get download $packages
for deb in *.deb; do dpkg-deb -x "$deb" root; done
rm -rf state cache *.deb
"#;

/// The program.
#[derive(Debug)]
pub struct Mmdebstrap {
    /// Fetched, unless this machine has it.
    fetched: Option<Entry>,
}

/// True if it is on PATH.
pub fn present() -> bool {
    on_path(STAGE)
}

/// True if a program of this name is on PATH.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| rustix::fs::access(dir.join(name), rustix::fs::Access::EXEC_OK).is_ok())
}

/// Whether it can be fetched: it is a package of Debian's and Ubuntu's, for their Perl.
pub fn can_be_fetched() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb", "perl"]
        .into_iter()
        .all(on_path)
}

/// Finds or fetches it, and makes sure of what it needs.
pub fn obtain(shop: &Shop, bench: &mut Bench<'_>) -> Result<Mmdebstrap> {
    if !nix::unistd::geteuid().is_root() && !on_path("newuidmap") {
        install_uidmap()?;
    }
    if present() {
        return Ok(Mmdebstrap { fetched: None });
    }
    anyhow::ensure!(
        can_be_fetched(),
        "mmdebstrap is missing, and this is not a Debian or Ubuntu machine where the lab could fetch it: install mmdebstrap"
    );
    bench.detail("fetching mmdebstrap");
    // Its Perl is the machine's: what suits one release does not suit the next.
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let key = KeyBuilder::new(STAGE)
        .field("release", &release)
        .field("script", FETCH)
        .finish();
    let fetched = shop.obtain(STAGE, &key, "fetching mmdebstrap", |bench| {
        let spec = Spec::new("sh")
            .args(["-e", "-c", FETCH])
            .cwd(bench.dir)
            .environment(Environment::Little)
            .env("LC_ALL", "C.UTF-8")
            .usual_umask()
            .place(Place::Group);
        bench.run(&spec)
    })?;
    Ok(Mmdebstrap {
        fetched: Some(fetched),
    })
}

/// Asks before anything on this machine is changed.
fn install_uidmap() -> Result<()> {
    let by_hand = format!(
        "newuidmap is missing: install it with `sudo {INSTALL_UIDMAP}`, or run the lab as root"
    );
    let wanted = on_path("apt-get")
        && on_path("sudo")
        && ui::agreed(&format!(
            "an ordinary user's set-up needs the package uidmap; install it with `sudo {INSTALL_UIDMAP}`?"
        ));
    anyhow::ensure!(wanted, "{by_hand}");
    // sudo may ask for a password: the terminal is its own meanwhile.
    let installed = ui::aside(|| {
        std::process::Command::new("sudo")
            .args(INSTALL_UIDMAP.split_whitespace())
            .status()
    });
    anyhow::ensure!(
        installed.is_ok_and(|status| status.success()) && on_path("newuidmap"),
        "{by_hand}"
    );
    Ok(())
}

impl Mmdebstrap {
    /// The program, in an environment of its own.
    pub fn spec(&self) -> Spec {
        let spec = match &self.fetched {
            None => Spec::new(STAGE),
            Some(entry) => fetched_spec(&entry.join("root")),
        };
        spec.environment(Environment::Little)
            .env("LC_ALL", "C.UTF-8")
            .usual_umask()
    }

    /// Removes a scratch directory: of an ordinary user's, files belong to subordinate ids, so it takes mmdebstrap's help.
    pub fn remove(&self, dir: &Path) {
        if !nix::unistd::geteuid().is_root() {
            let helper = self.spec().args(["--unshare-helper", "rm", "-rf"]).arg(dir);
            let _ = crate::child::output(&helper.place(Place::Group));
        }
        let _ = crate::cache::remove(dir);
    }
}

fn fetched_spec(root: &Path) -> Spec {
    // Perl's directories are called like its versions.
    let is_version = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|c: char| c.is_ascii_digit())
    };
    let compiled = Path::new("usr/lib").join(Arch::host().gnu()).join("perl");
    let dirs = [Path::new("usr/share/perl"), &compiled]
        .into_iter()
        .flat_map(|dir| crate::cache::entries(&root.join(dir)))
        .filter(is_version)
        .chain([root.join("usr/share/perl5")]);
    // No directory of a cache has a colon in its name.
    let perl5lib = std::env::join_paths(dirs).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [root.join("usr/bin")]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let spec = Spec::new("perl")
        .arg(root.join("usr/bin").join(STAGE))
        .env("PERL5LIB", perl5lib)
        .env("PATH", std::env::join_paths(path).unwrap_or_default());
    let keyring = KEYRINGS.map(|keyring| root.join(keyring));
    let keyring = keyring.iter().find(|keyring| keyring.is_file());
    match keyring {
        Some(keyring) => spec.arg(format!("--keyring={}", keyring.display())),
        None => spec,
    }
}

/// Where mmdebstrap keeps its own files, in $TMPDIR; what interrupted ones left there is removed first.
pub fn scratch(tool: &Mmdebstrap) -> Result<Scratch> {
    let base = std::env::temp_dir();
    for left in scratch::left_behind(&base, |kind| kind == scratch::Kind::Debian, GRACE) {
        tool.remove(&left.path);
    }
    if !nix::unistd::geteuid().is_root() {
        if let Some(closed) = closed_to_others(&base) {
            anyhow::bail!(
                "an ordinary user's tree is made by subordinate ids, which cannot enter {}: set TMPDIR to a folder that all may enter, with {} free",
                closed.display(),
                ui::bytes(SCRATCH_BYTES)
            );
        }
        enough_room_in(
            &base,
            "an ordinary user's first set-up",
            SCRATCH_BYTES,
            "TMPDIR",
        )?;
    }
    let scratch = Scratch::in_dir(&base, scratch::Kind::Debian)?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o1777))?;
    Ok(scratch)
}

/// The first directory on the way to this one that others may not enter.
fn closed_to_others(dir: &Path) -> Option<&Path> {
    let is_open = |dir: &Path| {
        dir.metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    };
    dir.ancestors()
        .find(|dir| !dir.as_os_str().is_empty() && !is_open(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_one_brings_perls_modules_and_debians_keys() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "usr/share/perl/5.36/x",
            "usr/share/perl/cross-config-5.36/x",
            KEYRINGS[0],
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let said = fetched_spec(root.path()).shell();
        let root = root.path().display();
        assert!(
            said.contains(&format!(
                "PERL5LIB={root}/usr/share/perl/5.36:{root}/usr/share/perl5 "
            )),
            "{said}"
        );
        assert!(
            said.contains(&format!(
                " perl {root}/usr/bin/mmdebstrap '--keyring={root}/{}'",
                KEYRINGS[0]
            )),
            "{said}"
        );
    }

    #[test]
    fn a_folder_below_a_private_one_is_closed_to_others() {
        let private = tempfile::tempdir().unwrap();
        fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let below = private.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(closed_to_others(&below), Some(private.path()));
        assert_eq!(closed_to_others(Path::new("/usr/bin")), None);
    }
}
