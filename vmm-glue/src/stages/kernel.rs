// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stock Debian kernel, its modules, and its source prepared for building Rust modules. No kernel is compiled.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::archive::Choice;
use super::archive::Index;
use super::choice::Series;
use super::layer;
use super::own_kernel;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::script_spec;
use super::userland;
use crate::cache::Entry;
use crate::child;
use crate::child::Bind;
use crate::child::View;
use crate::key::KeyBuilder;
use crate::recipe::Recipe;

/// Its name in the cache.
pub const STAGE: &str = "kernel";
/// The cache's name for the flavour rt.
pub const RT_STAGE: &str = "rt-kernel";
/// The cache's name for other versions.
pub const SERIES_STAGE: &str = "series-kernel";
/// The image to boot.
pub const IMAGE: &str = "vmlinuz";
/// The whole source, in an entry.
const WHOLE_SOURCE: &str = "source.tar.xz";
/// Where the prepared tree is seen by whatever builds with it: its makefiles remember this path.
pub const PLACE: &str = "/lab/kernel";
/// apt's index in the tree is taken as it is for this long after the tree was made.
const INDEX_FRESH: Duration = Duration::from_secs(6 * 3600);

/// The index lies in the work directory when it had to be fetched anew; nothing is written to the tree.
const UPDATE: &str = "mkdir -p lists/partial; apt-get -q -o APT::Sandbox::User=root -o Dir::State::lists=$PWD/lists update";
const SHOW: &str = r#"
apt-cache $APT -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= --names-only search "^linux-(image|binary|modules|headers)-$MAJOR[.].*$FLAVOUR\$|^linux-source-$MAJOR[.]" |
    cut -d ' ' -f 1 >names
xargs -r apt-cache $APT -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= show <names
"#;
const FETCH: &str = r#"
mkdir debs
cd debs
apt-get $APT -q -o APT::Sandbox::User=root -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= download $PACKAGES
"#;
const UNPACK: &str = r#"
for deb in debs/linux-binary-*.deb debs/linux-modules-*.deb; do dpkg-deb -x "$deb" stock; done
dpkg-deb -x debs/linux-headers-*.deb headers
dpkg-deb --fsys-tarfile debs/linux-source-*.deb | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' >source.tar.xz
tar -xJf source.tar.xz --anchored --exclude-from=omit
mv "linux-source-$SERIES" source
mkdir build
cp headers/usr/src/linux-headers-*/.config headers/usr/src/linux-headers-*/Module.symvers build/
cp build/.config config
mkdir -p modules
mv stock/usr/lib/modules/* modules/
mv "modules/$RELEASE/vmlinuz" vmlinuz
rm -rf debs headers stock lists names omit
"#;
/// No rustfmt: bindgen's output need not be pretty, and that saves many seconds.
const PREPARE: &str = r#"
cd /lab/kernel
RUST_LIB_SRC=$(echo /usr/src/rustc-*/library)
export RUST_LIB_SRC
make -C /lab/kernel/source O=/lab/kernel/build KERNELRELEASE="$RELEASE" RUSTFMT=/nonexistent -j"$JOBS" modules_prepare
"#;

/// Options whose values may differ between the stock configuration and the prepared tree: they describe the tools.
/// arm64's vDSO for 32-bit programs takes a third compiler, and no structure depends on it.
const TOOL_OPTIONS: [&str; 5] = [
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_COMPAT_VDSO",
    "CONFIG_OPENSSL_SUPPORTS_ML_DSA",
    "CONFIG_RUSTC_VERSION_TEXT",
    "CONFIG_THUMB2_COMPAT_VDSO",
];

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// That of the recipe's section `kernel`.
    Stock,
    /// With PREEMPT_RT.
    Rt,
    /// The recipe's, of another version.
    Series(Series),
}

impl Flavour {
    /// Its name in the cache.
    pub fn stage(self) -> &'static str {
        match self {
            Self::Stock => STAGE,
            Self::Rt => RT_STAGE,
            Self::Series(_) => SERIES_STAGE,
        }
    }

    /// Debian's word for it.
    fn name(self, shop: &Shop) -> &str {
        match self {
            Self::Stock | Self::Series(_) => &shop.guest.flavour,
            Self::Rt => &shop.guest.rt_flavour,
        }
    }

    /// The version that it has to be of, or the beginning of it.
    fn version(self, recipe: &Recipe) -> String {
        match self {
            Self::Stock | Self::Rt => recipe.kernel.major.to_string(),
            Self::Series(series) => series.text.to_owned(),
        }
    }
}

