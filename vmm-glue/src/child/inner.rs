// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The helper process: arranges its place, then becomes the program (or waits for it, where a namespace needs a keeper).
//!
//! Runs in a process of its own and must not use anything of the lab that has threads or state.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;

use super::environment;
use super::running::shell_status;
use super::spec::Environment;
use super::spec::Overlay;
use super::spec::Place;
use super::spec::Spec;
use super::spec::View;
use crate::escape;

/// First argument that makes the lab a helper.
pub const SUBCOMMAND: &str = "@child";
/// Second argument: outside the namespaces.
pub(super) const OUTER: &str = "outer";
/// Second argument: inside, as process 1.
const INNER: &str = "inner";

/// Directories of a Debian tree that replace the host's in a view with `host`.
const FROM_TREE: [&str; 8] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc",
];
/// Made anew in every view.
const OWN: [&str; 4] = ["proc", "dev", "run", "sys"];
/// Where an overlay over the tree is put together.
const MERGED: &str = "/lab/tree";
/// Empty and writable in a view without `host`; whatever else is needed gets bound.
const EMPTY: [&str; 2] = ["tmp", "root"];

/// Whether the group has been asked to end.
static ENDING: AtomicBool = AtomicBool::new(false);
/// How long a group has to end by itself; less than the lab waits for its keeper.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs as a helper; `args` follow [`SUBCOMMAND`].
pub fn main(args: &[OsString]) -> ExitCode {
    match helper(args) {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            eprintln!("lab: {err:#}");
            ExitCode::from(crate::exit::FAILURE)
        }
    }
}

fn helper(args: &[OsString]) -> Result<u8> {
    let [side, words @ ..] = args else {
        anyhow::bail!("`{SUBCOMMAND}` is the lab's own")
    };
    let spec = Spec::from_words(words).context("bad specification of a child")?;
    if let Some(umask) = spec.umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    }
    if side == INNER {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        return inner(&spec);
    }
    match &spec.place {
        Place::Here => {
            // Ctrl-C on the terminal is the lab's to act on.
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            die_with_parent(&spec, Signal::SIGKILL)?;
            Err(exec(&spec))
        }
        Place::Stay => {
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            Err(exec(&spec))
        }
        Place::Group => {
            own_group(&spec)?;
            keep(program(&spec))
        }
        Place::Isolated | Place::Tree(_) => {
            own_group(&spec)?;
            enter_namespaces()?;
            let mut child = Command::new("/proc/self/exe");
            child.arg(SUBCOMMAND).arg(INNER).args(spec.to_words());
            keep_namespace(child)
        }
    }
}

fn die_with_parent(spec: &Spec, signal: Signal) -> Result<()> {
    prctl::set_pdeathsig(signal)?;
    // The lab may have died before the line above.
    let parent = Pid::parent().as_raw();
    anyhow::ensure!(
        u32::try_from(parent).is_ok_and(|parent| parent == spec.parent),
        "the lab has gone"
    );
    Ok(())
}

/// A process group of its own, ended whole when the lab dies or asks for it.
fn own_group(spec: &Spec) -> Result<()> {
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .context("cannot make a process group")?;
    if !matches!(spec.place, Place::Group) {
        // A namespace's process 1 takes everything with it, and its keeper must stay single-threaded to make a user namespace.
        return die_with_parent(spec, Signal::SIGKILL);
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            ENDING.store(true, Ordering::SeqCst);
            // A program whose own children have groups of their own, as cargo-nextest's, ends these when it is asked to end.
            let _ = nix::sys::signal::killpg(nix::unistd::getpgrp(), Signal::SIGTERM);
            std::thread::sleep(PATIENCE);
            kill_group();
        }
    });
    die_with_parent(spec, Signal::SIGTERM)
}

/// Ends this process, too.
fn kill_group() {
    let _ = nix::sys::signal::killpg(nix::unistd::getpgrp(), Signal::SIGKILL);
}

/// Starts the program and waits for it.
fn keep(mut command: Command) -> Result<u8> {
    let name = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", name.display()))?;
    if ENDING.load(Ordering::SeqCst) {
        kill_group();
    }
    Ok(shell_status(status))
}

/// Starts process 1 of a namespace and waits for it. When this is asked to end, it ends after everything in the namespace has gone: the kernel
/// reports the end of a process 1 only then. There is no thread for the signals, for none can be made beside a namespace that is to come.
fn keep_namespace(mut command: Command) -> Result<u8> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    let mut child = command.spawn().context("cannot start a helper")?;
    let ended = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(&child),
        rustix::process::PidfdFlags::empty(),
    )?;
    let mut fds = [
        PollFd::new(&ended, PollFlags::IN),
        PollFd::new(&reader, PollFlags::IN),
    ];
    while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, None) {}
    if fds.first().is_some_and(|ended| ended.revents().is_empty()) {
        child.kill()?;
    }
    Ok(shell_status(child.wait()?))
}

