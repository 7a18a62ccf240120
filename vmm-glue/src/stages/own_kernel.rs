// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel that the user has built (`--kernel PATH`): what of it boots is copied into the cache; modules are built against the folder itself,
//! which is only read.
//!
//! It must not know how a kernel is built.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;

use super::arch::Arch;
use super::guest::install;
use super::image;
use super::kernel;
use super::kernel::Kernel;
use super::kernel::Own;
use super::kernel::PLACE;
use super::layer;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::exit::usage;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "own-kernel";
/// Changed when an entry is made differently.
const FORM: &str = "1";
/// The release, once the kernel has been built.
const RELEASE: &str = "include/config/kernel.release";
/// The image as it was linked.
const VMLINUX: &str = "vmlinux";
/// Compiled metadata of the kernel's Rust crate, which a module in Rust is built against.
const RUST: &str = "rust/libkernel.rmeta";
/// What a module is built with, besides the image: a path, and the command that makes it.
const PARTS: [(&str, &str); 4] = [
    (".config", "make olddefconfig"),
    (RELEASE, "make modules_prepare"),
    ("scripts/mod/modpost", "make modules_prepare"),
    ("Module.symvers", "make"),
];
/// What the guest needs before it can load a module, beside the driver of its console.
const BUILT_IN: [&str; 9] = [
    "64BIT",
    "MODULES",
    "BLK_DEV_INITRD",
    "DEVTMPFS",
    "TMPFS",
    "UNIX",
    "VIRTIO_PCI",
    "VIRTIO_CONSOLE",
    "VIRTIO_FS",
];

/// What can be seen of it.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnKernel {
    /// The folder that it was built in, without links.
    dir: PathBuf,
    /// What it runs on.
    pub arch: Arch,
    /// As `uname -r` will say it.
    release: String,
    /// KASAN is in it.
    pub has_kasan: bool,
    /// Checkers are in it that make it several times slower.
    pub is_checked: bool,
    /// It has PREEMPT_RT.
    pub is_rt: bool,
    /// The major version of the clang that compiled it, unless it was gcc.
    clang: Option<u32>,
    /// The compiler of its Rust parts, if it has any: "1.85.1".
    rustc: Option<String>,
}

impl OwnKernel {
    /// Looks at a folder; an error says what it lacks and how to get it.
    pub fn look(dir: &Path) -> Result<Self, String> {
        let dir = dir
            .canonicalize()
            .ok()
            .filter(|dir| dir.is_dir())
            .ok_or("there is no such folder")?;
        if dir.to_str().is_none_or(|path| path.contains(':')) {
            return Err("a kernel's folder cannot have a colon in its path, nor bytes that are not UTF-8: make takes neither".to_owned());
        }
        for (part, command) in PARTS {
            if !dir.join(part).exists() {
                return Err(format!(
                    "no kernel has been built in it: there is no {part}, which `{command}` in it makes"
                ));
            }
        }
        let read = |part: &str| {
            fs::read_to_string(dir.join(part)).map_err(|err| format!("cannot read {part}: {err}"))
        };
        let config = read(".config")?;
        let has = |option: &str| value(&config, option) == Some("y");
        let mut known = Arch::value_variants().iter();
        let arch = *known
            .find(|arch| has(arch.option()))
            .ok_or("it is for another architecture than x86-64 and arm64")?;
        if image(&dir, arch).is_none() {
            let (path, goal) = arch.image();
            let or = match arch {
                Arch::X86_64 => format!(", nor {VMLINUX}"),
                Arch::Arm64 => String::new(),
            };
            return Err(format!(
                "it has no image: not {path}, which `make {goal}` in it makes{or}"
            ));
        }
        let lacks = lacks(&config, arch);
        if !lacks.is_empty() {
            return Err(format!(
                "its .config lacks what the guest needs from the start: {}; set that and build it again",
                lacks.join(", ")
            ));
        }
        let release = read(RELEASE)?.trim().to_owned();
        let number = |option: &str| value(&config, option)?.parse::<u32>().ok();
        Ok(Self {
            arch,
            release,
            has_kasan: has("KASAN"),
            is_checked: ["KASAN", "PROVE_LOCKING", "DEBUG_KMEMLEAK"]
                .into_iter()
                .any(has),
            is_rt: has("PREEMPT_RT"),
            clang: has("CC_IS_CLANG").then(|| number("CLANG_VERSION").unwrap_or_default() / 10_000),
            rustc: number("RUSTC_VERSION").filter(|_| has("RUST")).map(dotted),
            dir,
        })
    }

