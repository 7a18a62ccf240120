// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--gdb`: a script by which gdb debugs the guest's kernel and driver, with the symbols of both.
//!
//! gdb talks to QEMU through a socket in the directory of the run, where no other user comes; the script and the kernel's symbols are beside it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::config::Paths;
use super::machine::Machine;
use super::rundir::RunDir;
use crate::stages::Arch;
use crate::stages::guest::SYMBOLS;
use crate::symbols;
use crate::ui;

/// The name of the socket.
pub const SOCKET: &str = "gdb";
const SCRIPT: &str = "start.gdb";
const KERNEL: &str = "kernel.elf";
const MODULE: &str = "globalfifo.ko";
/// Sections that say where the rest of a module is; what is only for its start is gone by then.
const SECTIONS: [&str; 4] = [".text", ".data", ".bss", ".rodata"];
const ADDRESSES: &str = "cd /sys/module/globalfifo/sections 2>/dev/null || exit 0; for s in .*; do [ -f $s ] && echo $s $(cat $s); done; true";
const KALLSYMS: &str = "cat /proc/kallsyms";

/// Makes the script for a machine that is up, and tells how to use it.
pub fn prepare(machine: &Machine, paths: &Paths, arch: Arch, limit: Duration) -> Result<()> {
    let kallsyms = machine.ask(KALLSYMS, limit)?;
    let (file, count) = symbols::of(&kallsyms, arch.elf_machine());
    anyhow::ensure!(count > 0, "the guest's kernel tells no addresses");
    let dir = machine.run.path();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    write(KERNEL, &file)?;
    let addresses = machine.ask(ADDRESSES, limit)?;
    let module = module(&paths.guest).filter(|_| !addresses.is_empty());
    if let Some(module) = &module {
        std::os::unix::fs::symlink(module, dir.join(MODULE)).context("cannot link the module")?;
    }
    write(
        SCRIPT,
        script(arch, module.is_some().then_some(addresses.as_str())).as_bytes(),
    )?;
    ui::say(&format!(
        "to debug the guest: cd {} && {} -x {SCRIPT}",
        shell_words::quote(&dir.to_string_lossy()),
        // Debian's gdb knows this machine's architecture alone.
        if arch.is_foreign() {
            "gdb-multiarch"
        } else {
            "gdb"
        }
    ));
    Ok(())
}

/// Where gdb finds the guest's CPUs.
pub fn socket(run: &RunDir) -> PathBuf {
    run.socket(SOCKET)
}

/// The module that the guest has loaded, with its debugging information.
fn module(guest: &Path) -> Option<PathBuf> {
    let module = guest.join(SYMBOLS).join(MODULE);
    module.is_file().then_some(module)
}

/// gdb's commands, for the directory of the run.
fn script(arch: Arch, addresses: Option<&str>) -> String {
    let arch = match arch {
        Arch::X86_64 => "i386:x86-64",
        Arch::Arm64 => "aarch64",
    };
    let mut script = format!("set confirm off\nset architecture {arch}\nsymbol-file {KERNEL}\n");
    if let Some(addresses) = addresses {
        script.push_str(&format!("add-symbol-file {MODULE}"));
        for line in addresses.lines() {
            if let Some((section, address)) = line.split_once(' ')
                && SECTIONS.contains(&section)
            {
                script.push_str(&format!(" -s {section} {address}"));
            }
        }
        script.push('\n');
    }
    script.push_str(&format!("target remote {SOCKET}.sock\nset confirm on\n"));
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_the_modules_sections_and_the_socket_last() {
        let said = script(
            Arch::X86_64,
            Some(".text 0x10\n.init.text 0x20\n.bss 0x30\n"),
        );
        assert!(
            said.contains("add-symbol-file globalfifo.ko -s .text 0x10 -s .bss 0x30\n"),
            "{said}"
        );
        assert!(said.contains("target remote gdb.sock\n"));
        assert!(!script(Arch::Arm64, None).contains("add-symbol-file"));
    }
}
