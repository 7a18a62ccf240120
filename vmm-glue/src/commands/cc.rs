// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab cc`: the tree's gcc among the host's files, so that paths mean what they mean here and the result runs in the guest.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use crate::child::Place;
use crate::child::Running;
use crate::child::Spec;
use crate::child::shell_status;
use crate::cli::CcArgs;
use crate::exit;
use crate::stages::module;
use crate::stages::shop::Shop;
use crate::stages::tree;

/// Compiles; the status is gcc's.
pub fn cc(args: &CcArgs) -> Result<u8> {
    let shop = Shop::open_for(args.arch)?;
    let cwd = std::env::current_dir().context("there is no current directory")?;
    if ["/usr", "/etc", "/run"]
        .iter()
        .any(|dir| cwd.starts_with(dir))
        && !["/usr/local", "/usr/src"]
            .iter()
            .any(|dir| cwd.starts_with(dir))
    {
        return Err(exit::usage(format!(
            "the guest's compiler does not see {}: call it from another folder",
            cwd.display()
        )));
    }
    let tree = tree::obtain_with_tools(&shop)?;
    let uapi = shop.repository.join(module::DRIVER).join("include/uapi");
    let spec = Spec::new(Path::new("/usr/bin").join(args.arch.tool("gcc")))
        // The driver's header, after whatever the user names.
        .args(&args.args)
        .arg("-idirafter")
        .arg(uapi)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .cwd(&cwd)
        .place(Place::Tree(shop.host_view(tree.path())));
    let mut gcc = Running::start("gcc", spec.command())?;
    Ok(shell_status(gcc.wait()?))
}
