// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! "Since the book": recognises in a compiler's messages what older kernels took, and says in one line what to write now.
//!
//! Text in, text out; the knowledge is in vmm-glue/history/table.toml. This file must not know how anything is compiled.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use regex::Regex;
use serde::Deserialize;

/// The table and its samples, in the repository.
pub const FOLDER: &str = "vmm-glue/history";
/// Lines after the first that belong to a message at most.
const CONTEXT: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    change: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    since: String,
    text: String,
    header: Option<String>,
    #[serde(default)]
    undeclared: Vec<String>,
    #[serde(default)]
    member: Vec<String>,
    #[serde(default)]
    arguments: Vec<String>,
    message: Option<String>,
    context: Option<String>,
}

/// All changes.
#[derive(Debug)]
pub struct Table {
    changes: Vec<Change>,
}

/// One, with its signs.
#[derive(Debug)]
pub struct Change {
    /// Folder of its samples.
    pub id: String,
    since: String,
    text: String,
    signs: Vec<Sign>,
}

/// What a message looks like that is caused by a change.
#[derive(Debug)]
struct Sign {
    /// Its first line.
    message: Regex,
    /// That line and those that follow.
    context: Option<Regex>,
}

impl Change {
    /// The explanation.
    pub fn line(&self) -> String {
        format!("  = since Linux {}: {}", self.since, self.text)
    }
}

impl Table {
    /// Reads it.
    pub fn load(repository: &Path) -> Result<Self> {
        let path = repository.join(FOLDER).join("table.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not right", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let entries = toml::from_str::<File>(text)?.change;
        let changes = entries.into_iter().map(change).collect::<Result<_>>()?;
        Ok(Self { changes })
    }

    /// All changes, in the table's order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The change that a message shows: its first line, and what follows.
    pub fn cause(&self, message: &str, rest: &[&str]) -> Option<&Change> {
        let message = plain(message);
        if !is_first(&message) {
            return None;
        }
        let own = rest.iter().take(CONTEXT).take_while(|line| !is_first(line));
        let context = own.fold(message.clone(), |text, line| text + "\n" + &plain(line));
        self.changes.iter().find(|change| {
            change.signs.iter().any(|sign| {
                let has_context = sign
                    .context
                    .as_ref()
                    .is_none_or(|regex| regex.is_match(&context));
                has_context && sign.message.is_match(&message)
            })
        })
    }

    /// Lines with an explanation under each first message of its kind about a file.
    pub fn explain(&self, lines: &[String]) -> Vec<String> {
        let mut said = std::collections::HashSet::new();
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut explained = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            explained.push(line.clone());
            let rest = all.get(at + 1..).unwrap_or_default();
            let file = line.split(':').next().unwrap_or_default();
            if let Some(change) = self.cause(line, rest)
                && said.insert((change.id.clone(), file.to_owned()))
            {
                explained.push(change.line());
            }
        }
        explained
    }
}

/// Where the samples of a change are.
pub fn samples(repository: &Path, id: &str) -> PathBuf {
    repository.join(FOLDER).join("samples").join(id)
}

/// Compilers write quotation marks as the locale has them.
fn plain(line: &str) -> String {
    line.replace(['\u{2018}', '\u{2019}'], "'")
}

/// Whether a message begins here.
fn is_first(line: &str) -> bool {
    line.contains(": error: ")
        || line.contains(": fatal error: ")
        || line.contains(": warning: ")
        || line.starts_with("ERROR: modpost: ")
        || line.starts_with("WARNING: modpost: ")
}

fn change(entry: Entry) -> Result<Change> {
    let why = || format!("the entry {}", entry.id);
    let mut signs = Vec::new();
    let mut add = |message: String, context: Option<String>| -> Result<()> {
        signs.push(Sign {
            message: Regex::new(&message).with_context(why)?,
            context: context
                .map(|text| Regex::new(&text))
                .transpose()
                .with_context(why)?,
        });
        Ok(())
    };
    if let Some(header) = &entry.header {
        let name = regex::escape(header);
        add(
            format!("error: {name}: No such file|'{name}' file not found"),
            None,
        )?;
    }
    if !entry.undeclared.is_empty() {
        let names = any_of(&entry.undeclared);
        let before = "implicit declaration of function|call to undeclared function|use of undeclared identifier|unknown type name|\
                      in declaration of";
        add(format!("({before}) '{names}'|'{names}' undeclared"), None)?;
    }
    if let [structure, names @ ..] = entry.member.as_slice() {
        let names = any_of(names);
        let of = format!("'(const )?struct {}'", regex::escape(structure));
        add(
            format!(
                "{of} has no member named '{names}'|no member named '{names}' in {of}|designator '{names}' .* {of}"
            ),
            None,
        )?;
    }
    if !entry.arguments.is_empty() {
        let names = any_of(&entry.arguments);
        add(
            format!(
                "too (many|few) arguments to function '([^']*\\W)?{names}'|macro \"{names}\" (passed|requires)"
            ),
            None,
        )?;
        add(
            "too (many|few) arguments (provided )?to function(-like macro)? (call|invocation)"
                .to_owned(),
            Some(format!(r"\b{names}\s*\(")),
        )?;
    }
    if let Some(message) = &entry.message {
        add(message.clone(), entry.context.clone())?;
    }
    anyhow::ensure!(!signs.is_empty(), "the entry {} has no sign", entry.id);
    anyhow::ensure!(
        entry.context.is_none() || entry.message.is_some(),
        "the entry {} has a context and no message",
        entry.id
    );
    Ok(Change {
        id: entry.id,
        since: entry.since,
        text: entry.text,
        signs,
    })
}

