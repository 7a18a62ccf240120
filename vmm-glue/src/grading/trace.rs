// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A report of the kernel's, short and with the user's own files and lines: `globalfifo_read+0x12/0x80 [globalfifo]` becomes that and
//! `globalfifo.c:123`.
//!
//! It reads text and asks the tree's binutils about a module. It must not know how the report came about.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cache::Entry;
use crate::child;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;
use crate::vm::console;

/// Lines of a report that are kept.
const LINES: usize = 16;

/// Kinds of reports after which the kernel cannot be trusted any more.
const FATAL: [&str; 8] = [
    "Oops",
    "BUG: kernel NULL pointer",
    "BUG: unable to handle",
    "general protection fault",
    "kernel BUG at",
    "soft lockup",
    "Kernel panic",
    "INFO: task",
];

/// What reports mean, in plain words.
const MEANINGS: [(&str, &str); 14] = [
    (
        "BUG: kernel NULL pointer",
        "a pointer that is NULL was followed",
    ),
    (
        "BUG: unable to handle",
        "an address was used where no memory is",
    ),
    (
        "general protection fault",
        "a pointer that is no address was followed, often of memory that has been freed",
    ),
    (
        "possible circular locking",
        "two locks are taken in one order here and in the other order there: both may wait for each other for ever",
    ),
    (
        "possible recursive locking",
        "a lock is taken by the one that holds it already: it waits for itself for ever",
    ),
    (
        "inconsistent lock state",
        "a lock is taken in an interrupt and also with interrupts on: the interrupt may wait for what it has interrupted",
    ),
    (
        "sleeping function called from invalid context",
        "something that may sleep was called with a spin lock held or in an interrupt",
    ),
    (
        "scheduling while atomic",
        "schedule() was called with a spin lock held or in an interrupt",
    ),
    (
        "KASAN: slab-use-after-free",
        "memory was used after kfree()",
    ),
    (
        "KASAN: slab-out-of-bounds",
        "memory was used past the end of what kmalloc() gave",
    ),
    (
        "kmemleak",
        "memory to which nothing points any more was not freed",
    ),
    (
        "soft lockup",
        "the kernel has not left a loop of its own for many seconds",
    ),
    (
        "do not call blocking ops when",
        "something that may sleep was called between setting the task's state and schedule()",
    ),
    (
        "suspicious RCU usage",
        "data that RCU guards was used without rcu_read_lock()",
    ),
];

/// Whether the machine should be started anew after this.
pub fn is_fatal(log: &str) -> bool {
    let complaints = console::complaints_in(log);
    complaints
        .iter()
        .any(|line| FATAL.iter().any(|kind| line.contains(kind)))
}

/// What the kernel complained of, if it did: the complaint, its meaning, and the trace's lines in the module.
pub fn report(log: &str, module: &Module<'_>) -> Option<String> {
    let complaints = console::complaints_in(log);
    let first = complaints
        .iter()
        .find(|line| !line.contains("Call Trace"))
        .or(complaints.first())?;
    let mut lines = vec![message(first).to_owned()];
    let meaning = MEANINGS
        .iter()
        .find(|(kind, _)| log.contains(kind))
        .map(|(_, meaning)| format!("that is: {meaning}"));
    lines.extend(meaning);
    let after = log.lines().skip_while(|line| *line != first.as_str());
    let mark = format!("[{}]", module.name);
    let inside: Vec<_> = after
        .map(message)
        .filter(|line| line.contains(&mark))
        .filter_map(place)
        .take(LINES)
        .collect();
    let places = module.lines(&inside);
    let mut seen = Vec::new();
    for (function, offset) in inside {
        let place = places.get(&(function.clone(), offset));
        let line = match place {
            Some(place) => format!("in {function}(), {place}"),
            None => format!("in {function}()+0x{offset:x}"),
        };
        if !seen.contains(&line) {
            seen.push(line);
        }
    }
    lines.extend(seen);
    Some(lines.join("\n"))
}

/// A line of the kernel's log without its time.
fn message(line: &str) -> &str {
    let rest = line.trim_start().strip_prefix('[');
    rest.and_then(|rest| rest.split_once(']'))
        .map_or(line, |(_, message)| message)
        .trim()
}

/// Function and offset in a line like ` ? fifo_read+0x12/0x80 [fifo]`.
fn place(line: &str) -> Option<(String, u64)> {
    let word = line.split_whitespace().find(|word| word.contains("+0x"))?;
    let (function, rest) = word.rsplit_once("+0x")?;
    let function = function.rsplit(':').next().unwrap_or(function);
    let offset = rest.split('/').next()?;
    Some((function.to_owned(), u64::from_str_radix(offset, 16).ok()?))
}

