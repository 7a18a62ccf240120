// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a child is to be: program, working directory, and the place where it runs.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde::Serialize;

use super::inner;

/// Bytes of a word on a command line that every kernel takes.
const WORD_MAX: usize = 100_000;

/// Everything the helper process has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Working directory, as the program sees it.
    #[serde(with = "super::raw::option")]
    pub cwd: Option<PathBuf>,
    /// Environment variables to add.
    pub env: Vec<(OsString, OsString)>,
    /// How much of the user's environment it sees.
    pub environment: Environment,
    /// Permissions that its files do not get; without it, the user's.
    pub umask: Option<u32>,
    /// Where it runs.
    pub place: Place,
    /// Process id of the lab; the helper ends if that is no longer its parent.
    pub parent: u32,
}

/// How much of the user's environment a child sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Environment {
    /// All of it.
    Whole,
    /// All but what changes how a program is loaded: those variables are about the host's programs, not about the tree's.
    NotTheLoaders,
    /// All but what changes cargo's results: flags, profiles and targets.
    NotTheBuilds,
    /// All but what cargo-nextest takes its options from.
    NotNextests,
    /// Only where programs, the user and the network's proxies are.
    Little,
}

/// Where a child runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Place {
    /// Here; the program itself dies with the lab. For programs without children.
    Here,
    /// Here, in a process group that dies with the lab.
    Group,
    /// Here, and it outlives the lab: for parts of a machine that stays, which are found by the lock that they hold open.
    Stay,
    /// In mount and process namespaces of its own (root only): whatever it mounts or starts vanishes with it.
    Isolated,
    /// Inside the Debian tree.
    Tree(View),
}

/// How the inside of the tree looks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// The tree; always mounted read-only.
    #[serde(with = "super::raw::path")]
    pub tree: PathBuf,
    /// Directories of files to lie over the tree, the topmost first.
    #[serde(with = "super::raw::paths")]
    pub layers: Vec<PathBuf>,
    /// An empty directory to mount the new root on (in a private namespace).
    #[serde(with = "super::raw::path")]
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
    #[serde(with = "super::raw::path")]
    pub from: PathBuf,
    /// Inside.
    #[serde(with = "super::raw::path")]
    pub to: PathBuf,
    /// Forbid writing.
    pub read_only: bool,
}

/// Where an overlay keeps what is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overlay {
    /// The result: files added and changed.
    #[serde(with = "super::raw::path")]
    pub upper: PathBuf,
    /// The kernel's scratch directory, on the same file system.
    #[serde(with = "super::raw::path")]
    pub work: PathBuf,
}

impl Spec {
    /// A program that runs here and dies with the lab.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            cwd: None,
            env: Vec::new(),
            environment: Environment::Whole,
            umask: None,
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

    /// Sets how much of the user's environment it sees.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// For programs that bring their own loader and libraries.
    pub fn without_loader_variables(self) -> Self {
        self.environment(Environment::NotTheLoaders)
    }

    /// Files that others must be able to read get the usual modes, whatever the user's own umask.
    pub fn usual_umask(mut self) -> Self {
        self.umask = Some(0o022);
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
            .args(self.to_words());
        command
    }

    /// As JSON in pieces, for one word of a command line holds 128 KiB at most.
    pub(super) fn to_words(&self) -> Vec<String> {
        // Strings, numbers and byte arrays only: this cannot fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut words = Vec::new();
        let mut rest = json.as_str();
        while !rest.is_empty() {
            let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_MAX));
            words.push(word.to_owned());
            rest = after;
        }
        words
    }

    /// The other way.
    pub(super) fn from_words(words: &[OsString]) -> serde_json::Result<Self> {
        serde_json::from_slice(&words.join(OsStr::new("")).into_encoded_bytes())
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

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn any_path_and_any_length_reach_the_helper() {
        let odd = Path::new(OsStr::from_bytes(b"/tmp/\xff\xfe"));
        let view = View {
            tree: odd.to_owned(),
            layers: vec![odd.to_owned()],
            mountpoint: odd.to_owned(),
            host: false,
            binds: vec![Bind {
                from: odd.to_owned(),
                to: odd.to_owned(),
                read_only: true,
            }],
            overlay: Some(Overlay {
                upper: odd.to_owned(),
                work: odd.to_owned(),
            }),
        };
        let spec = Spec::new(odd)
            .arg("\u{e9}".repeat(200_000))
            .cwd(odd)
            .place(Place::Tree(view));
        let words = spec.to_words();
        assert!(words.len() > 1 && words.iter().all(|word| word.len() <= WORD_MAX));
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let back = Spec::from_words(&words).unwrap();
        assert_eq!(format!("{back:?}"), format!("{spec:?}"));
    }
}
