// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a set-up would lead to, without doing it.

use std::path::PathBuf;

use anyhow::Result;

use super::Driver;
use super::KernelChoice;
use super::Root;
use super::Wanted;
use super::cross;
use super::debug;
use super::guest;
use super::image;
use super::kernel;
use super::kernel::Flavour;
use super::layer;
use super::module;
use super::own;
use super::own_kernel;
use super::programs;
use super::ram;
use super::shop::Shop;
use super::tree;
use super::userland;
use crate::key::Key;
use crate::vm::config::Paths;

/// The outcome.
#[derive(Debug)]
pub struct Plan {
    /// Where everything lies, or will.
    pub paths: Paths,
    /// What is not there yet.
    pub missing: Vec<&'static str>,
}

struct Planner<'a> {
    shop: &'a Shop,
    missing: Vec<&'static str>,
}

impl Planner<'_> {
    fn entry(&mut self, name: &'static str, stage: &str, key: &Key) -> PathBuf {
        if !self.shop.cache.has(stage, key) {
            self.missing.push(name);
        }
        self.shop.cache.path(stage, key)
    }
}

impl Planner<'_> {
    fn kernel(&mut self, choice: KernelChoice) -> Result<()> {
        let flavour = match choice {
            KernelChoice::Stock | KernelChoice::Debug => Flavour::Stock,
            KernelChoice::Rt => Flavour::Rt,
            KernelChoice::Series(series) => Flavour::Series(series),
            KernelChoice::Own(own) => {
                let key = own_kernel::key(self.shop, own)?;
                self.entry("what boots of your kernel", own_kernel::STAGE, &key);
                return Ok(());
            }
        };
        let name = match flavour {
            Flavour::Stock => "the kernel",
            Flavour::Rt => "the rt kernel",
            Flavour::Series(_) => "the kernel of that version",
        };
        self.entry(name, flavour.stage(), &kernel::key(self.shop, flavour));
        if choice == KernelChoice::Debug {
            self.entry("the debug kernel", debug::STAGE, &debug::key(self.shop)?);
        }
        Ok(())
    }
}

/// Looks, and makes nothing.
pub fn plan(shop: &Shop, wanted: &Wanted) -> Result<Plan> {
    wanted.check()?;
    let mut planner = Planner {
        shop,
        missing: Vec::new(),
    };
    let tree = planner.entry("the Debian tree", tree::STAGE, &tree::key(shop));
    let (cross, root) = if shop.arch.is_foreign() {
        let cross = planner.entry(
            "tools for the guest's architecture",
            cross::STAGE,
            &cross::key(shop),
        );
        let userland = planner.entry(
            "the guest's userland",
            userland::STAGE,
            &userland::key(shop),
        );
        (Some(cross.join(layer::UPPER)), userland::root(&userland))
    } else {
        (None, tree.clone())
    };
    planner.kernel(wanted.system.kernel)?;
    let kernel = super::kernel_key(shop, wanted.system.kernel)?;
    let image = planner.entry("the image to boot", image::STAGE, &image::key(&kernel));
    let ram = match wanted.system.root {
        Root::Virtiofs => None,
        Root::Ram => Some(planner.entry("the root in RAM", ram::STAGE, &ram::key(shop))),
    };
    let programs = planner.entry(
        "the guest's programs",
        programs::GUEST_STAGE,
        &programs::guest_key(shop)?,
    );
    let agent = planner.entry(
        "the guest's agent",
        programs::AGENT_STAGE,
        &programs::agent_key(shop)?,
    );
    let daemon = planner.entry(
        "the device",
        programs::DAEMON_STAGE,
        &programs::daemon_key(shop)?,
    );
    let layer = match wanted.install.as_slice() {
        [] => None,
        packages => {
            let (stage, key) = if shop.arch.is_foreign() {
                (userland::LAYER_STAGE, userland::layer_key(shop, packages))
            } else {
                (layer::STAGE, layer::key(shop, packages))
            };
            Some(planner.entry("the added packages", stage, &key))
        }
    };
    let module = match &wanted.driver {
        Driver::Ours => Some(
            planner
                .entry(
                    "the driver",
                    module::STAGE,
                    &module::key(shop, wanted.system)?,
                )
                .join(module::MODULE),
        ),
        Driver::File(path) => Some(path.clone()),
        Driver::Source(source) => {
            let key = own::key(shop, source, wanted.system.kernel, own::STAGE)?;
            let entry = planner.entry("your driver", own::STAGE, &key);
            crate::cache::entries(&entry.join(own::MODULES))
                .into_iter()
                .next()
        }
        Driver::None => None,
    };
    let guest = if planner.missing.is_empty() {
        shop.cache.path(
            guest::STAGE,
            &guest::key(
                shop,
                wanted.system.kernel,
                module.as_deref(),
                &agent.join(programs::AGENT),
                Some(&programs),
            )?,
        )
    } else {
        shop.cache
            .root()
            .join("stages")
            .join(guest::STAGE)
            .join("to-be-made")
    };
    let paths = Paths {
        tree,
        cross,
        root,
        kernel: image::path(&image, ram.is_some()),
        guest,
        layer,
        ram: ram.map(|ram| ram.join(ram::ARCHIVE)),
        daemon: daemon.join(programs::DAEMON),
    };
    Ok(Plan {
        paths,
        missing: planner.missing,
    })
}
