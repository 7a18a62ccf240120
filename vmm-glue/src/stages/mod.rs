// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Set-up: what is needed, in which order, each thing cached by what it is made from.
//!
//! ```text
//! tree ──► kernel ──► module ──┐        or: kernel ──► debug ──► module, or: rt kernel ──► module
//!      │       └──► image        │
//!      ├─► layer               ├──► guest
//!      └─► ram                 │
//! programs (daemon, guest) ────┘
//! ```
//! The stages know tools and files. They must not know how a machine is started.

pub mod arch;
pub mod archive;
pub mod choice;
pub mod cross;
pub mod debug;
pub mod device_bench;
pub mod early;
pub mod guest;
pub mod image;
pub mod installed;
pub mod kernel;
pub mod layer;
pub mod mmdebstrap;
pub mod module;
pub mod own;
pub mod own_kernel;
pub mod packages;
pub mod plan;
pub mod programs;
pub mod ram;
pub mod shop;
pub mod tree;
pub mod userland;
pub mod vsock;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Once;
use std::thread;

use anyhow::Context;
use anyhow::Result;

pub use self::arch::Arch;
pub use self::choice::Edition;
pub use self::choice::KernelChoice;
pub use self::choice::KernelParser;
pub use self::choice::Root;
pub use self::choice::System;
pub use self::choice::environment_of;
use self::guest::Guest;
use self::kernel::Flavour;
use self::kernel::Kernel;
use self::own::source::Source;
use self::programs::Need;
use self::programs::Programs;
use self::shop::Shop;
use crate::cache::Entry;
use crate::cancel;
use crate::key::Key;
use crate::ui;

/// What a machine needs from set-up.
#[derive(Debug)]
pub struct Wanted {
    /// Debian packages to add to the guest's userland.
    pub install: Vec<String>,
    /// The driver to load: ours unless named.
    pub driver: Driver,
    /// Kernel, edition of the driver, root.
    pub system: System,
    /// Whether guest-tests' programs must be there.
    pub programs: Need,
}

impl Wanted {
    /// What this project's own programs run in: the driver and all of them, on this system.
    pub fn programs_on(system: System) -> Self {
        Self {
            install: Vec::new(),
            driver: Driver::Ours,
            system,
            programs: Need::All,
        }
    }

    /// What can be said against it before anything is made.
    fn check(&self) -> Result<()> {
        self.system.check().map_err(crate::exit::usage)?;
        match self.driver {
            Driver::Ours => {
                let kernel = self.system.kernel;
                kernel.takes_our_driver().map_err(crate::exit::usage)
            }
            _ => Ok(()),
        }
    }
}

/// Which driver the guest gets.
#[derive(Debug)]
pub enum Driver {
    /// Built from guest-driver/.
    Ours,
    /// A built module.
    File(PathBuf),
    /// Source of the user's, to be built.
    Source(Source),
    /// None.
    None,
}

/// Everything that is needed to start a machine.
#[derive(Debug)]
pub struct Ready {
    /// The Debian tree.
    pub tree: Entry,
    /// The guest's userland where the tree's is for another architecture.
    pub userland: Option<Entry>,
    /// Tools for that architecture, a layer for the tree.
    pub cross: Option<Arc<Entry>>,
    /// The kernel.
    pub kernel: Kernel,
    /// What is booted of it.
    pub image: Entry,
    /// Added packages.
    pub layer: Option<Entry>,
    /// The userland for a root in RAM.
    pub ram: Option<Entry>,
    /// The daemon and the guest's programs.
    pub programs: Programs,
    /// The lab's own files for the guest.
    pub guest: Guest,
}

impl Ready {
    /// The guest's root, below what is added to it.
    pub fn root(&self) -> PathBuf {
        root(&self.tree, self.userland.as_ref())
    }

    /// What a running machine reads stays until every child started from here on has ended, too.
    pub fn outlive_the_lab(&self) -> Result<()> {
        let always = [
            &self.tree,
            &self.kernel.entry,
            &self.image,
            &self.guest.entry,
        ];
        let mut entries = always
            .into_iter()
            .chain(&self.layer)
            .chain(&self.userland)
            .chain(self.cross.as_deref());
        entries.try_for_each(Entry::outlive_the_lab)
    }
}

/// Sets up what is missing: archive work and compiling side by side.
pub fn set_up(shop: &Shop, wanted: &Wanted) -> Result<Ready> {
    wanted.check()?;
    let choice = wanted.system.kernel;
    // Only the archive knows whether there is such a version: nothing else is made before that is known.
    if let KernelChoice::Series(_) = choice {
        kernel(shop, &tree::obtain_with_tools(shop)?, choice)?;
    } else if shop.arch.is_foreign() {
        // The tools link what runs in the guest.
        tree::obtain_with_tools(shop)?;
    }
    let (programs, archive) = thread::scope(|scope| {
        let programs = scope.spawn(|| or_abort(programs::obtain(shop, wanted.programs)));
        let archive = or_abort(from_archive(shop, wanted));
        (programs.join(), archive)
    });
    cancel::resume();
    let programs =
        programs.map_err(|_| anyhow::anyhow!("the thread that builds the programs has failed"))?;
    let (programs, made) = first_cause(programs, archive)?;
    let FromArchive {
        tree,
        userland,
        kernel,
        image,
        layer,
        ram,
        module,
    } = made;
    let root = root(&tree, userland.as_ref());
    let guest = guest::obtain(shop, (&tree, &root), &kernel, choice, &module, &programs)?;
    Ok(Ready {
        tree,
        userland,
        cross: shop.cross_entry(),
        kernel,
        image,
        layer,
        ram,
        programs,
        guest,
    })
}

