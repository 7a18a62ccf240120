// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Architectures: the names of each in Debian, the kernel, the GNU tools, rustc and QEMU, and which of them this machine has.
//!
//! Names and constants only. It must not know how anything is made of them.

use clap::ValueEnum;

/// `--arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// x86-64.
    #[value(name = "x86-64", aliases = ["x86_64", "amd64"])]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

/// How many times slower an emulated guest of another architecture is at most than one of this machine's: arm64's exceptions and its
/// interrupt controller take QEMU longer.
const FOREIGN_SLOWDOWN: u32 = 2;

impl Default for Arch {
    /// This machine's.
    fn default() -> Self {
        Self::host()
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.name())
    }
}

impl Arch {
    /// This machine's. `cargo lab doctor` says so if the lab does not know it.
    pub fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Arm64
        } else {
            Self::X86_64
        }
    }

    /// Whether this machine's tools are not for it, and its CPUs cannot run it.
    pub fn is_foreign(self) -> bool {
        self != Self::host()
    }

    /// How many times slower a guest of it is at most.
    pub fn slowdown(self) -> u32 {
        if self.is_foreign() {
            FOREIGN_SLOWDOWN
        } else {
            1
        }
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        }
    }

    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's (make's ARCH).
    pub fn kernel(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The GNU tools', and of Debian's folders of libraries.
    pub fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// rustc's.
    pub fn rust(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What a tool of binutils or gcc for it is called by the tree's names: `gcc` where it is this machine's.
    pub fn tool(self, name: &str) -> String {
        if self.is_foreign() {
            format!("{}-{name}", self.gnu())
        } else {
            name.to_owned()
        }
    }

    /// make's variables by which the kernel's build makes something for it; it reads them from the environment as well.
    pub fn make_variables(self) -> Vec<(&'static str, String)> {
        if self.is_foreign() {
            vec![
                ("ARCH", self.kernel().to_owned()),
                ("CROSS_COMPILE", format!("{}-", self.gnu())),
            ]
        } else {
            Vec::new()
        }
    }

    /// QEMU's program, in the tree.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/bin/qemu-system-x86_64",
            Self::Arm64 => "usr/bin/qemu-system-aarch64",
        }
    }

    /// The loader of programs, in the tree.
    pub fn loader(self) -> &'static str {
        match self {
            Self::X86_64 => "lib64/ld-linux-x86-64.so.2",
            Self::Arm64 => "lib/ld-linux-aarch64.so.1",
        }
    }

    /// Where a built kernel's image is that QEMU starts, and make's name for it.
    pub fn image(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("arch/x86/boot/bzImage", "bzImage"),
            Self::Arm64 => ("arch/arm64/boot/Image", "Image"),
        }
    }

    /// What the kernel needs built in for its board: the driver of the first serial line, and the PCI bus.
    pub fn built_in(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["SERIAL_8250_CONSOLE"],
            Self::Arm64 => &["SERIAL_AMBA_PL011_CONSOLE", "PCI_HOST_GENERIC"],
        }
    }

    /// The option of the kernel's configuration that says that it is for it.
    pub fn option(self) -> &'static str {
        match self {
            Self::X86_64 => "X86_64",
            Self::Arm64 => "ARM64",
        }
    }

    /// The number by which an ELF file says that it is for it (e_machine).
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Arm64 => 183,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_architecture_is_that_of_this_machine_and_needs_no_cross_compiler() {
        let host = Arch::default();
        assert!(host.rust().starts_with(std::env::consts::ARCH));
        assert_eq!(host.tool("gcc"), "gcc");
        assert_eq!(host.make_variables(), []);
        assert_eq!(host.slowdown(), 1);
    }

    #[test]
    fn names_of_others_are_understood() {
        for (text, arch) in [
            ("arm64", Arch::Arm64),
            ("aarch64", Arch::Arm64),
            ("x86_64", Arch::X86_64),
            ("amd64", Arch::X86_64),
            ("x86-64", Arch::X86_64),
        ] {
            assert_eq!(Arch::from_str(text, false), Ok(arch), "{text}");
        }
        assert!(Arch::from_str("riscv64", false).is_err());
    }
}
