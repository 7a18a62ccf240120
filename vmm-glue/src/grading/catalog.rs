// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rules: grader/rules.toml, and which of them are selected.
//!
//! Words only. This file must not know how a rule is run.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::lang;
use super::lang::Lang;
use super::outcome::Outcome;
use super::shown;
use crate::exit::usage;

/// Folder of the grader in the repository.
pub const FOLDER: &str = "grader";
/// Seconds after which a rule hangs, unless it says otherwise.
const SECONDS: u64 = 45;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Rule>,
}

/// A rule, in words.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// FAMILY.NAME.
    pub id: String,
    /// M, not O.
    pub must: bool,
    /// What holds.
    pub says: String,
    /// What breaks where it does not.
    pub why: String,
    /// What to write.
    pub hint: String,
    /// Man page, or page of the kernel's documentation.
    pub source: String,
    /// The chapter's lesson.
    pub lesson: Option<String>,
    /// What the device does wrong meanwhile, for rules about such devices: they have a machine of their own.
    #[serde(default)]
    pub faults: Vec<String>,
    /// QEMU's other devices meanwhile, for rules about neighbours: they have a machine of their own.
    #[serde(default)]
    pub machine: Vec<String>,
    /// Seconds after which it hangs.
    #[serde(default = "seconds")]
    seconds: u64,
}

fn seconds() -> u64 {
    SECONDS
}

impl Rule {
    /// Part of the id before the dot.
    #[cfg(test)]
    pub fn family(&self) -> &str {
        self.id.split('.').next().unwrap_or_default()
    }

    /// Whether it has a machine of its own.
    pub fn is_apart(&self) -> bool {
        !self.faults.is_empty() || !self.machine.is_empty()
    }

    /// How long it may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// M or O.
    pub fn class(&self) -> &'static str {
        if self.must { "M" } else { "O" }
    }
}

/// All rules, in the order in which they run.
#[derive(Debug)]
pub struct Catalog {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The language of their words.
    pub lang: Lang,
    folder: PathBuf,
}

impl Catalog {
    /// Reads the repository's, in English.
    pub fn load(repository: &Path) -> Result<Self> {
        Self::load_in(repository, Lang::En)
    }

