// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files for editors: compile_commands.json (clangd) and rust-project.json (rust-analyzer), made by the kernel's own scripts and written with
//! the host's paths.
//!
//! This file must not know what the module is about.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::Kernel;
use super::KernelChoice;
use super::sandbox;
use super::source::Source;
use crate::cache::Entry;
use crate::stages::kernel;
use crate::stages::shop::Shop;

/// Its name in the cache.
const STAGE: &str = "editor-files";
/// For clangd.
const COMMANDS: &str = "compile_commands.json";
/// For rust-analyzer.
const PROJECT: &str = "rust-project.json";

/// Places of the sandbox, and where they are on the host.
#[derive(Debug)]
struct Places(Vec<(String, PathBuf)>);

/// Writes both files into the source's folder; their names.
pub fn write(
    shop: &Shop,
    tree: &Entry,
    kernel: &Kernel,
    choice: KernelChoice,
    source: &Source,
) -> Result<Vec<PathBuf>> {
    let key = super::key(shop, source, choice, STAGE)?;
    let what = format!("describing {} for editors", source.given.display());
    let tool = sandbox::obtain(shop, tree)?;
    let entry = shop.obtain(STAGE, &key, &what, |bench| {
        let copy = bench.dir.join(sandbox::COPY);
        source.copy(&copy)?;
        let view = sandbox::view(shop, tree, &tool, kernel, bench.dir)?;
        super::make(bench, &view, kernel, source, &[])?;
        let place = Path::new(sandbox::PLACE).join(&source.place);
        let build = format!("{}/build", kernel::PLACE);
        let module = format!("M={}", place.display());
        let has_rust = source
            .files
            .keys()
            .any(|name| name.extension().is_some_and(|ext| ext == "rs"));
        let goals: &[&str] = if has_rust {
            &[COMMANDS, "rust-analyzer"]
        } else {
            &[COMMANDS]
        };
        for goal in goals {
            let words = ["make", "-C", &build, &module, goal].map(str::to_owned);
            let library = "export RUST_LIB_SRC=$(echo /usr/src/rustc-*/library); exec \"$@\"";
            let words = [
                ["bash", "-c", library, "make"].map(str::to_owned).to_vec(),
                words.to_vec(),
                kernel.make_variables().into_iter().cloned().collect(),
            ]
            .concat();
            bench.run(&sandbox::spec(&view, &source.place, &words))?;
        }
        let made = copy.join(&source.place);
        for name in [COMMANDS, PROJECT] {
            if made.join(name).is_file() {
                std::fs::rename(made.join(name), bench.dir.join(name))?;
            }
        }
        add_cfgs(&bench.dir.join(PROJECT), &made)?;
        crate::cache::remove(&copy)
    })?;
    let places = Places::of(shop, tree, kernel, source)?;
    let folder = source.folder();
    let mut written = Vec::new();
    for name in [COMMANDS, PROJECT] {
        let Ok(text) = std::fs::read_to_string(entry.join(name)) else {
            continue;
        };
        let mut value: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("the kernel's {name} is no JSON"))?;
        places.translate(&mut value);
        complete(&mut value, &places.folder(source), &gcc_only(kernel));
        let to = folder.join(name);
        std::fs::write(&to, serde_json::to_string_pretty(&value)? + "\n")
            .with_context(|| format!("cannot write {}", to.display()))?;
        written.push(to);
    }
    Ok(written)
}

/// The kernel's script does not see `--cfg` of the module's own: the compiler's command line has them.
fn add_cfgs(project: &Path, folder: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(project) else {
        return Ok(());
    };
    let mut value: serde_json::Value = serde_json::from_str(&text)?;
    for module in crates(&mut value) {
        let root = module.get("root_module").and_then(|root| root.as_str());
        let stem = root
            .map(Path::new)
            .and_then(Path::file_stem)
            .unwrap_or_default();
        let command = folder.join(format!(".{}.o.cmd", stem.display()));
        let command = std::fs::read_to_string(command).unwrap_or_default();
        let command = with_files(&command, folder);
        if let Some(cfg) = module.get_mut("cfg").and_then(|cfg| cfg.as_array_mut()) {
            cfg.extend(cfgs(&command).map(serde_json::Value::from));
        }
    }
    std::fs::write(project, value.to_string())?;
    Ok(())
}