/// A kernel in the cache.
#[derive(Debug)]
pub struct Kernel {
    /// The entry: vmlinuz, modules/RELEASE/, build/; of the stock kernel also source/ and source.tar.xz (all of the source).
    pub entry: Entry,
    /// As `uname -r` says it.
    pub release: String,
    /// What belongs to it besides if it is not the stock kernel.
    pub built: Option<Built>,
    /// Where its source and build are if it is the user's own.
    pub own: Option<Own>,
    /// make's variables that name another architecture.
    pub cross: Vec<String>,
}

/// A kernel that the user has built: its entry has only what boots.
#[derive(Debug)]
pub struct Own {
    /// The folder that it was built in.
    pub build: PathBuf,
    /// Folders on this machine, and the paths that its makefile has for them.
    pub places: Vec<(PathBuf, PathBuf)>,
    /// The compiler's packages, a layer for the tree, unless the tree has it.
    pub compiler: Option<Entry>,
    /// make's variables that name the compiler.
    pub make: Vec<String>,
}

/// What a kernel that was built here shares with modules for it.
#[derive(Debug)]
pub struct Built {
    /// The stock kernel: its source/ is this kernel's.
    pub source: Entry,
    /// The compiler's packages, a layer for the tree.
    pub compiler: Entry,
    /// make's variables that name the compiler.
    pub make: Vec<String>,
}

impl Kernel {
    /// The image to boot.
    pub fn image(&self) -> PathBuf {
        self.entry.join(IMAGE)
    }

    /// Shows it at its place inside the tree, with what modules for it are built by.
    pub fn show(&self, view: &mut View) {
        if let Some(own) = &self.own {
            let build = (own.build.clone(), Path::new(PLACE).join("build"));
            for (from, to) in std::iter::once(&build).chain(&own.places) {
                view.binds.push(Bind {
                    from: from.clone(),
                    to: to.clone(),
                    read_only: true,
                });
            }
            let compiler = own.compiler.iter().map(|layer| layer.join(layer::UPPER));
            view.layers.extend(compiler);
            return;
        }
        let mut show = |entry: &Entry, part: &str| {
            view.binds.push(Bind {
                from: entry.join(part),
                to: Path::new(PLACE).join(part),
                read_only: true,
            });
        };
        let source = self
            .built
            .as_ref()
            .map_or(&self.entry, |built| &built.source);
        show(source, "source");
        show(&self.entry, "build");
        if let Some(built) = &self.built {
            view.layers.push(built.compiler.join(layer::UPPER));
        }
    }

    /// make's variables for a module.
    pub fn make_variables(&self) -> Vec<&String> {
        let built = self.built.as_ref().map(|built| built.make.as_slice());
        let own = self.own.as_ref().map(|own| own.make.as_slice());
        let compiler = built.or(own).unwrap_or_default();
        compiler.iter().chain(&self.cross).collect()
    }

    /// The folder that it was built or prepared in.
    pub fn build(&self) -> PathBuf {
        let own = self.own.as_ref().map(|own| own.build.clone());
        own.unwrap_or_else(|| self.entry.join("build"))
    }

    /// Its source.
    pub fn source(&self) -> PathBuf {
        match (&self.own, &self.built) {
            (Some(own), _) => own
                .places
                .iter()
                .map(|(from, _)| from)
                .find(|from| **from != own.build)
                .unwrap_or(&own.build)
                .clone(),
            (None, Some(built)) => built.source.join("source"),
            (None, None) => self.entry.join("source"),
        }
    }
}

/// What the kernel is made from. Its version is not part: what is cached stays good when the archive moves on.
pub fn key(shop: &Shop, flavour: Flavour) -> crate::key::Key {
    let recipe = &shop.recipe.kernel;
    let key = of_arch(shop, KeyBuilder::new(flavour.stage()))
        .field("tree", &super::tree::key(shop).id)
        .field(
            "kernel",
            &format!("{} {}", flavour.version(&shop.recipe), flavour.name(shop)),
        )
        .field("omit", &recipe.omit.join(" "))
        .field("script", &[UPDATE, SHOW, FETCH, UNPACK, PREPARE].concat());
    match flavour {
        Flavour::Stock | Flavour::Series(_) => key.finish(),
        Flavour::Rt => key
            .field("modules omitted", &shop.recipe.rt.omit_modules.join(" "))
            .finish(),
    }
}