    /// Reads the repository's, in a language.
    pub fn load_in(repository: &Path, lang: Lang) -> Result<Self> {
        let folder = repository.join(FOLDER);
        let path = folder.join("rules.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut file: File =
            toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
        lang::translate(&mut file.rule, &folder, lang)?;
        Ok(Self {
            rules: file.rule,
            lang,
            folder,
        })
    }

    /// Source of a rule's program, if it has one.
    pub fn program(&self, rule: &Rule) -> Option<PathBuf> {
        let path = self.folder.join("rules").join(format!("{}.c", rule.id));
        path.is_file().then_some(path)
    }

    /// The rule that ended so.
    pub fn rule_of(&self, outcome: &Outcome) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == outcome.id)
    }

    /// The rule of this id.
    pub fn find(&self, id: &str) -> Result<&Rule> {
        self.rules.iter().find(|rule| rule.id == id).ok_or_else(|| {
            let near = self
                .rules
                .iter()
                .max_by(|a, b| {
                    let like = |rule: &Rule| strsim::jaro_winkler(&rule.id, id);
                    like(a).total_cmp(&like(b))
                })
                .map_or(String::new(), |rule| format!(", perhaps {}", rule.id));
            usage(format!(
                "rule {id}: there is none of that name{near}; `cargo lab grade --list` lists them"
            ))
        })
    }

    /// The rules that one of these patterns matches; all, without any.
    pub fn select(&self, globs: &[String]) -> Result<Vec<&Rule>> {
        let mut patterns = Vec::new();
        for glob in globs {
            let pattern =
                Pattern::new(glob).map_err(|err| usage(format!("--rule {glob}: {err}")))?;
            if !self.rules.iter().any(|rule| pattern.matches(&rule.id)) {
                return Err(self.find(glob).err().unwrap_or_else(|| {
                    usage(format!("--rule {glob}: no rule has a name like that"))
                }));
            }
            patterns.push(pattern);
        }
        let wanted = |rule: &&Rule| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&rule.id))
        };
        Ok(self.rules.iter().filter(wanted).collect())
    }

    /// A line for each rule.
    pub fn list(&self) -> String {
        let width = self.rules.iter().map(|rule| rule.id.len()).max();
        self.rules
            .iter()
            .map(|rule| {
                format!(
                    "{}  {:width$}  {}\n",
                    rule.class(),
                    rule.id,
                    rule.says,
                    width = width.unwrap_or_default()
                )
            })
            .collect()
    }

    /// A rule in full, as `--show` prints it: comments and a program that compiles.
    pub fn show(&self, rule: &Rule) -> Result<String> {
        let mut text = format!(
            "// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause\n/*\n * {} ({}): {}.\n * Why: {}.\n * Hint: {}.\n * See {}{}.\n */\n",
            rule.id,
            if rule.must { "must" } else { "optional" },
            rule.says,
            rule.why,
            rule.hint.replace("*/", "* /"),
            rule.source,
            rule.lesson.as_ref().map_or(String::new(), |lesson| format!(
                ", cargo lab lesson {lesson}"
            ))
        );
        match self.program(rule) {
            Some(path) => {
                let read = |path: &Path| {
                    std::fs::read_to_string(path)
                        .with_context(|| format!("cannot read {}", path.display()))
                };
                let header = |name: &str| read(&path.with_file_name(name));
                text.push_str(&shown::program(&read(&path)?, header)?);
            }
            None => text.push_str(
                "/* No program: the lab itself builds, loads, unloads and watches. See grader/guest.sh. */\n",
            ),
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn catalog() -> Catalog {
        Catalog::load(repository()).unwrap()
    }

    #[test]
    fn a_rule_has_a_program_or_belongs_to_a_family_of_the_labs() {
        for rule in &catalog().rules {
            let labs = ["build", "module", "kernel"].contains(&rule.family());
            assert_ne!(catalog().program(rule).is_some(), labs, "{}", rule.id);
        }
    }

    #[test]
    fn a_program_belongs_to_a_rule_and_names_it_first() {
        let catalog = catalog();
        let ids: BTreeSet<_> = catalog.rules.iter().map(|rule| rule.id.clone()).collect();
        assert_eq!(ids.len(), catalog.rules.len(), "an id is there twice");
        for path in crate::key::files(&repository().join("grader/rules")).unwrap() {
            if path.extension().is_some_and(|ext| ext == "c") {
                let id = path.file_stem().unwrap().to_str().unwrap();
                assert!(ids.contains(id), "{id}");
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.contains(&format!("\n/* {id}: ")), "{id}");
                assert!(text.lines().count() < 110, "{id}");
            }
        }
    }

    #[test]
    fn a_rules_lesson_exists() {
        for rule in catalog().rules {
            if let Some(lesson) = rule.lesson {
                let page = repository().join(format!("docs/lessons/{lesson}.md"));
                assert!(page.is_file(), "{}: {lesson}", rule.id);
            }
        }
    }

    #[test]
    fn a_glob_selects_and_one_that_matches_nothing_is_a_usage_error_that_names_the_nearest() {
        let catalog = catalog();
        let some = catalog.select(&["fasync.*".to_owned()]).unwrap();
        assert!(some.len() >= 4 && some.iter().all(|rule| rule.family() == "fasync"));
        assert_eq!(catalog.select(&[]).unwrap().len(), catalog.rules.len());
        let err = catalog.select(&["read.wake".to_owned()]).unwrap_err();
        let (status, message) = crate::exit::of(&err);
        assert_eq!(status, crate::exit::USAGE);
        assert!(message.contains("perhaps read.wakes"), "{message}");
    }

    #[test]
    fn a_shown_rule_holds_its_frame() {
        let catalog = catalog();
        let rule = catalog.find("read.data").unwrap();
        let text = catalog.show(rule).unwrap();
        assert!(text.contains("int main(") && text.contains("static void rule(void)\n{"));
        assert!(!text.contains("#include \"rule.h\""));
        for rule in &catalog.rules {
            let text = catalog.show(rule).unwrap();
            assert!(!text.contains("#include \""), "{}", rule.id);
        }
    }
}