/// Crates of the module: the script writes their paths as they are from its folder.
fn crates(project: &mut serde_json::Value) -> impl Iterator<Item = &mut serde_json::Value> {
    let crates = project
        .get_mut("crates")
        .and_then(|crates| crates.as_array_mut());
    crates.into_iter().flatten().filter(|module| {
        let root = module.get("root_module").and_then(|root| root.as_str());
        root.is_some_and(|root| !root.starts_with('/') || root.starts_with(sandbox::PLACE))
    })
}

/// A command line with the arguments that it takes from files (`@FILE`).
fn with_files(command: &str, folder: &Path) -> String {
    let words = command.split_whitespace().map(|word| {
        let file = word.strip_prefix('@').map(|file| folder.join(file));
        file.and_then(|file| std::fs::read_to_string(file).ok())
            .unwrap_or_else(|| word.to_owned())
    });
    words.collect::<Vec<_>>().join(" ")
}

fn cfgs(command: &str) -> impl Iterator<Item = &str> {
    let words = command.split_whitespace();
    words
        .clone()
        .zip(words.skip(1))
        .filter(|(option, _)| *option == "--cfg")
        .map(|(_, cfg)| cfg)
}

/// Options of GCC's that clang does not know, as the kernel lists them for bindgen; `%` stands for anything.
fn gcc_only(kernel: &Kernel) -> Vec<String> {
    let makefile = std::fs::read_to_string(kernel.source().join("rust/Makefile"));
    skipped(&makefile.unwrap_or_default())
}

fn skipped(makefile: &str) -> Vec<String> {
    let Some((_, list)) = makefile.split_once("bindgen_skip_c_flags :=") else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for line in list.lines() {
        words.extend(
            line.trim_end_matches('\\')
                .split_whitespace()
                .map(str::to_owned),
        );
        if !line.ends_with('\\') {
            break;
        }
    }
    words
}

/// Absolute paths for what the scripts name by its place in the folder, and no options that clangd would complain of.
fn complete(value: &mut serde_json::Value, folder: &Path, gcc_only: &[String]) {
    for module in crates(value) {
        if let Some(root) = module.get_mut("root_module") {
            let path = folder.join(root.as_str().unwrap_or_default());
            *root = path.display().to_string().into();
        }
    }
    for entry in value.as_array_mut().into_iter().flatten() {
        if let Some(command) = entry.get_mut("command") {
            let words = command.as_str().unwrap_or_default().split(' ');
            let kept: Vec<_> = words.filter(|word| !is_one_of(word, gcc_only)).collect();
            *command = kept.join(" ").into();
        }
    }
}

fn is_one_of(word: &str, patterns: &[String]) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.split_once('%') {
            Some((start, end)) => word.starts_with(start) && word.ends_with(end),
            None => word == pattern,
        })
}

impl Places {
    /// The folder of the source on the host.
    fn folder(&self, source: &Source) -> PathBuf {
        let root = self.0.iter().find(|(inside, _)| inside == sandbox::PLACE);
        root.map_or_else(PathBuf::new, |(_, root)| root.join(&source.place))
    }