/// What is made for another architecture depends on it, and on its tools.
pub fn of_arch(shop: &Shop, key: KeyBuilder) -> KeyBuilder {
    if shop.arch.is_foreign() {
        key.field("architecture", shop.arch.name())
            .field("tools", &super::cross::key(shop).id)
    } else {
        key
    }
}

/// The kernel of the recipe.
pub fn obtain(shop: &Shop, tree: &Entry, flavour: Flavour) -> Result<Kernel> {
    let name = match flavour {
        Flavour::Stock => "the stock kernel".to_owned(),
        Flavour::Rt => "the rt kernel".to_owned(),
        Flavour::Series(series) => format!("Linux {}", series.text),
    };
    let what = format!("fetching {name} and preparing its source for modules");
    let key = key(shop, flavour);
    let entry = shop.obtain(flavour.stage(), &key, &what, |bench| {
        make(shop, tree, flavour, bench)?;
        match flavour {
            Flavour::Stock => Ok(()),
            Flavour::Rt => thin_out(shop, bench.dir),
            Flavour::Series(_) => Ok(fs::remove_file(bench.dir.join(WHOLE_SOURCE))?),
        }
    })?;
    let release = release(&entry)?;
    Ok(Kernel {
        entry,
        release,
        built: None,
        own: None,
        cross: cross_variables(shop),
    })
}

