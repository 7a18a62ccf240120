// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab doctor`: each thing that is needed, whether it is there, and the command that mends it.

use std::fs;

use anyhow::Result;

use crate::cache;
use crate::child;
use crate::child::Place;
use crate::child::Spec;
use crate::stages;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::mmdebstrap;
use crate::stages::plan;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::accel;
use crate::vm::limits;

/// How something is.
enum State {
    /// There.
    Good(String),
    /// Missing, but nothing depends on it.
    Note(String),
    /// Missing: what is wrong, and the command that mends it.
    Bad(String, String),
}

/// Looks at everything; 0 if nothing that is needed is missing.
pub fn doctor() -> Result<u8> {
    let checks = [
        ("processor", processor()),
        ("C compiler", c_compiler()),
        ("static C library", static_library()),
        ("cargo", cargo()),
        ("mmdebstrap", debian_tool()),
        ("namespaces", namespaces()),
        ("subordinate ids", subordinate_ids()),
        ("room for the cache", room()),
        ("programs in the cache", executable()),
        ("open files", open_files()),
        ("KVM", kvm()),
        ("set-up", set_up()),
    ];
    let mut bad = 0;
    for (name, state) in checks {
        match state {
            State::Good(what) => ui::print(&format!("ok       {name}: {what}")),
            State::Note(what) => ui::print(&format!("note     {name}: {what}")),
            State::Bad(what, mend) => {
                bad += 1;
                ui::print(&format!(
                    "missing  {name}: {what}\n         mend it: {mend}"
                ));
            }
        }
    }
    Ok(u8::from(bad > 0))
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// As the user has to type it.
fn sudo(command: &str) -> String {
    if root() {
        command.to_owned()
    } else {
        format!("sudo {command}")
    }
}

fn processor() -> State {
    match std::env::consts::ARCH {
        "x86_64" => State::Good("x86_64".to_owned()),
        "aarch64" => State::Note(
            "aarch64: the lab is compiled for it and has never been run on it".to_owned(),
        ),
        other => State::Bad(
            format!("this is {other}, the lab knows x86_64 and aarch64"),
            "use an x86_64 machine".to_owned(),
        ),
    }
}

fn c_compiler() -> State {
    if mmdebstrap::on_path("cc") {
        State::Good("cc is on PATH".to_owned())
    } else {
        State::Bad(
            "Rust links with it, and cc is not on PATH".to_owned(),
            sudo("apt-get install -y gcc libc6-dev"),
        )
    }
}

/// The guest's programs are linked statically; some distributions keep that half of the C library apart.
fn static_library() -> State {
    let spec = Spec::new("cc").arg("-print-file-name=libc.a");
    match child::output(&spec) {
        Ok(path) if std::path::Path::new(path.trim()).is_absolute() => {
            State::Good("libc.a is there".to_owned())
        }
        Ok(_) => State::Bad(
            "the guest's programs are linked with it, and cc finds no libc.a".to_owned(),
            if mmdebstrap::on_path("apt-get") {
                sudo("apt-get install -y libc6-dev")
            } else if mmdebstrap::on_path("dnf") {
                sudo("dnf install -y glibc-static")
            } else {
                "install the static half of your C library (glibc-static, glibc-devel-static)"
                    .to_owned()
            },
        ),
        Err(_) => State::Note("cannot tell without a C compiler".to_owned()),
    }
}

/// Programs are started from the cache.
fn executable() -> State {
    let Ok(location) = cache::location() else {
        return State::Note("there is no place for it".to_owned());
    };
    match cache::mounted_noexec(&location) {
        None => State::Good("can be started".to_owned()),
        Some(dir) => State::Bad(
            format!("{} is mounted noexec", dir.display()),
            "export XDG_CACHE_HOME=/a/folder/without/noexec, or remount it with exec".to_owned(),
        ),
    }
}

fn open_files() -> State {
    match limits::few_open_files() {
        None => State::Good("as many as a guest needs".to_owned()),
        Some(what) => State::Bad(what, limits::MORE_OPEN_FILES.to_owned()),
    }
}

fn cargo() -> State {
    State::Good(env!("LAB_RUSTC_VERSION").to_owned())
}

fn debian_tool() -> State {
    if mmdebstrap::present() {
        return State::Good("on PATH".to_owned());
    }
    if mmdebstrap::can_be_fetched() {
        return State::Good(
            "not on PATH: the first set-up fetches it into the cache, nothing is installed"
                .to_owned(),
        );
    }
    State::Bad(
        "makes the Debian tree, is not on PATH and cannot be fetched on this system".to_owned(),
        "install mmdebstrap".to_owned(),
    )
}

/// Tries what set-up will do.
fn namespaces() -> State {
    let spec = Spec::new("true").place(Place::Isolated);
    match child::output(&spec) {
        Ok(_) => State::Good("can be made".to_owned()),
        Err(err) => State::Bad(
            format!("{err:#}"),
            if root() {
                "run the container with CAP_SYS_ADMIN".to_owned()
            } else {
                namespace_switches()
            },
        ),
    }
}

/// The switches that exist on this kernel and are off.
fn namespace_switches() -> String {
    let switches = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    let value = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap_or_default()
    };
    let off = switches
        .iter()
        .filter(|(name, off, _)| value(name).trim() == *off);
    let settings: Vec<String> = off.map(|(name, _, on)| format!("{name}={on}")).collect();
    if settings.is_empty() {
        "run the lab as root".to_owned()
    } else {
        sudo(&format!("sysctl {}", settings.join(" ")))
    }
}