    fn of(shop: &Shop, tree: &Entry, kernel: &Kernel, source: &Source) -> Result<Self> {
        let folder = source.folder();
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &folder
        };
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))?;
        let root = if source.place.as_os_str().is_empty() {
            folder
        } else {
            shop.repository.clone()
        };
        let mut places = Vec::new();
        // A single file's copy may be called otherwise.
        for (name, from) in &source.files {
            if root.join(name) != *from {
                let inside = Path::new(sandbox::PLACE).join(name);
                places.push((inside.display().to_string(), from.clone()));
            }
        }
        places.extend([
            (sandbox::PLACE.to_owned(), root),
            (format!("{}/source", kernel::PLACE), kernel.source()),
            (format!("{}/build", kernel::PLACE), kernel.build()),
            ("/usr".to_owned(), tree.join("usr")),
        ]);
        Ok(Self(places))
    }

    /// Every path of the sandbox in every string.
    fn translate(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = self.text(text),
            serde_json::Value::Array(values) => {
                values.iter_mut().for_each(|value| self.translate(value));
            }
            serde_json::Value::Object(fields) => {
                fields.values_mut().for_each(|value| self.translate(value));
            }
            _ => {}
        }
    }

    fn text(&self, text: &str) -> String {
        let mut done = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('/') {
            let (before, path) = rest.split_at(at);
            done.push_str(before);
            // A path begins where no other goes on.
            let begins = before
                .chars()
                .next_back()
                .or(done.chars().next_back())
                .is_none_or(|c| {
                    !c.is_ascii_alphanumeric() && !"._-/".contains(c) || before.ends_with("-I")
                });
            let place = self.0.iter().find(|(inside, _)| {
                path.strip_prefix(inside.as_str()).is_some_and(|after| {
                    !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                })
            });
            rest = match place.filter(|_| begins) {
                Some((inside, host)) => {
                    done.push_str(&host.display().to_string());
                    path.strip_prefix(inside.as_str()).unwrap_or_default()
                }
                None => {
                    done.push('/');
                    path.strip_prefix('/').unwrap_or_default()
                }
            };
        }
        done + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_sandbox_become_the_hosts_wherever_they_begin() {
        let places = Places(vec![
            ("/lab/module".to_owned(), "/home/me/x".into()),
            ("/lab/kernel/source".to_owned(), "/cache/source".into()),
            ("/usr/src".to_owned(), "/cache/tree/usr/src".into()),
        ]);
        for (inside, outside) in [
            ("/lab/module/a.c", "/home/me/x/a.c"),
            (
                "gcc -I/lab/kernel/source/include -o /lab/module/a.o",
                "gcc -I/cache/source/include -o /home/me/x/a.o",
            ),
            (
                "-fmacro-prefix-map=/lab/kernel/source/=",
                "-fmacro-prefix-map=/cache/source/=",
            ),
            ("include/usr/src/x", "include/usr/src/x"),
            ("/lab/modules/a.c", "/lab/modules/a.c"),
        ] {
            assert_eq!(places.text(inside), outside);
        }
        let mut value = serde_json::json!({"a": ["/usr/src/rustc"], "b": 1});
        places.translate(&mut value);
        assert_eq!(
            value,
            serde_json::json!({"a": ["/cache/tree/usr/src/rustc"], "b": 1})
        );
    }

    #[test]
    fn clangd_sees_no_option_of_gccs_and_rust_analyzer_the_modules_own_cfg() {
        let makefile = "x\nbindgen_skip_c_flags := -mno-fp-ret-in-387 -mpreferred-stack-boundary=% \\\n\t-fconserve-stack\nother := -m64\n";
        let only = skipped(makefile);
        let mut commands = serde_json::json!([{"command": "gcc -m64 -mpreferred-stack-boundary=3 -fconserve-stack -c a.c"}]);
        complete(&mut commands, Path::new("/x"), &only);
        assert_eq!(commands[0]["command"], "gcc -m64 -c a.c");
        let mut project = serde_json::json!({"crates": [{"root_module": "/usr/core.rs"}, {"root_module": "m.rs"}]});
        complete(&mut project, Path::new("/home/me"), &only);
        assert_eq!(project["crates"][1]["root_module"], "/home/me/m.rs");
        assert_eq!(project["crates"][0]["root_module"], "/usr/core.rs");
        assert_eq!(
            cfgs("rustc --cfg A -O --cfg B x.rs").collect::<Vec<_>>(),
            ["A", "B"]
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("has.args"), "--cfg\nC\n").unwrap();
        let command = with_files("rustc --cfg A @has.args @none x.rs", dir.path());
        assert_eq!(cfgs(&command).collect::<Vec<_>>(), ["A", "C"]);
    }
}