/// The guest's root, below what is added to it.
fn root(tree: &Entry, userland: Option<&Entry>) -> PathBuf {
    match userland {
        Some(userland) => userland::root(userland.path()),
        None => tree.path().to_owned(),
    }
}

struct FromArchive {
    tree: Entry,
    userland: Option<Entry>,
    kernel: Kernel,
    image: Entry,
    layer: Option<Entry>,
    ram: Option<Entry>,
    module: PathOrEntry,
}

/// A file of the user's, or one from the cache.
#[derive(Debug)]
pub enum PathOrEntry {
    /// The user's.
    Path(PathBuf),
    /// The cache's; the path is inside.
    Entry(Entry, PathBuf),
    /// There is none.
    Nothing,
}

impl PathOrEntry {
    /// The file.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Entry(entry, path) => Some(entry.join(path)),
            Self::Nothing => None,
        }
    }
}

fn from_archive(shop: &Shop, wanted: &Wanted) -> Result<FromArchive> {
    let tree = tree::obtain_with_tools(shop)?;
    let userland = if shop.arch.is_foreign() {
        Some(userland::obtain(shop, &tree)?)
    } else {
        None
    };
    let choice = wanted.system.kernel;
    let kernel = kernel(shop, &tree, choice)?;
    let image = image::obtain(shop, &kernel, &kernel_key(shop, choice)?)?;
    let ram = match wanted.system.root {
        Root::Virtiofs => None,
        Root::Ram => Some(ram::obtain(shop, &tree, userland.as_ref())?),
    };
    let layer = match (wanted.install.as_slice(), &userland) {
        ([], _) => None,
        (packages, Some(userland)) => Some(userland::add(shop, &tree, userland, packages)?),
        (packages, None) => {
            let layer = layer::obtain(shop, &tree, layer::STAGE, packages, "the guest");
            Some(layer?)
        }
    };
    let module = match &wanted.driver {
        Driver::Ours => {
            if let KernelChoice::Own(own) = choice
                && !shop
                    .cache
                    .has(module::STAGE, &module::key(shop, wanted.system)?)
            {
                own_kernel::takes_rust(shop, &tree, own)?;
            }
            module::obtain(shop, &tree, &kernel, wanted.system)?
        }
        Driver::File(path) => PathOrEntry::Path(path.clone()),
        Driver::Source(source) => {
            let built = own::obtain(shop, &tree, &kernel, wanted.system.kernel, source)
                .map_err(|err| own::explained(shop, source, err))?;
            let (entry, path) = built.only(&source.given)?;
            PathOrEntry::Entry(entry, path)
        }
        Driver::None => PathOrEntry::Nothing,
    };
    Ok(FromArchive {
        tree,
        userland,
        kernel,
        image,
        layer,
        ram,
        module,
    })
}

/// The chosen kernel.
pub fn kernel(shop: &Shop, tree: &Entry, choice: KernelChoice) -> Result<Kernel> {
    match choice {
        KernelChoice::Stock => kernel::obtain(shop, tree, Flavour::Stock),
        KernelChoice::Rt => kernel::obtain(shop, tree, Flavour::Rt),
        KernelChoice::Debug => {
            let stock = kernel::obtain(shop, tree, Flavour::Stock)?;
            debug::obtain(shop, tree, stock)
        }
        KernelChoice::Series(series) => kernel::obtain(shop, tree, Flavour::Series(series)),
        KernelChoice::Own(own) => own_kernel::obtain(shop, tree, own),
    }
}

/// What the chosen kernel is made from.
pub fn kernel_key(shop: &Shop, kernel: KernelChoice) -> Result<Key> {
    match kernel {
        KernelChoice::Stock => Ok(kernel::key(shop, Flavour::Stock)),
        KernelChoice::Rt => Ok(kernel::key(shop, Flavour::Rt)),
        KernelChoice::Debug => debug::key(shop),
        KernelChoice::Series(series) => Ok(kernel::key(shop, Flavour::Series(series))),
        KernelChoice::Own(own) => own_kernel::key(shop, own),
    }
}

/// A failure here ends the work that goes on beside it.
fn or_abort<T>(result: Result<T>) -> Result<T> {
    if result.is_err() {
        cancel::abort();
    }
    result
}

/// Both, or the error that came first: the other one is only its consequence.
fn first_cause<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(err), Ok(_)) | (Ok(_), Err(err)) => Err(err),
        (Err(a), Err(b)) => Err(if crate::exit::of(&a).1.is_empty() {
            b
        } else {
            a
        }),
    }
}

/// The repository that this lab was built from. In the folder of another one there is a warning, once: its files are not used.
pub fn repository() -> Result<PathBuf> {
    static TOLD: Once = Once::new();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let candidates = manifest.iter().map(PathBuf::as_path).chain([built]);
    let found = candidates
        .filter_map(Path::parent)
        .find(|dir| is_repository(dir))
        .map(Path::to_owned)
        .with_context(|| {
            format!(
                "the globalfifo repository is not at {} any more, where this lab was built: run `cargo lab` in a checkout, or install it anew from one: \
                 cargo install --locked --path vmm-glue",
                built.parent().unwrap_or(built).display()
            )
        })?;
    TOLD.call_once(|| {
        let here = std::env::current_dir().unwrap_or_default();
        let other = here.ancestors().find(|dir| is_repository(dir));
        if let Some(other) = other.filter(|dir| !is_same(dir, &found)) {
            ui::warn(&format!(
                "this lab uses the files of {}, where it was built; `cargo lab` uses those of {}",
                found.display(),
                other.display()
            ));
        }
    });
    Ok(found)
}

fn is_repository(dir: &Path) -> bool {
    dir.join("images/tree.toml").is_file() && dir.join("vmm-glue/Cargo.toml").is_file()
}

fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(a) == real(b)
}