fn subordinate_ids() -> State {
    if root() {
        return State::Good("not needed by root".to_owned());
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map(|user| user.name)
        .unwrap_or_default();
    let uid = nix::unistd::geteuid().to_string();
    let has = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split(':').next())
            .any(|name| name == user || name == uid)
    };
    if !mmdebstrap::on_path("newuidmap") {
        return State::Bad(
            "newuidmap is not on PATH".to_owned(),
            sudo(mmdebstrap::INSTALL_UIDMAP),
        );
    }
    if has("/etc/subuid") && has("/etc/subgid") {
        return State::Good(format!("{user} has some"));
    }
    State::Bad(
        format!("{user} has none in /etc/subuid and /etc/subgid"),
        sudo(&format!(
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        )),
    )
}

fn room() -> State {
    let needed = stages::repository()
        .and_then(|repository| crate::recipe::Recipe::load(&repository))
        .map_or(0, |recipe| recipe.room.bytes);
    let Ok(location) = cache::location() else {
        return State::Bad(
            "neither XDG_CACHE_HOME nor HOME is set".to_owned(),
            "export HOME".to_owned(),
        );
    };
    let existing = location
        .ancestors()
        .find(|dir| dir.is_dir())
        .unwrap_or(&location);
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        return State::Bad(
            format!("{} is not writable", existing.display()),
            "export XDG_CACHE_HOME=/a/folder/of/yours".to_owned(),
        );
    }
    let free =
        rustix::fs::statvfs(existing).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let used = cache::size(&location);
    if free.saturating_add(used) >= needed {
        return State::Good(format!(
            "{} uses {}, {} are free",
            location.display(),
            ui::bytes(used),
            ui::bytes(free)
        ));
    }
    let what = format!(
        "{} has {} free, a first set-up needs {}",
        existing.display(),
        ui::bytes(free),
        ui::bytes(needed)
    );
    State::Bad(what, "export XDG_CACHE_HOME=/a/folder/with/room".to_owned())
}

fn kvm() -> State {
    match accel::kvm_obstacle() {
        None => State::Good("can be used".to_owned()),
        Some(why) => State::Note(format!("{why}; guests run emulated, which is slower")),
    }
}

fn set_up() -> State {
    let wanted = Wanted::programs_on(System::default());
    match Shop::open().and_then(|shop| plan::plan(&shop, &wanted)) {
        Ok(plan) if plan.missing.is_empty() => State::Good("everything is made".to_owned()),
        Ok(plan) => State::Note(format!(
            "the next command makes {}",
            plan.missing.join(", ")
        )),
        Err(err) => State::Bad(format!("{err:#}"), "see above".to_owned()),
    }
}