fn program(spec: &Spec) -> Command {
    let mut argv = spec.argv.iter();
    let mut command = Command::new(argv.next().cloned().unwrap_or_default());
    // What the host's environment says is not about the tree: cargo's own variables mislead clippy, for one.
    let inside = matches!(spec.place, Place::Tree(_));
    let wanted = |name: &OsString| match name.to_str() {
        None => spec.environment == Environment::Whole && !inside,
        Some(name) if inside => environment::is_proxy(name),
        Some(name) => environment::passes(spec.environment, name),
    };
    let passed = std::env::vars_os().filter(|(name, _)| wanted(name));
    command.env_clear().envs(passed);
    command
        .args(argv)
        .envs(spec.env.iter().map(|(name, value)| (name, value)));
    if let Some(dir) = &spec.cwd {
        command.current_dir(dir);
    }
    command
}

/// Becomes the program; returns only the reason why not.
fn exec(spec: &Spec) -> anyhow::Error {
    let mut command = program(spec);
    let name = command.get_program().to_owned();
    anyhow::Error::from(command.exec()).context(format!("cannot start {}", name.display()))
}

/// Mount and process namespaces, and for an ordinary user a user namespace in which they are root.
fn enter_namespaces() -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if uid.is_root() {
        return unshare(flags)
            .context("cannot make a mount namespace: in a container, give it CAP_SYS_ADMIN");
    }
    unshare(flags | CloneFlags::CLONE_NEWUSER).context(
        "cannot make a user namespace: allow it with `sudo sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 \
         kernel.apparmor_restrict_unprivileged_userns=0` (the names that exist here), or run as root",
    )?;
    fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
        .context("cannot write /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        .context("cannot write /proc/self/gid_map")?;
    Ok(())
}

fn inner(spec: &Spec) -> Result<u8> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot make the mounts private")?;
    match &spec.place {
        Place::Tree(view) => build_view(view)?,
        _ => mount_proc(Path::new("/"))?,
    }
    Err(exec(spec))
}

