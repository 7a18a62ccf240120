// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The debug kernel: the stock kernel's source, configured by the fragments in images/kernel/, compiled by clang (KASAN with Rust needs it).
//!
//! Building takes long and much room; what is kept is what boots and what modules are built against. The source they need besides is the
//! stock kernel's, shown at the same place.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::kernel;
use super::kernel::Built;
use super::kernel::Flavour;
use super::kernel::Kernel;
use super::kernel::PLACE;
use super::layer;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::child::Bind;
use crate::child::View;
use crate::key::Key;
use crate::key::KeyBuilder;
use crate::ui;

/// Its name in the cache.
pub const STAGE: &str = "debug-kernel";
/// The cache's name for the compiler, which lies over the tree.
pub const COMPILER_STAGE: &str = "debug-compiler";
/// Where the stock kernel's entry is seen.
const STOCK: &str = "/lab/stock";

const UNPACK: &str = r#"
mkdir source build
tar -xJf /lab/stock/source.tar.xz -C source --strip-components=1 --anchored --exclude-from=omit
"#;
const CONFIGURE: &str = r#"
KCONFIG_ALLCONFIG=/lab/work/fragments make -C /lab/kernel/source O=/lab/kernel/build $MAKE_VARIABLES allnoconfig
"#;
/// Nothing that differs from build to build gets in; no rustfmt, as for the stock kernel.
const BUILD: &str = r#"
cd /lab/kernel
RUST_LIB_SRC=$(echo /usr/src/rustc-*/library)
export RUST_LIB_SRC
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab
make -C /lab/kernel/source O=/lab/kernel/build RUSTFMT=/nonexistent $MAKE_VARIABLES -j"$JOBS" bzImage modules
"#;
/// Keeps the image, and of the build what the build of a module reads.
const KEEP: &str = r#"
release=$(cat build/include/config/kernel.release)
echo "$release" >release
cp build/arch/x86/boot/bzImage vmlinuz
mkdir -p "modules/$release"
cp build/modules.order build/modules.builtin build/modules.builtin.modinfo "modules/$release/"
cp build/.config config
rm -rf source omit fragments
cd build
rm -rf vmlinux* .vmlinux* .tmp_* System.map arch/x86/boot built-in.a modules.builtin*
find . -type f ! -path './scripts/*' ! -path './tools/*' \( -name '*.o' -o -name '*.a' -o -name '*.cmd' -o -name '*.d' -o -name '*.ko' -o -name '*.mod*' \) ! -name 'modules.order' -delete
find . -type d -empty -delete
"#;

/// What the debug kernel is made from: of the fragments, what they say to Kconfig.
pub fn key(shop: &Shop) -> Result<Key> {
    let recipe = &shop.recipe.debug;
    let stock = kernel::key(shop, Flavour::Stock);
    // Only the stock kernel knows which version there was.
    let release = fs::read_to_string(shop.cache.path(kernel::STAGE, &stock).join("release"));
    let mut key = KeyBuilder::new(STAGE)
        .field("stock kernel", &stock.id)
        .field("source", release.as_deref().unwrap_or("none yet").trim())
        .field("compiler", &layer::key(shop, &recipe.packages).id)
        .field("make", &recipe.make.join(" "))
        .field("omit", &recipe.omit.join(" "))
        .field("script", &[UNPACK, CONFIGURE, BUILD, KEEP].concat());
    for fragment in fragments(shop)? {
        key = key.field(&fragment.name, &fragment.settings.join("\n"));
    }
    Ok(key.finish())
}