/// make's variables that name another architecture, as words.
pub fn cross_variables(shop: &Shop) -> Vec<String> {
    let variables = shop.arch.make_variables().into_iter();
    variables
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The release that an entry's kernel has.
pub fn release(entry: &Entry) -> Result<String> {
    let release =
        fs::read_to_string(entry.join("release")).context("the cached kernel has no release")?;
    Ok(release.trim().to_owned())
}

/// Debian's rt kernel has modules for all the hardware in the world, and nobody builds another kernel of its source.
fn thin_out(shop: &Shop, dir: &Path) -> Result<()> {
    fs::remove_file(dir.join(WHOLE_SOURCE))?;
    for release in crate::cache::entries(&dir.join("modules")) {
        for omitted in &shop.recipe.rt.omit_modules {
            crate::cache::remove(&release.join("kernel").join(omitted))?;
        }
    }
    Ok(())
}

fn make(shop: &Shop, tree: &Entry, flavour: Flavour, bench: &mut Bench<'_>) -> Result<()> {
    let mut view = shop.view(tree.path(), bench.dir);
    // The tree's index is of its own architecture.
    let foreign = shop.arch.is_foreign();
    let choice = match choose(shop, flavour, &view, bench, usable_index(tree) && !foreign) {
        Ok(choice) => choice,
        // The index that came with the tree may name files that have gone meanwhile.
        Err(_) if is_fresh(tree) && !foreign => choose(shop, flavour, &view, bench, false)?,
        Err(err) => return Err(err),
    };
    fs::write(bench.dir.join("release"), &choice.release)?;
    let omit = shop
        .recipe
        .kernel
        .omit
        .iter()
        .map(|pattern| format!("linux-source-{}/{pattern}\n", choice.series));
    fs::write(bench.dir.join("omit"), omit.collect::<String>())?;
    let env = [
        ("RELEASE", choice.release.as_str()),
        ("SERIES", choice.series.as_str()),
    ];
    bench.detail("unpacking the kernel");
    bench.script(&view, UNPACK, &env)?;
    view.binds.push(Bind {
        from: bench.dir.to_owned(),
        to: PLACE.into(),
        read_only: false,
    });
    let jobs = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .to_string();
    let variables = shop.arch.make_variables();
    let mut env = vec![("RELEASE", choice.release.as_str()), ("JOBS", &jobs)];
    env.extend(
        variables
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    bench.script(&view, PREPARE, &env)?;
    same_configuration(shop, bench.dir, flavour)
}

/// What to tell a user whose version cannot be had.
fn no_such_series(series: Series, flavour: &str, index: &Index, why: &str) -> anyhow::Error {
    let whole = index.whole(flavour);
    crate::exit::usage(format!(
        "--kernel {}: {why}. Whole are {}; a kernel that you have built is --kernel PATH",
        series.text,
        if whole.is_empty() {
            "none".to_owned()
        } else {
            whole.join(", ")
        }
    ))
}

/// Whether the index that came with the tree can be taken as it is.
fn usable_index(tree: &Entry) -> bool {
    let there = tree
        .join("var/lib/apt/lists")
        .read_dir()
        .is_ok_and(|mut lists| lists.next().is_some());
    there && is_fresh(tree)
}

fn is_fresh(tree: &Entry) -> bool {
    let made = tree.path().metadata().and_then(|meta| meta.modified()).ok();
    made.and_then(|made| made.elapsed().ok())
        .is_some_and(|age| age < INDEX_FRESH)
}

/// Picks a version and fetches its packages.
fn choose(
    shop: &Shop,
    flavour: Flavour,
    view: &View,
    bench: &mut Bench<'_>,
    usable: bool,
) -> Result<Choice> {
    let fetched = format!("-o Dir::State::lists={WORK}/lists");
    let config = if shop.arch.is_foreign() {
        Some(userland::apt_for(shop.arch, bench.dir)?)
    } else {
        None
    };
    let config = config.as_ref().map(|(name, value)| (*name, value.as_str()));
    if !usable {
        bench.detail("asking the archive which kernels there are");
        bench.script(view, UPDATE, config.as_slice())?;
    }
    let apt = if usable { "" } else { fetched.as_str() };
    let version = flavour.version(&shop.recipe);
    let flavour_name = flavour.name(shop);
    // Of other versions all are looked at, to name those that there are.
    let major = match flavour {
        Flavour::Stock | Flavour::Rt => version.as_str(),
        Flavour::Series(_) => "[0-9]+",
    };
    let mut env = vec![("APT", apt), ("MAJOR", major), ("FLAVOUR", flavour_name)];
    env.extend(config);
    let index =
        child::output(&script_spec(view, SHOW, &env)).context("cannot read the archive's index")?;
    let index = Index::parse(&index);
    let choice = match flavour {
        Flavour::Stock | Flavour::Rt => index
            .choose(&version, flavour_name)
            .map_err(anyhow::Error::msg)?,
        Flavour::Series(series) => index
            .choose(&version, flavour_name)
            .map_err(|why| no_such_series(series, flavour_name, &index, &why))?,
    };
    bench.detail(&format!("fetching Linux {}", choice.release));
    crate::cache::remove(&bench.dir.join("debs"))?;
    let packages = choice.packages().join(" ");
    let mut env = vec![("APT", apt), ("PACKAGES", packages.as_str())];
    env.extend(config);
    bench.script(view, FETCH, &env)?;
    Ok(choice)
}

/// The prepared tree must lay out the kernel's structures as the stock kernel does: its options must not have drifted.
fn same_configuration(shop: &Shop, dir: &Path, flavour: Flavour) -> Result<()> {
    let stock =
        fs::read_to_string(dir.join("config")).context("cannot read the stock configuration")?;
    let ours = fs::read_to_string(dir.join("build/.config"))
        .context("cannot read the prepared configuration")?;
    let lost = drift(&stock, &ours);
    anyhow::ensure!(
        lost.is_empty(),
        "the prepared kernel source lost options of the stock kernel ({}): a tool in images/tree.toml is missing or too old",
        lost.join(", ")
    );
    if let Flavour::Series(series) = flavour {
        let lacks = own_kernel::lacks(&ours, shop.arch);
        return match lacks.as_slice() {
            [] => Ok(()),
            lacks => Err(crate::exit::usage(format!(
                "--kernel {}: Debian has built that kernel without what the lab's guest needs from the start: {}",
                series.text,
                lacks.join(", ")
            ))),
        };
    }
    anyhow::ensure!(
        ours.contains("CONFIG_RUST=y"),
        "this kernel was built without CONFIG_RUST: take another in images/tree.toml"
    );
    Ok(())
}

fn drift(stock: &str, ours: &str) -> Vec<String> {
    let lines: std::collections::HashSet<&str> = ours.lines().collect();
    stock
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !lines.contains(line))
        .filter(|line| !TOOL_OPTIONS.iter().any(|option| line.starts_with(option)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_option_is_drift_a_compilers_name_is_not() {
        let stock =
            "CONFIG_CC_VERSION_TEXT=\"a\"\nCONFIG_DEBUG_INFO_BTF=y\n# CONFIG_X is not set\n";
        assert_eq!(
            drift(stock, "CONFIG_CC_VERSION_TEXT=\"b\"\n"),
            ["CONFIG_DEBUG_INFO_BTF=y"]
        );
        assert!(drift(stock, "CONFIG_DEBUG_INFO_BTF=y\nCONFIG_NEW=y\n").is_empty());
    }
}