/// Puts the view together on a tmpfs and makes it the root.
fn build_view(view: &View) -> Result<()> {
    let root = view.mountpoint.as_path();
    mount(
        Some("lab"),
        root,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("cannot mount a tmpfs")?;
    let tree = tree_root(view, root)?;
    for entry in fs::read_dir(&tree).with_context(|| format!("cannot read {}", tree.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if shown_from_tree(&name.to_string_lossy(), view.host) {
            show(&entry.path(), &root.join(&name), view.overlay.is_none())?;
        }
    }
    if view.host {
        show_host(root)?;
    } else {
        for dir in EMPTY {
            fs::create_dir_all(root.join(dir))?;
        }
    }
    own_directories(root)?;
    for extra in &view.binds {
        bind(&extra.from, &inside(root, &extra.to), extra.read_only)?;
    }
    nix::unistd::chroot(root).context("cannot change the root")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// The tree, or an overlay over it: with layers, for writing, or both.
fn tree_root(view: &View, root: &Path) -> Result<PathBuf> {
    if view.layers.is_empty() && view.overlay.is_none() {
        return Ok(view.tree.clone());
    }
    let merged = inside(root, Path::new(MERGED));
    fs::create_dir_all(&merged)?;
    let mut options = b"lowerdir=".to_vec();
    for dir in &view.layers {
        options = escape::overlay(&options, dir);
        options.push(b':');
    }
    options = escape::overlay(&options, &view.tree);
    if let Some(Overlay { upper, work }) = &view.overlay {
        options.extend(escape::overlay(b",upperdir=", upper));
        options.extend(escape::overlay(b",workdir=", work));
    }
    if !nix::unistd::geteuid().is_root() || in_user_namespace() {
        options.extend(b",userxattr");
    }
    let overlay = Some("overlay");
    mount(
        overlay,
        &merged,
        overlay,
        MsFlags::empty(),
        Some(options.as_slice()),
    )
    .with_context(|| why_no_overlay(view))?;
    Ok(merged)
}

/// What stands in the way of an overlay, as far as it can be seen.
fn why_no_overlay(view: &View) -> String {
    /// statfs(2) of an overlay.
    const OVERLAYFS: i64 = 0x794c_7630;
    let is_overlay =
        |dir: &Path| rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == OVERLAYFS);
    match &view.overlay {
        Some(Overlay { upper, .. }) if is_overlay(upper) => format!(
            "cannot mount an overlay over the Debian tree: {} is itself on overlayfs, as a container's own files are; put the cache on a \
             volume or a bind mount and name it in XDG_CACHE_HOME",
            upper.display()
        ),
        _ => "cannot mount an overlay over the Debian tree: this needs Linux 5.11 or newer, with overlayfs".to_owned(),
    }
}

/// True when we are root only by mapping.
fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn shown_from_tree(name: &str, host: bool) -> bool {
    if host {
        FROM_TREE.contains(&name)
    } else {
        FROM_TREE.contains(&name) || name == "var"
    }
}

/// A directory is bound, a link copied.
fn show(from: &Path, to: &Path, read_only: bool) -> Result<()> {
    if from.is_symlink() {
        let target = fs::read_link(from)?;
        return std::os::unix::fs::symlink(target, to)
            .with_context(|| format!("cannot link {}", to.display()));
    }
    if from.is_dir() {
        bind(from, to, read_only)
    } else {
        Ok(())
    }
}

fn show_host(root: &Path) -> Result<()> {
    for entry in fs::read_dir("/").context("cannot read /")? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if !FROM_TREE.contains(&text.as_ref()) && !OWN.contains(&text.as_ref()) {
            show(&entry.path(), &root.join(&name), false)?;
        }
    }
    for dir in ["usr/local", "usr/src"] {
        let from = Path::new("/").join(dir);
        if from.is_dir() && root.join(dir).is_dir() {
            bind(&from, &root.join(dir), false)?;
        }
    }
    Ok(())
}

fn own_directories(root: &Path) -> Result<()> {
    bind(Path::new("/dev"), &root.join("dev"), false)?;
    for dir in OWN {
        fs::create_dir_all(root.join(dir))?;
    }
    mount_proc(root)?;
    // Name servers, for what fetches packages; a link into /run here, so its target is what gets shown.
    let (from, to) = (Path::new("/etc/resolv.conf"), root.join("etc/resolv.conf"));
    if let (Ok(from), true) = (from.canonicalize(), to.is_file() && !to.is_symlink()) {
        bind(&from, &to, true)?;
    }
    Ok(())
}

/// A fresh proc; where a container forbids that, the one there is.
fn mount_proc(root: &Path) -> Result<()> {
    let to = root.join("proc");
    if mount(
        Some("proc"),
        &to,
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .is_err()
        && root != Path::new("/")
    {
        bind(Path::new("/proc"), &to, false)?;
    }
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn bind(from: &Path, to: &Path, read_only: bool) -> Result<()> {
    if !to.exists() {
        fs::create_dir_all(to).with_context(|| format!("cannot make room for {}", to.display()))?;
    }
    mount(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("cannot show {} as {}", from.display(), to.display()))?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | locked_flags(to);
        mount(None::<&str>, to, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("cannot make {} read-only", to.display()))?;
    }
    Ok(())
}

/// Flags that a user namespace may not take off: they have to be given again.
fn locked_flags(path: &Path) -> MsFlags {
    use rustix::fs::StatVfsMountFlags as Has;
    let Ok(found) = rustix::fs::statvfs(path) else {
        return MsFlags::empty();
    };
    [
        (Has::NOSUID, MsFlags::MS_NOSUID),
        (Has::NODEV, MsFlags::MS_NODEV),
        (Has::NOEXEC, MsFlags::MS_NOEXEC),
        (Has::NOATIME, MsFlags::MS_NOATIME),
        (Has::NODIRATIME, MsFlags::MS_NODIRATIME),
        (Has::RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(has, _)| found.f_flag.contains(*has))
    .fold(MsFlags::empty(), |flags, (_, flag)| flags | flag)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where the test itself is on an overlay.
    const ON_OVERLAY: &str = "LAB_TEST_ON_OVERLAY";

    fn why(upper: &Path) -> String {
        why_no_overlay(&View {
            tree: "/tree".into(),
            layers: Vec::new(),
            mountpoint: "/mnt".into(),
            host: false,
            binds: Vec::new(),
            overlay: Some(Overlay {
                upper: upper.to_owned(),
                work: upper.to_owned(),
            }),
        })
    }

    #[test]
    fn a_cache_on_overlayfs_is_told_from_a_kernel_without() {
        if let Some(dir) = std::env::var_os(ON_OVERLAY) {
            let why = why(Path::new(&dir));
            assert!(why.contains("is itself on overlayfs"), "{why}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(why(dir.path()).contains("needs Linux 5.11"));
        let script = "cd \"$1\" && mkdir lower upper work merged && mount -t tmpfs lab upper && mkdir upper/u upper/w && \
            mount -t overlay lab -o lowerdir=lower,upperdir=upper/u,workdir=upper/w,userxattr merged && echo mounted && \
            exec env \"$2=$1/merged\" \"$3\" --exact child::inner::tests::a_cache_on_overlayfs_is_told_from_a_kernel_without";
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(dir.path())
            .arg(ON_OVERLAY)
            .arg(std::env::current_exe().unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.contains("mounted") {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("\n# SKIP no overlay can be mounted here: {}", why.trim());
            return;
        }
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
