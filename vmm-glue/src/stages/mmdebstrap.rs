//! The one package that the host needs beyond Rust and a C compiler: present, installed, or named.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::shop::Bench;
use crate::child::Place;
use crate::child::Spec;

/// The command that mends its absence.
pub const INSTALL: &str = "apt-get install -y mmdebstrap uidmap debian-archive-keyring";

/// True if it is on PATH.
pub fn present() -> bool {
    on_path("mmdebstrap")
}

/// True if a program of this name is on PATH.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| rustix::fs::access(dir.join(name), rustix::fs::Access::EXEC_OK).is_ok())
}

/// Installs it if it is missing and that is possible.
pub fn ensure(bench: &mut Bench<'_>) -> Result<()> {
    if present() {
        return Ok(());
    }
    let root = nix::unistd::geteuid().is_root();
    let by_hand = format!(
        "mmdebstrap is missing: install it with `{}{INSTALL}`",
        if root { "" } else { "sudo " }
    );
    anyhow::ensure!(
        on_path("apt-get"),
        "mmdebstrap is missing and this is not a Debian or Ubuntu machine: install mmdebstrap"
    );
    anyhow::ensure!(root || passwordless_sudo(), "{by_hand}");
    bench.detail("installing mmdebstrap on this machine");
    for command in [
        "apt-get update -q",
        &format!("{INSTALL} -q --no-install-recommends"),
    ] {
        let words = command.split_whitespace();
        let spec = if root {
            Spec::new("env")
        } else {
            Spec::new("sudo").args(["-n", "env"])
        };
        bench
            .run(
                &spec
                    .arg("DEBIAN_FRONTEND=noninteractive")
                    .args(words)
                    .place(Place::Group),
            )
            .with_context(|| by_hand.clone())?;
    }
    anyhow::ensure!(present(), "{by_hand}");
    Ok(())
}

fn passwordless_sudo() -> bool {
    let spec = Spec::new("sudo").args(["-n", "true"]);
    on_path("sudo") && crate::child::output(&spec).is_ok()
}

/// Directory of mmdebstrap's scratch files for an ordinary user: their owners are subordinate ids, so removing it needs its help.
pub fn remove_scratch(dir: &Path) {
    if dir.is_dir() {
        let _ = crate::child::output(
            &Spec::new("mmdebstrap")
                .args(["--unshare-helper", "rm", "-rf"])
                .arg(dir)
                .place(Place::Group),
        );
        let _ = std::fs::remove_dir_all(dir);
    }
}
