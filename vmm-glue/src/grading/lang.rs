// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The language of the rules' words: English, or Chinese from grader/rules.zh-CN.toml. What a rule's program and the kernel say
//! stays English. It must not know how a rule is run.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;
use serde::Deserialize;

use super::catalog::Rule;

/// File of the Chinese words, in the grader's folder.
pub const CHINESE: &str = "rules.zh-CN.toml";
/// Variables that choose a language, the first one that is set and not empty: locale(7).
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Lang {
    /// That of the environment.
    pub fn of_environment() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = VARIABLES.into_iter().filter_map(variable);
        let first = set.into_iter().find(|value| !value.is_empty());
        match first {
            Some(value) if value.starts_with("zh") => Self::Zh,
            _ => Self::En,
        }
    }

    /// A label of a failure's explanation.
    pub fn label(self, english: &'static str) -> &'static str {
        if self == Self::En {
            return english;
        }
        match english {
            "done" => "做法",
            "expected" => "应为",
            "seen" => "实为",
            "kernel" => "内核",
            "trace" => "追踪",
            "why" => "原因",
            "hint" => "提示",
            "lesson" => "课程",
            "see" => "参见",
            "test" => "测试",
            "rule" => "规则",
            "verdict" => "结论",
            "no verdict" => "没有结论",
            "seconds" => "秒",
            "what holds" => "内容",
            other => other,
        }
    }

    /// A label at the beginning of a line, and what is before the following lines: both as wide on a terminal, where a Chinese character
    /// has two columns.
    pub fn margin(self, label: &'static str, is_first: bool) -> String {
        match (self, is_first) {
            (Self::En, true) => format!("    {label:<9} "),
            (Self::Zh, true) => format!("    {}     ", self.label(label)),
            (_, false) => " ".repeat(if self == Self::En { 14 } else { 13 }),
        }
    }

    /// BCP 47's name.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Words>,
}

/// A rule in another language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    id: String,
    /// Hash of the English that it translates.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the test that names those that are behind")
    )]
    of: String,
    says: String,
    why: String,
    hint: String,
}

fn read(folder: &Path) -> Result<Vec<Words>> {
    let path = folder.join(CHINESE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
    Ok(file.rule)
}

/// Puts the words of the language into the rules.
pub fn translate(rules: &mut [Rule], folder: &Path, lang: Lang) -> Result<()> {
    if lang == Lang::En {
        return Ok(());
    }
    for words in read(folder)? {
        if let Some(rule) = rules.iter_mut().find(|rule| rule.id == words.id) {
            rule.says = words.says;
            rule.why = words.why;
            rule.hint = words.hint;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Catalog;
    use super::super::catalog::FOLDER;
    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn hash(rule: &Rule) -> String {
        let text = [rule.says.as_str(), &rule.why, &rule.hint].join("\n");
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }

    #[test]
    fn every_rule_has_its_words_in_chinese_and_none_is_behind() {
        let rules = Catalog::load(repository()).unwrap().rules;
        let words = read(&repository().join(FOLDER)).unwrap();
        let ids = |all: &mut dyn Iterator<Item = &String>| all.cloned().collect::<Vec<_>>();
        assert_eq!(
            ids(&mut words.iter().map(|words| &words.id)),
            ids(&mut rules.iter().map(|rule| &rule.id))
        );
        let behind: Vec<String> = words
            .iter()
            .zip(&rules)
            .filter(|(words, rule)| words.of != hash(rule))
            .map(|(words, rule)| {
                format!("{}: translate it, then of = \"{}\"", words.id, hash(rule))
            })
            .collect();
        assert!(
            behind.is_empty(),
            "{CHINESE} is behind:\n{}",
            behind.join("\n")
        );
    }

    #[test]
    fn the_first_variable_that_is_set_chooses_the_language() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            Lang::of(move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(of(&[]), Lang::En);
        assert_eq!(of(&[("LANG", "zh_CN.UTF-8")]), Lang::Zh);
        assert_eq!(of(&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(
            of(&[("LC_ALL", ""), ("LC_MESSAGES", "zh_TW"), ("LANG", "C")]),
            Lang::Zh
        );
    }

    #[test]
    fn a_chinese_label_is_as_wide_as_the_margin_of_the_lines_below() {
        for label in [
            "done", "expected", "seen", "kernel", "trace", "why", "hint", "lesson", "see", "test",
        ] {
            let first = Lang::Zh.margin(label, true);
            let width: usize = first
                .chars()
                .map(|c| if c.is_ascii() { 1 } else { 2 })
                .sum();
            assert_eq!(width, Lang::Zh.margin(label, false).len(), "{label}");
            let first = Lang::En.margin(label, true);
            assert_eq!(first.len(), Lang::En.margin(label, false).len());
        }
    }
}