fn any_of(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| regex::escape(name)).collect();
    format!("({})", names.join("|"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap()
            .to_owned()
    }

    fn id<'a>(table: &'a Table, message: &str, rest: &[&str]) -> Option<&'a str> {
        table.cause(message, rest).map(|change| change.id.as_str())
    }

    #[test]
    fn every_entry_has_an_id_of_its_own_a_version_one_line_and_two_samples() {
        let table = Table::load(&repository()).unwrap();
        assert!(table.changes().len() >= 30, "{}", table.changes().len());
        let mut ids = HashSet::new();
        for change in table.changes() {
            assert!(ids.insert(&change.id), "{} is there twice", change.id);
            assert!(
                !change.text.contains('\n') && !change.text.ends_with('.'),
                "{}",
                change.id
            );
            let numbers = change
                .since
                .split('.')
                .map(|part| part.parse::<u8>().unwrap());
            assert!((2..=3).contains(&numbers.count()), "{}", change.id);
            for sample in ["before.c", "after.c"] {
                let path = samples(&repository(), &change.id).join(sample);
                assert!(path.is_file(), "{}", path.display());
            }
        }
        let folders = crate::cache::entries(&samples(&repository(), ""));
        assert_eq!(folders.len(), ids.len(), "a sample without an entry");
    }

    #[test]
    fn a_change_is_known_in_the_words_of_both_compilers() {
        let table = Table::load(&repository()).unwrap();
        for (message, rest, expected) in [
            (
                "x.c:1:1: error: 'const struct file_operations' has no member named 'ioctl'",
                "",
                "ioctl",
            ),
            (
                "x.c:1:1: error: \u{2018}struct file\u{2019} has no member named \u{2018}f_dentry\u{2019}",
                "",
                "f-dentry",
            ),
            (
                "x.c:1:1: error: field designator 'ioctl' does not refer to any field in type 'const struct file_operations'",
                "",
                "ioctl",
            ),
            (
                "x.c:1:10: fatal error: 'asm/system.h' file not found",
                "",
                "asm-system",
            ),
            (
                "x.c:1:1: error: call to undeclared function 'del_timer'; ISO C99",
                "",
                "del-timer",
            ),
            (
                "x.c:1:1: error: too many arguments to function call, expected single argument 'name', have 2 arguments",
                "  9 | c = class_create(THIS_MODULE, \"x\");",
                "class-create",
            ),
            (
                "x.c:1:1: error: too many arguments to function 'iocb->ki_complete'",
                "",
                "ki-complete",
            ),
            (
                "ERROR: modpost: missing MODULE_LICENSE() in x.o",
                "",
                "module-license",
            ),
            (
                "ERROR: modpost: x.ko: missing MODULE_LICENSE()",
                "",
                "module-license",
            ),
        ] {
            assert_eq!(id(&table, message, &[rest]), Some(expected), "{message}");
        }
    }

    #[test]
    fn what_is_no_change_is_not_explained() {
        let table = Table::load(&repository()).unwrap();
        for message in [
            "x.c:1:1: error: 'struct my_driver' has no member named 'ioctl'",
            "x.c:1:1: error: implicit declaration of function 'my_del_timer'",
            "x.c:1:1: error: initialization of 'int' from incompatible pointer type",
            "x.c:1:1: note: too many arguments to function 'class_create'",
            "x.c:1:1: error: expected ';' before '}' token",
        ] {
            assert_eq!(id(&table, message, &[]), None, "{message}");
        }
        // The context of the next message is not that of this one.
        let next = ["y.c:1:1: error: other", "   12 |  .remove = x,"];
        assert_eq!(
            id(&table, "x.c:1:1: error: incompatible pointer type", &next),
            None
        );
    }

    #[test]
    fn an_explanation_is_one_line_under_the_message_once_for_each_file() {
        let table = Table::load(&repository()).unwrap();
        let message =
            |file: &str| format!("{file}: error: implicit declaration of function 'del_timer'");
        let lines = [
            message("x.c:1:1"),
            "  source".to_owned(),
            message("x.c:2:1"),
            message("y.c:3:1"),
        ];
        let explained = table.explain(&lines);
        assert_eq!(explained.len(), 6);
        assert!(
            explained[1].starts_with("  = since Linux 6.15: "),
            "{}",
            explained[1]
        );
        assert_eq!(explained[5], explained[1]);
    }

    #[test]
    fn an_entry_without_a_sign_or_with_a_wrong_one_is_an_error() {
        let head = "[[change]]\nid = \"x\"\nsince = \"6.1\"\ntext = \"t\"\n";
        for bad in [
            "",
            "message = \"(\"\n",
            "context = \"x\"\nheader = \"h\"\n",
            "sign = \"x\"\n",
        ] {
            assert!(Table::parse(&format!("{head}{bad}")).is_err(), "{bad}");
        }
    }
}
