//! What dpkg knows of the tree: which packages are installed, what they depend on, which files are theirs.
//!
//! It reads dpkg's own files. It must not know what the answer is wanted for.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

/// dpkg's folder in the tree.
const DPKG: &str = "var/lib/dpkg";

/// The installed packages.
#[derive(Debug, Default)]
pub struct Packages {
    by_name: HashMap<String, Package>,
    /// Names that packages provide besides their own.
    providers: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Package {
    essential: bool,
    /// Alternatives of each dependency.
    depends: Vec<Vec<String>>,
}

impl Packages {
    /// Those of a tree.
    pub fn of(tree: &Path) -> Result<Self> {
        let path = tree.join(DPKG).join("status");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(&text))
    }

    /// Parses dpkg's status file.
    fn parse(text: &str) -> Self {
        let mut packages = Self::default();
        for paragraph in text.split("\n\n") {
            let fields = || paragraph.lines().filter_map(|line| line.split_once(": "));
            let field = |wanted: &str| fields().find(|(name, _)| *name == wanted);
            let Some((_, name)) = field("Package") else {
                continue;
            };
            if field("Status").is_none_or(|(_, status)| !status.ends_with(" installed")) {
                continue;
            }
            let depends = ["Pre-Depends", "Depends"]
                .iter()
                .filter_map(|wanted| field(wanted))
                .flat_map(|(_, value)| value.split(','))
                .map(|alternatives| alternatives.split('|').map(bare).collect())
                .collect();
            for provided in field("Provides").map_or("", |(_, value)| value).split(',') {
                packages.providers.insert(bare(provided), name.to_owned());
            }
            let essential = field("Essential").is_some_and(|(_, value)| value == "yes");
            packages
                .by_name
                .insert(name.to_owned(), Package { essential, depends });
        }
        packages
    }

    /// The essential packages, these, and all that they depend on; an error names one that is not installed.
    pub fn closure(&self, wanted: &[String]) -> Result<HashSet<String>> {
        let essential = self
            .by_name
            .iter()
            .filter(|(_, package)| package.essential)
            .map(|(name, _)| name.clone());
        let mut todo: Vec<String> = essential.chain(wanted.iter().cloned()).collect();
        let mut found = HashSet::new();
        while let Some(name) = todo.pop() {
            let package = self
                .by_name
                .get(&name)
                .with_context(|| format!("the Debian tree has no package {name}"))?;
            if found.insert(name) {
                let satisfied = |alternatives: &Vec<String>| {
                    alternatives.iter().find_map(|name| self.installed(name))
                };
                todo.extend(package.depends.iter().filter_map(satisfied));
            }
        }
        Ok(found)
    }

    fn installed(&self, name: &str) -> Option<String> {
        if self.by_name.contains_key(name) {
            return Some(name.to_owned());
        }
        self.providers.get(name).cloned()
    }

    /// Paths, relative to the tree, that belong to packages which are not `kept`, and to none that is.
    pub fn files_of_others(&self, tree: &Path, kept: &HashSet<String>) -> Result<HashSet<String>> {
        let dir = tree.join(DPKG).join("info");
        let (mut others, mut ours) = (HashSet::new(), HashSet::new());
        for path in crate::cache::entries(&dir) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(package) = name.strip_suffix(".list") else {
                continue;
            };
            // "libc6:amd64.list"
            let package = package.split(':').next().unwrap_or_default();
            let files = if kept.contains(package) {
                &mut ours
            } else {
                &mut others
            };
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            files.extend(text.lines().map(relative));
        }
        Ok(others.difference(&ours).cloned().collect())
    }
}

/// "libc6:any (>= 2.38)" → "libc6".
fn bare(dependency: &str) -> String {
    let name = dependency.trim().split([' ', '(', ':']).next();
    name.unwrap_or_default().to_owned()
}

/// A path as the tree has it: dpkg may still name /bin what is in /usr/bin.
fn relative(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let moved = ["bin/", "sbin/", "lib/", "lib64/"];
    if moved.iter().any(|dir| path.starts_with(dir)) {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: base\nEssential: yes\nStatus: install ok installed\nDepends: libc6 (>= 2.4), shell\n\n\
        Package: libc6\nStatus: install ok installed\n\n\
        Package: dash\nStatus: install ok installed\nProvides: shell (= 1)\n\n\
        Package: tool\nStatus: install ok installed\nPre-Depends: gone | libtool:any, libc6\nDescription: a tool\n Depends: lies\n\n\
        Package: libtool\nStatus: install ok installed\n\n\
        Package: other\nStatus: install ok installed\n\n\
        Package: removed\nStatus: deinstall ok config-files\nEssential: yes\n";

    fn closure(wanted: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let mut names: Vec<_> = Packages::parse(STATUS)
            .closure(&wanted)?
            .into_iter()
            .collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn a_closure_has_essential_packages_alternatives_and_providers() {
        assert_eq!(closure(&[]).unwrap(), ["base", "dash", "libc6"]);
        assert_eq!(
            closure(&["tool"]).unwrap(),
            ["base", "dash", "libc6", "libtool", "tool"]
        );
    }

    #[test]
    fn a_package_that_is_not_installed_is_an_error_that_names_it() {
        for absent in ["removed", "never-heard-of"] {
            let said = closure(&[absent]).unwrap_err().to_string();
            assert!(said.contains(absent), "{said}");
        }
    }

    #[test]
    fn a_file_of_a_kept_and_another_package_is_kept() {
        let tree = tempfile::tempdir().unwrap();
        let info = tree.path().join(DPKG).join("info");
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("kept:amd64.list"), "/.\n/usr\n/usr/share\n").unwrap();
        fs::write(info.join("other.list"), "/usr\n/bin/other\n/usr/x\n").unwrap();
        let kept = HashSet::from(["kept".to_owned()]);
        let files = Packages::default().files_of_others(tree.path(), &kept);
        let mut files: Vec<_> = files.unwrap().into_iter().collect();
        files.sort();
        assert_eq!(files, ["usr/bin/other", "usr/x"]);
    }
}
