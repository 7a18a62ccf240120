//! What a child is to be: program, working directory, and the place where it runs.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde::Serialize;

use super::inner;

/// Everything the helper process has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Working directory, as the program sees it.
    pub cwd: Option<PathBuf>,
    /// Environment variables to add.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub place: Place,
    /// Process id of the lab; the helper ends if that is no longer its parent.
    pub parent: u32,
}

/// Where a child runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Place {
    /// Here; the program itself dies with the lab. For programs without children.
    Here,
    /// Here, in a process group that dies with the lab.
    Group,
    /// In mount and process namespaces of its own (root only): whatever it mounts or starts vanishes with it.
    Isolated,
    /// Inside the Debian tree.
    Tree(View),
}

/// How the inside of the tree looks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// The tree; always mounted read-only.
    pub tree: PathBuf,
    /// Directories of files to lie over the tree, the topmost first.
    pub layers: Vec<PathBuf>,
    /// An empty directory to mount the new root on (in a private namespace).
    pub mountpoint: PathBuf,
    /// Show the host's directories, save those that the tree brings, at their own paths.
    pub host: bool,
    /// More of the host, on top.
    pub binds: Vec<Bind>,
    /// Collect writes to the tree here instead of refusing them.
    pub overlay: Option<Overlay>,
}

/// A directory of the host that the tree's programs see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub from: PathBuf,
    /// Inside.
    pub to: PathBuf,
    /// Forbid writing.
    pub read_only: bool,
}

/// Where an overlay keeps what is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overlay {
    /// The result: files added and changed.
    pub upper: PathBuf,
    /// The kernel's scratch directory, on the same file system.
    pub work: PathBuf,
}

impl Spec {
    /// A program that runs here and dies with the lab.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            cwd: None,
            env: Vec::new(),
            place: Place::Here,
            parent: std::process::id(),
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the place.
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The command that starts the helper with this.
    pub fn command(&self) -> Command {
        // Not the program's path: a newer lab may have been built over it meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(inner::SUBCOMMAND)
            .arg(inner::OUTER)
            .arg(self.to_json());
        command
    }

    pub(super) fn to_json(&self) -> String {
        // Paths and strings only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As one would type it.
    pub fn shell(&self) -> String {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), quote(value)));
        env.chain(self.argv.iter().map(|arg| quote(arg)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn quote(text: &OsStr) -> String {
    shell_words::quote(&text.to_string_lossy()).into_owned()
}