    /// What the user may call it.
    pub fn name(&self) -> &str {
        self.dir.to_str().unwrap_or_default()
    }
}

/// 108501 → "1.85.1".
fn dotted(version: u32) -> String {
    format!(
        "{}.{}.{}",
        version / 100_000,
        version / 100 % 1000,
        version % 100
    )
}

/// An option's value in a configuration; none if it is off.
fn value<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    config.lines().find_map(|line| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        (name == option).then_some(value)
    })
}

/// What a configuration lacks of what the guest needs from the start.
pub fn lacks(config: &str, arch: Arch) -> Vec<String> {
    let built_in = BUILT_IN
        .iter()
        .chain(arch.built_in())
        .filter(|option| value(config, option) != Some("y"))
        .map(|option| format!("CONFIG_{option}=y"));
    let overlay = value(config, "OVERLAY_FS").is_none();
    built_in
        .chain(overlay.then(|| "CONFIG_OVERLAY_FS=y or m".to_owned()))
        .collect()
}

/// The image: the compressed one rather than the other, which may have half a gigabyte of debugging information.
fn image(dir: &Path, arch: Arch) -> Option<PathBuf> {
    // Of arm64's, QEMU starts no other than that.
    let linked = (arch == Arch::X86_64).then_some(VMLINUX);
    [Some(arch.image().0), linked]
        .into_iter()
        .flatten()
        .map(|part| dir.join(part))
        .find(|path| path.is_file())
}

/// What it is made from: large files count by size and time.
pub fn key(shop: &Shop, own: &OwnKernel) -> Result<Key> {
    let mut key = KeyBuilder::new(STAGE)
        .field("form", FORM)
        .field("tree", &super::tree::key(shop).id)
        .field("folder", own.name())
        .field("release", &own.release)
        .file("config", &own.dir.join(".config"))?
        .file("symbols", &own.dir.join("Module.symvers"))?;
    for part in [own.arch.image().0, VMLINUX, RUST, "modules.order"] {
        if let Ok(meta) = own.dir.join(part).metadata() {
            let stamp = format!("{} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec());
            key = key.field(part, &stamp);
        }
    }
    Ok(key.finish())
}

/// What boots of it.
pub fn obtain(shop: &Shop, tree: &Entry, own: &OwnKernel) -> Result<Kernel> {
    let makefile = fs::read_to_string(own.dir.join("Makefile"))
        .with_context(|| format!("cannot read the Makefile of {}", own.name()))?;
    let places = places(&own.dir, &makefile).map_err(|why| wrong(own, &why))?;
    let (compiler, make) = compiler(shop, tree, own)?;
    let what = format!("taking what boots from {}", own.name());
    let entry = shop.obtain(STAGE, &key(shop, own)?, &what, |bench| {
        take(shop, tree, own, bench)
    })?;
    Ok(Kernel {
        entry,
        release: own.release.clone(),
        built: None,
        own: Some(Own {
            build: own.dir.clone(),
            places,
            compiler,
            make,
        }),
        cross: kernel::cross_variables(shop),
    })
}

/// An error about the folder.
fn wrong(own: &OwnKernel, why: &str) -> anyhow::Error {
    usage(format!("--kernel {}: {why}", own.name()))
}

/// Where the tree's tools must see its folders: a kernel that was built outside its source remembers both paths in its makefile.
fn places(dir: &Path, makefile: &str) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let after = |start: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(start));
        line.map(|rest| PathBuf::from(rest.trim()))
    };
    let Some(output) = after("export KBUILD_OUTPUT =") else {
        return Ok(Vec::new());
    };
    let source = after("include ")
        .and_then(|makefile| Some(makefile.parent()?.to_owned()))
        .filter(|source| source.is_absolute())
        .ok_or("its Makefile does not say where the source is; build it with a plain `make O=`")?;
    let there = [source.clone(), dir.join("source")]
        .into_iter()
        .find_map(|source| {
            let source = source.canonicalize().ok()?;
            source.join("Makefile").is_file().then_some(source)
        })
        .ok_or_else(|| format!("its source, {}, is not there", source.display()))?;
    let mut places = vec![(there, source)];
    if output != Path::new(PLACE).join("build") {
        places.push((dir.to_owned(), output));
    }
    Ok(places)
}