/// The module that reports are about.
#[derive(Debug)]
pub struct Module<'a> {
    /// Shop and tree, for the binutils; without them there are no lines.
    pub tools: Option<(&'a Shop, &'a Entry)>,
    /// The module's name.
    pub name: &'a str,
    /// The module's file.
    pub ko: &'a Path,
    /// The user's path, to name files as they do.
    pub given: &'a Path,
}

impl Module<'_> {
    /// File and line of each place, as far as the module has debug information.
    fn lines(&self, places: &[(String, u64)]) -> BTreeMap<(String, u64), String> {
        let mut found = BTreeMap::new();
        let Some((shop, tree)) = self.tools else {
            return found;
        };
        if places.is_empty() {
            return found;
        }
        let view = shop.host_view(tree.path());
        let tool = |name: &str| tool_spec(&view, name).cwd("/");
        let Ok(symbols) = child::output(&tool("objdump").arg("-t").arg(self.ko)) else {
            return found;
        };
        for (function, offset) in places {
            let Some((section, start)) = symbol(&symbols, function) else {
                continue;
            };
            // A return address is behind the call.
            let address = (start + offset).saturating_sub(1);
            let said = child::output(
                &tool("addr2line")
                    .args(["-j", &section, "-e"])
                    .arg(self.ko)
                    .arg(format!("0x{address:x}")),
            );
            let said = said.unwrap_or_default();
            let line = said.lines().next().unwrap_or_default();
            if !line.is_empty() && !line.starts_with("??") {
                found.insert((function.clone(), *offset), self.named(line));
            }
        }
        found
    }

    /// A place as the user names it.
    fn named(&self, place: &str) -> String {
        let place = place.split(" (").next().unwrap_or(place);
        let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
        let file = Path::new(file);
        let name = file.file_name().unwrap_or_default();
        let folder = if self.given.is_dir() {
            self.given
        } else {
            self.given.parent().unwrap_or(Path::new(""))
        };
        let candidate = folder.join(name);
        let file = if candidate.is_file() {
            candidate.display().to_string()
        } else {
            file.display().to_string()
        };
        format!("{file}:{line}")
    }
}

/// Section and value of a function in what `objdump -t` says.
fn symbol(symbols: &str, function: &str) -> Option<(String, u64)> {
    symbols.lines().find_map(|line| {
        let (left, right) = line.split_once('\t')?;
        let name = right.split_whitespace().last()?;
        let section = left.split_whitespace().last()?;
        let value = left.split_whitespace().next()?;
        (name == function && section.starts_with('.'))
            .then(|| Some((section.to_owned(), u64::from_str_radix(value, 16).ok()?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OOPS: &str = "[    9.1] grader: read.data\n[   10.1] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
        [   10.2] RIP: 0010:fifo_read+0x12/0x80 [fifo]\n[   10.2] Call Trace:\n[   10.2]  vfs_read+0xb0/0x2e0\n[   10.2]  ? fifo_read+0x12/0x80 [fifo]\n";

    fn module() -> Module<'static> {
        Module {
            tools: None,
            name: "fifo",
            ko: Path::new("/none"),
            given: Path::new("/none"),
        }
    }

    #[test]
    fn a_report_has_the_complaint_its_meaning_and_the_modules_own_functions_once() {
        assert_eq!(
            report(OOPS, &module()).unwrap(),
            "BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
             that is: a pointer that is NULL was followed\nin fifo_read()+0x12"
        );
        assert_eq!(report("[ 1.0] fifo: hello\n", &module()), None);
    }

    #[test]
    fn an_oops_ends_the_machine_and_a_warning_does_not() {
        assert!(is_fatal(OOPS));
        assert!(!is_fatal("[ 1.0] WARNING: CPU: 0 PID: 1 at x.c:1\n"));
        assert!(!is_fatal(
            "[ 1.0] BUG: sleeping function called from invalid context at x.c:1\n"
        ));
    }

    #[test]
    fn a_symbol_is_found_with_its_section() {
        let table = "0000000000000010 l     F .text\t0000000000000123 fifo_read\n0000000000000000 l    d  .text\t0000000000000000 .text\n";
        assert_eq!(symbol(table, "fifo_read"), Some((".text".to_owned(), 16)));
        assert_eq!(symbol(table, "fifo_write"), None);
    }
}