/// The debug kernel of this stock kernel's source.
pub fn obtain(shop: &Shop, tree: &Entry, stock: Kernel) -> Result<Kernel> {
    let recipe = &shop.recipe.debug;
    let compiler = layer::obtain(
        shop,
        tree,
        COMPILER_STAGE,
        &recipe.packages,
        "building the debug kernel",
    )?;
    let what = format!(
        "building the debug kernel ({}, once)",
        recipe.how_long.as_str()
    );
    let entry = shop.obtain(STAGE, &key(shop)?, &what, |bench| {
        make(shop, tree, &compiler, &stock, bench)
    })?;
    let release = kernel::release(&entry)?;
    Ok(Kernel {
        entry,
        release,
        built: Some(Built {
            source: stock.entry,
            compiler,
            make: recipe.make.clone(),
        }),
        own: None,
        cross: kernel::cross_variables(shop),
    })
}

fn make(
    shop: &Shop,
    tree: &Entry,
    compiler: &Entry,
    stock: &Kernel,
    bench: &mut Bench<'_>,
) -> Result<()> {
    let recipe = &shop.recipe.debug;
    shop.enough_room("building the debug kernel", recipe.bytes)?;
    let view = view(shop, tree, compiler, stock, bench.dir);
    let variables = recipe.make.join(" ");
    let env = [("MAKE_VARIABLES", variables.as_str())];
    let fragments = fragments(shop)?;
    let settings: Vec<_> = fragments
        .iter()
        .flat_map(|fragment| fragment.settings.clone())
        .collect();
    fs::write(bench.dir.join("fragments"), settings.join("\n") + "\n")?;
    fs::write(bench.dir.join("omit"), recipe.omit.join("\n") + "\n")?;
    bench.detail("unpacking the source");
    bench.script(&view, UNPACK, &[])?;
    bench.detail("configuring");
    bench.script(&view, CONFIGURE, &env)?;
    let config = fs::read_to_string(bench.dir.join("build/.config"))
        .context("cannot read the configuration just made")?;
    stuck(&fragments, &config)?;
    build(shop, &view, &variables, bench)?;
    bench.detail("putting away what modules need");
    bench.script(&view, KEEP, &[])
}

/// Source and build where they will be seen by whatever builds modules: their makefiles remember it.
fn view(shop: &Shop, tree: &Entry, compiler: &Entry, stock: &Kernel, work: &Path) -> View {
    let mut view = shop.view(tree.path(), work);
    view.layers.push(compiler.join(layer::UPPER));
    view.binds.push(Bind {
        from: work.to_owned(),
        to: PLACE.into(),
        read_only: false,
    });
    view.binds.push(Bind {
        from: stock.entry.path().to_owned(),
        to: STOCK.into(),
        read_only: true,
    });
    view
}

fn build(shop: &Shop, view: &View, variables: &str, bench: &mut Bench<'_>) -> Result<()> {
    let jobs = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .to_string();
    let spec = tool_spec(view, "/bin/sh")
        .args(["-e", "-c", BUILD])
        .env("MAKE_VARIABLES", variables)
        .env("JOBS", &jobs);
    let mut progress = Progress::new(shop.recipe.debug.steps);
    bench.show(&spec, &mut |line| progress.line(line))
}

/// Counts what make says it does, against how much that was when the recipe was written.
struct Progress {
    done: u32,
    total: u32,
    told: u32,
}

impl Progress {
    /// For those who see no bar, a line each time so much more of the whole is done.
    const TELL: u32 = 20;

    fn new(total: u32) -> Self {
        Self {
            done: 0,
            total: total.max(1),
            told: 0,
        }
    }

    /// What to show for a line of make's.
    fn line(&mut self, line: &str) -> String {
        // "  CC      fs/aio.o"
        if line.starts_with("  ") {
            self.done += 1;
        }
        let percent = (u64::from(self.done) * 100 / u64::from(self.total)).min(99);
        let percent = u32::try_from(percent).unwrap_or(99);
        if percent >= self.told + Self::TELL {
            self.told = percent - percent % Self::TELL;
            if !ui::has_bars() {
                ui::say(&format!("the debug kernel: about {} % done", self.told));
            }
        }
        format!("{percent} % {}", line.trim())
    }
}