/// The layer with its compiler and make's variables that name it.
fn compiler(shop: &Shop, tree: &Entry, own: &OwnKernel) -> Result<(Option<Entry>, Vec<String>)> {
    let Some(version) = own.clang else {
        return Ok((None, Vec::new()));
    };
    let recipe = &shop.recipe.debug;
    if !recipe.packages.contains(&format!("clang-{version}")) {
        return Err(wrong(
            own,
            &format!(
                "clang {version} has compiled it, and modules need the same; the lab has gcc and {}",
                recipe.packages.join(" ")
            ),
        ));
    }
    let layer = layer::obtain(
        shop,
        tree,
        super::debug::COMPILER_STAGE,
        &recipe.packages,
        "modules for your kernel",
    )?;
    Ok((Some(layer), recipe.make.clone()))
}

/// Whether the tree's rustc can build a module in Rust for it: metadata are of one version only.
pub fn takes_rust(shop: &Shop, tree: &Entry, own: &OwnKernel) -> Result<()> {
    let Some(theirs) = &own.rustc else {
        return Err(wrong(
            own,
            "it has no CONFIG_RUST=y, which our driver needs; load another with --driver PATH, or none with --driver none",
        ));
    };
    let view = shop.view(tree.path(), tree.path());
    let said = crate::child::output(&tool_spec(&view, "rustc").arg("--version"))?;
    let ours = said.split_whitespace().nth(1).unwrap_or_default();
    if ours == theirs {
        return Ok(());
    }
    Err(wrong(
        own,
        &format!(
            "rustc {theirs} has compiled its Rust parts, and our driver needs the same; the lab has {ours}: build it with that, or load a driver in C with --driver PATH"
        ),
    ))
}

