// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the lab adds to the guest's file system: the init scripts, and over the Debian tree the kernel's modules with our driver among them,
//! its udev rule, the agent and the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::KernelChoice;
use super::PathOrEntry;
use super::early;
use super::kernel::Kernel;
use super::module;
use super::programs::Programs;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "guest";
/// Where the guest finds the lab's programs.
pub const HOME: &str = "opt/globalfifo";
/// Changed when the same files are put together differently.
const FORM: &str = "3";
/// Where an entry keeps the module that is loaded with its debugging information, for gdb.
pub const SYMBOLS: &str = "symbols";
/// In [`HOME`], the name of the module that is to be loaded.
const DRIVER: &str = "driver";

/// The share "lab".
#[derive(Debug)]
pub struct Guest {
    /// The entry: init, root/, and the archive of `early`.
    pub entry: Entry,
}

impl Guest {
    /// Names of the guest's programs, sorted.
    pub fn programs(&self) -> Result<Vec<String>> {
        let dir = self.entry.join("root").join(HOME).join("bin");
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// What it is made from.
pub fn key(
    shop: &Shop,
    kernel: KernelChoice,
    module: Option<&Path>,
    agent: &Path,
    programs: Option<&Path>,
) -> Result<Key> {
    let mut key = KeyBuilder::new(STAGE);
    if shop.arch.is_foreign() {
        key = key.field("userland", &super::userland::key(shop).id);
    }
    let key = key
        .field("kernel", &super::kernel_key(shop, kernel)?.id)
        .file("init", &shop.repository.join("images/init"))?
        .file("start", &shop.repository.join("images/start"))?
        .field("form", FORM)
        .file("rtcwake", &shop.repository.join("images/rtcwake"))?
        .file("rules", &module::rules(&shop.repository))?
        .file("agent", agent)?
        .field(
            "programs",
            &programs.unwrap_or(Path::new("none")).display().to_string(),
        );
    match module {
        Some(path) => Ok(key.file("module", path)?.finish()),
        None => Ok(key.finish()),
    }
}

/// Puts it together.
pub fn obtain(
    shop: &Shop,
    (tree, userland): (&Entry, &Path),
    kernel: &Kernel,
    choice: KernelChoice,
    module: &PathOrEntry,
    programs: &Programs,
) -> Result<Guest> {
    let key = key(
        shop,
        choice,
        module.path().as_deref(),
        &programs.agent(),
        programs.guest(),
    )?;
    let entry = shop.obtain(STAGE, &key, "putting the guest's files together", |bench| {
        let root = bench.dir.join("root");
        put_kernel_modules(&root, kernel, module)?;
        strip(shop, tree, kernel, bench)?;
        // Where kmod looks for modules, in the tree as here.
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
        put_programs(&root.join(HOME), programs)?;
        install(
            &shop.repository.join("images/init"),
            &bench.dir.join("init"),
            0o755,
        )?;
        install(
            &shop.repository.join("images/start"),
            &root.join(HOME).join("start"),
            0o755,
        )?;
        install(
            &shop.repository.join("images/rtcwake"),
            &root.join("usr/local/sbin/rtcwake"),
            0o755,
        )?;
        install(
            &module::rules(&shop.repository),
            &root.join("etc/udev/rules.d/99-globalfifo.rules"),
            0o644,
        )?;
        depmod(shop, tree, kernel, bench)?;
        early::pack(shop, (tree, userland), kernel, bench)
    })?;
    Ok(Guest { entry })
}

fn put_kernel_modules(root: &Path, kernel: &Kernel, module: &PathOrEntry) -> Result<()> {
    let from = kernel.entry.join("modules").join(&kernel.release);
    let to = root.join("usr/lib/modules").join(&kernel.release);
    for path in crate::key::files(&from)? {
        let relative = path.strip_prefix(&from).unwrap_or(&path);
        if !path.is_symlink() {
            install(&path, &to.join(relative), 0o644)?;
        }
    }
    let Some(path) = module.path() else {
        return Ok(());
    };
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = module_name(&bytes).unwrap_or_else(|| stem.replace('-', "_"));
    install(&path, &to.join(format!("updates/{name}.ko")), 0o644)?;
    let home = root.join(HOME);
    crate::cache::create_dirs(&home)?;
    Ok(fs::write(home.join(DRIVER), name + "\n")?)
}

/// Takes the debugging information from the module that is to be loaded, nine tenths of it: the kernel reads a file whole. gdb gets a copy that has it.
fn strip(shop: &Shop, tree: &Entry, kernel: &Kernel, bench: &mut Bench<'_>) -> Result<()> {
    let updates = Path::new("root/usr/lib/modules")
        .join(&kernel.release)
        .join("updates");
    for module in crate::cache::entries(&bench.dir.join(&updates)) {
        let name = module.file_name().unwrap_or_default();
        install(&module, &bench.dir.join(SYMBOLS).join(name), 0o644)?;
        let view = shop.view(tree.path(), bench.dir);
        let strip = tool_spec(&view, &shop.arch.tool("strip")).arg("--strip-debug");
        bench.run(&strip.arg(Path::new(WORK).join(&updates).join(name)))?;
    }
    Ok(())
}

/// What a module calls itself, whatever its file is called: `name=` among its strings of information.
fn module_name(module: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\0name=";
    let starts = module.windows(KEY.len()).enumerate();
    let starts = starts
        .filter(|(_, window)| *window == KEY)
        .map(|(at, _)| at + KEY.len());
    starts
        .filter_map(|at| module.get(at..)?.split(|byte| *byte == 0).next())
        .filter_map(|name| std::str::from_utf8(name).ok())
        .find(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .map(str::to_owned)
}

fn put_programs(home: &Path, programs: &Programs) -> Result<()> {
    crate::cache::create_dirs(&home.join("bin"))?;
    for path in programs
        .guest()
        .map(crate::cache::entries)
        .unwrap_or_default()
    {
        let name = path.file_name().unwrap_or_default();
        if !name.to_string_lossy().starts_with('.') {
            install(&path, &home.join("bin").join(name), 0o755)?;
        }
    }
    install(&programs.agent(), &home.join("agent"), 0o755)
}

fn depmod(shop: &Shop, tree: &Entry, kernel: &Kernel, bench: &mut Bench<'_>) -> Result<()> {
    let view = shop.view(tree.path(), bench.dir);
    bench.run(
        &tool_spec(&view, "depmod")
            .arg("-b")
            .arg(format!("{WORK}/root"))
            .arg(&kernel.release),
    )
}

/// Copies a file, with the folders that it needs.
pub fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = to.parent() {
        crate::cache::create_dirs(parent)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_goes_by_the_name_that_it_gives_itself() {
        let module = b"\x7fELF..license=GPL\0parm=x\0name=my_fifo\0vermagic=7.3\0";
        assert_eq!(module_name(module).as_deref(), Some("my_fifo"));
        assert_eq!(module_name(b"\0name=../x\0"), None);
        assert_eq!(module_name(b"filename=x\0"), None);
    }
}
