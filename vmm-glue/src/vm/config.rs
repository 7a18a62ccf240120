// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a machine is to be, free of how it is started.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::child::Spec;
use crate::stages::Arch;
use crate::stages::Ready;
use crate::stages::System;
use crate::stages::early;
use crate::stages::image;
use crate::stages::layer;
use crate::stages::ram;

/// What the user may choose.
#[derive(Debug, Clone)]
pub struct Config {
    /// CPUs.
    pub smp: u8,
    /// Memory, as QEMU writes it.
    pub mem: String,
    /// How the CPUs are made.
    pub accel: AccelChoice,
    /// FIFO specifications, for the daemon.
    pub fifos: Vec<String>,
    /// What goes wrong on demand, for the daemon.
    pub faults: Vec<String>,
    /// Default capacity, for the daemon.
    pub capacity: Option<String>,
    /// FIFO specifications of a second device, with a daemon of its own that has no faults. Without any there is none.
    pub second: Vec<String>,
    /// Further devices of one loopback FIFO each, with daemons of their own. They share the machine's interrupt lines.
    pub further: u8,
    /// Where the daemon's control socket is to be; without it, in the directory of the run.
    pub control: Option<PathBuf>,
    /// Size of each virtqueue.
    pub vq_size: u16,
    /// The guest's kernel, edition of the driver, root.
    pub system: System,
    /// Folders of the host.
    pub shares: Vec<Share>,
    /// A QEMU of the host's instead of the tree's.
    pub qemu: Option<PathBuf>,
    /// Added to QEMU's command line.
    pub qemu_args: Vec<OsString>,
    /// Which driver is loaded.
    pub driver: Load,
    /// The driver's parameters, each NAME=VALUE.
    pub driver_args: Vec<String>,
    /// Whether the device is attached.
    pub device: bool,
    /// Words added to the kernel's command line.
    pub append: Vec<String>,
    /// Where the console is kept instead of in the directory of the run.
    pub console: Option<PathBuf>,
    /// Show the console while the machine runs.
    pub verbose: bool,
    /// Whether the guest has a network.
    pub net: bool,
    /// Whether gdb can debug the guest's kernel.
    pub gdb: bool,
    /// Whether the lab can make a kernel that hangs say where it is: its last words.
    pub interruptible: bool,
    /// How long the machine stays without a command; without it, it is there for one command and dies with the lab.
    pub stays: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            smp: 1,
            mem: "1G".to_owned(),
            accel: AccelChoice::Auto,
            fifos: Vec::new(),
            faults: Vec::new(),
            capacity: None,
            second: Vec::new(),
            further: 0,
            control: None,
            vq_size: 256,
            system: System::default(),
            shares: Vec::new(),
            qemu: None,
            qemu_args: Vec::new(),
            driver: Load::Ours,
            driver_args: Vec::new(),
            device: true,
            append: Vec::new(),
            console: None,
            verbose: false,
            net: false,
            gdb: false,
            interruptible: false,
            stays: None,
        }
    }
}

/// Which driver the guest loads while it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// None.
    None,
    /// Ours: if it does not load, the machine is up all the same, and that is told.
    Ours,
    /// The user's: if it does not load, the machine is of no use. One that makes no node gets one.
    Theirs,
}

impl Config {
    /// Whether the guest takes any number of commands.
    pub fn takes_commands(&self) -> bool {
        self.stays.is_some() || self.gdb
    }

    /// Where a guest's command starts.
    pub fn cwd(&self) -> String {
        self.shares
            .first()
            .map_or_else(|| "/root".to_owned(), Share::path)
    }
}

/// `--accel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccelChoice {
    /// KVM where it can run a guest, else TCG.
    Auto,
    /// The host's CPUs.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// On the host, absolute.
    pub dir: PathBuf,
    /// Its name below /mnt.
    pub name: String,
    /// Forbid writing.
    pub read_only: bool,
}

impl Share {
    /// In the guest.
    pub fn path(&self) -> String {
        format!("/mnt/{}", self.name)
    }
}

/// Where everything lies that a machine is started from.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The Debian tree.
    pub tree: PathBuf,
    /// Tools for another architecture, which lie over it.
    pub cross: Option<PathBuf>,
    /// The guest's userland: the tree, unless that is for another architecture.
    pub root: PathBuf,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// Share with the lab's own files.
    pub guest: PathBuf,
    /// Share with added packages.
    pub layer: Option<PathBuf>,
    /// Archive of the userland for a root in RAM.
    pub ram: Option<PathBuf>,
    /// The daemon.
    pub daemon: PathBuf,
}

impl Paths {
    /// After set-up.
    pub fn new(ready: &Ready) -> Self {
        Self {
            tree: ready.tree.path().to_owned(),
            cross: ready.cross.as_ref().map(|cross| cross.join(layer::UPPER)),
            root: ready.root(),
            kernel: image::path(ready.image.path(), ready.ram.is_some()),
            guest: ready.guest.entry.path().to_owned(),
            layer: ready.layer.as_ref().map(|layer| layer.path().to_owned()),
            ram: ready.ram.as_ref().map(|ram| ram.join(ram::ARCHIVE)),
            daemon: ready.programs.daemon(),
        }
    }

    /// What the kernel unpacks at its start, unless the root is in RAM.
    pub fn initramfs(&self) -> PathBuf {
        self.guest.join(early::ARCHIVE)
    }

    /// The directories that make up the guest's root, the topmost first.
    pub fn trees(&self) -> Vec<PathBuf> {
        let layer = self.layer.as_ref().map(|layer| layer.join(layer::UPPER));
        layer.into_iter().chain([self.root.clone()]).collect()
    }

    /// Nothing has been set up.
    pub fn none() -> Self {
        let none = PathBuf::new();
        Self {
            tree: none.clone(),
            cross: None,
            root: none.clone(),
            kernel: none.clone(),
            guest: none.clone(),
            layer: None,
            ram: None,
            daemon: none,
        }
    }

    /// A program of the tree: through the tree's own loader, so that it finds its own libraries without any privilege.
    pub fn tool(&self, program: &str) -> Spec {
        let host = Arch::host();
        let libraries = Path::new("usr/lib").join(host.gnu());
        let folders = [Some(&self.tree), self.cross.as_ref()];
        let folders: Vec<_> = folders
            .into_iter()
            .flatten()
            .map(|root| root.join(&libraries).into_os_string())
            .collect();
        Spec::new(self.tree.join(host.loader()))
            .arg("--library-path")
            // No directory of a cache has a colon in its name.
            .arg(folders.join(OsStr::new(":")))
            .arg(self.find(program))
            .without_loader_variables()
    }

    /// A file of the tools', in the tree or among those for another architecture.
    pub fn find(&self, path: &str) -> PathBuf {
        let cross = self.cross.iter().map(|cross| cross.join(path));
        cross
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| self.tree.join(path))
    }
}

/// The folder's last name, or "root" for one that has none.
pub fn share_name(dir: &Path) -> String {
    dir.file_name().map_or_else(
        || "root".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