/// A file of settings for Kconfig.
struct Fragment {
    name: String,
    settings: Vec<String>,
}

fn fragments(shop: &Shop) -> Result<Vec<Fragment>> {
    let images = shop.repository.join("images");
    let read = |name: &String| {
        let path = images.join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let settings = settings(&text).map_err(|line| {
            anyhow::anyhow!(
                "{}: {line:?} is no setting: write CONFIG_NAME=value, with n for what is to be off",
                path.display()
            )
        })?;
        Ok(Fragment {
            name: name.clone(),
            settings,
        })
    };
    shop.recipe.debug.config.iter().map(read).collect()
}

/// The settings of a fragment without its comments, or the line that is neither.
fn settings(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once('=') {
            Some((name, value)) if name.starts_with("CONFIG_") && !value.is_empty() => {
                Ok(line.to_owned())
            }
            _ => Err(line.to_owned()),
        })
        .collect()
}

/// Kconfig drops without a word what it does not know and what lacks something that it depends on.
fn stuck(fragments: &[Fragment], config: &str) -> Result<()> {
    let lost: Vec<_> = fragments
        .iter()
        .flat_map(|fragment| {
            let lost = lost(&fragment.settings, config);
            lost.into_iter()
                .map(|setting| format!("{setting} ({})", fragment.name))
        })
        .collect();
    anyhow::ensure!(
        lost.is_empty(),
        "the kernel's configuration did not take settings of images/: {}; this kernel does not know them, or they lack something that they depend on",
        lost.join(", ")
    );
    Ok(())
}

fn lost<'a>(settings: &'a [String], config: &str) -> Vec<&'a str> {
    let lines: HashSet<&str> = config.lines().collect();
    let set: HashSet<&str> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    let holds = |setting: &str| match setting.strip_suffix("=n") {
        Some(name) => !set.contains(name),
        None => lines.contains(setting),
    };
    settings
        .iter()
        .map(String::as_str)
        .filter(|setting| !holds(setting))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(text: &str) -> Fragment {
        Fragment {
            name: "kernel/x.config".to_owned(),
            settings: settings(text).unwrap(),
        }
    }

    #[test]
    fn comments_are_no_settings_and_words_are_an_error() {
        let text = "# why\nCONFIG_A=y\n\n  CONFIG_B=\"x y\"\n";
        assert_eq!(settings(text).unwrap(), ["CONFIG_A=y", "CONFIG_B=\"x y\""]);
        for bad in ["A=y", "CONFIG_A", "CONFIG_A=", "yes please"] {
            assert_eq!(settings(bad).unwrap_err(), bad);
        }
    }

    #[test]
    fn each_setting_that_did_not_stick_is_named_with_its_file() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_AB=y\n";
        let good = fragment("CONFIG_A=y\nCONFIG_B=n\nCONFIG_NEVER_HEARD_OF=n\n");
        assert!(stuck(&[good], config).is_ok());
        let bad = fragment("CONFIG_A=n\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_GONE=y\n");
        let said = stuck(&[bad], config).unwrap_err().to_string();
        for lost in ["CONFIG_A=n", "CONFIG_B=y", "CONFIG_C=y", "CONFIG_GONE=y"] {
            assert!(
                said.contains(&format!("{lost} (kernel/x.config)")),
                "{said}"
            );
        }
    }

    #[test]
    fn progress_counts_makes_steps_and_never_reaches_the_end_by_itself() {
        let mut progress = Progress::new(4);
        assert_eq!(
            progress.line("make[1]: Entering directory"),
            "0 % make[1]: Entering directory"
        );
        assert_eq!(progress.line("  CC      fs/aio.o"), "25 % CC      fs/aio.o");
        for _ in 0..10 {
            progress.line("  CC      x.o");
        }
        assert!(progress.line("  LD      vmlinux").starts_with("99 %"));
    }
}