fn take(shop: &Shop, tree: &Entry, own: &OwnKernel, bench: &mut Bench<'_>) -> Result<()> {
    fs::write(bench.dir.join("release"), &own.release)?;
    let from = image(&own.dir, own.arch).context("the kernel's image has gone")?;
    let to = bench.dir.join(kernel::IMAGE);
    install(&from, &to, 0o644)?;
    let view = shop.view(tree.path(), bench.dir);
    let strip = tool_spec(&view, &shop.arch.tool("strip")).arg("--strip-debug");
    if from.ends_with(VMLINUX) {
        bench.run(&strip.clone().arg(Path::new(WORK).join(kernel::IMAGE)))?;
        if !image::can_be_entered(&fs::read(&to)?) {
            return Err(wrong(
                own,
                "QEMU cannot start its vmlinux, which lacks CONFIG_PVH=y; `make bzImage` in it makes an image that it can",
            ));
        }
    }
    let modules = Path::new("modules").join(&own.release);
    crate::cache::create_dirs(&bench.dir.join(&modules))?;
    for list in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        if own.dir.join(list).is_file() {
            install(
                &own.dir.join(list),
                &bench.dir.join(&modules).join(list),
                0o644,
            )?;
        }
    }
    let order = fs::read_to_string(own.dir.join("modules.order")).unwrap_or_default();
    let mut paths = Vec::new();
    for object in order.lines() {
        let module = Path::new(object).with_extension("ko");
        if own.dir.join(&module).is_file() {
            let path = modules.join("kernel").join(&module);
            install(&own.dir.join(&module), &bench.dir.join(&path), 0o644)?;
            paths.push(Path::new(WORK).join(path));
        }
    }
    // A command line holds so many of their paths.
    for some in paths.chunks(500) {
        bench.run(&strip.clone().args(some))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in which everything is that is looked for.
    fn built() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut config: String = BUILT_IN
            .iter()
            .chain(Arch::X86_64.built_in())
            .chain([&Arch::X86_64.option()])
            .map(|option| format!("CONFIG_{option}=y\n"))
            .collect();
        config.push_str(
            "CONFIG_OVERLAY_FS=m\nCONFIG_RUST=y\nCONFIG_RUSTC_VERSION=108501\nCONFIG_CC_IS_CLANG=y\nCONFIG_CLANG_VERSION=190107\n",
        );
        for (part, text) in [
            (".config", config.as_str()),
            (RELEASE, "7.3.9-mine\n"),
            ("scripts/mod/modpost", ""),
            ("Module.symvers", ""),
            (Arch::X86_64.image().0, ""),
        ] {
            let path = dir.path().join(part);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_built_kernel_is_known_by_its_configuration() {
        let dir = built();
        let own = OwnKernel::look(dir.path()).unwrap();
        assert_eq!(own.release, "7.3.9-mine");
        assert_eq!(own.clang, Some(19));
        assert_eq!(own.rustc.as_deref(), Some("1.85.1"));
        assert!(!own.is_checked && !own.is_rt);
        let config = dir.path().join(".config");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + "CONFIG_KASAN=y\nCONFIG_PREEMPT_RT=y\n").unwrap();
        let own = OwnKernel::look(dir.path()).unwrap();
        assert!(own.is_checked && own.has_kasan && own.is_rt);
    }

    #[test]
    fn what_a_folder_lacks_is_named_with_what_makes_it() {
        for (part, command) in PARTS {
            let dir = built();
            fs::remove_file(dir.path().join(part)).unwrap();
            let said = OwnKernel::look(dir.path()).unwrap_err();
            assert!(said.contains(part) && said.contains(command), "{said}");
        }
        let dir = built();
        fs::remove_file(dir.path().join(Arch::X86_64.image().0)).unwrap();
        assert!(
            OwnKernel::look(dir.path())
                .unwrap_err()
                .contains("make bzImage")
        );
        fs::write(dir.path().join(VMLINUX), "").unwrap();
        assert!(OwnKernel::look(dir.path()).is_ok());
        fs::write(
            dir.path().join(".config"),
            "CONFIG_64BIT=y\nCONFIG_X86_64=y\nCONFIG_VIRTIO_FS=m\n",
        )
        .unwrap();
        let said = OwnKernel::look(dir.path()).unwrap_err();
        assert!(
            said.contains("CONFIG_VIRTIO_FS=y") && said.contains("OVERLAY_FS"),
            "{said}"
        );
        assert!(!said.contains("CONFIG_64BIT"), "{said}");
    }

    #[test]
    fn a_kernel_built_outside_its_source_is_seen_where_its_makefile_looks() {
        let dir = tempfile::tempdir().unwrap();
        let (source, build) = (dir.path().join("linux"), dir.path().join("build"));
        fs::create_dir(&source).unwrap();
        let text = |source: &Path, output: &str| {
            format!(
                "# Automatically generated\nexport KBUILD_OUTPUT = {output}\ninclude {}/Makefile\n",
                source.display()
            )
        };
        let said = places(&build, &text(&source, "/elsewhere")).unwrap_err();
        assert!(said.contains("is not there"), "{said}");
        fs::write(source.join("Makefile"), "").unwrap();
        let real = source.canonicalize().unwrap();
        assert_eq!(
            places(&build, &text(&source, "/elsewhere")).unwrap(),
            [
                (real.clone(), source.clone()),
                (build.clone(), "/elsewhere".into())
            ]
        );
        // Moved to this machine, with a link to the source.
        fs::create_dir(&build).unwrap();
        std::os::unix::fs::symlink(&source, build.join("source")).unwrap();
        assert_eq!(
            places(
                &build,
                &text(Path::new("/lab/kernel/source"), "/lab/kernel/build")
            )
            .unwrap(),
            [(real, "/lab/kernel/source".into())]
        );
        assert_eq!(places(&build, "VERSION = 7\nPATCHLEVEL = 3\n").unwrap(), []);
    }
}
