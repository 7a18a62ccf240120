// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A report of the kernel's, short and with the user's own files and lines: `globalfifo_read+0x12/0x80 [globalfifo]` becomes that and
//! `globalfifo.c:123`.
//!
//! It reads text and asks the tree's binutils about a module. It must not know how the report came about.

use std::collections::BTreeMap;
use std::path::Path;

use super::meanings;
use crate::cache::Entry;
use crate::child;
use crate::stages::kernel::Kernel;
use crate::stages::own::sandbox;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;
use crate::vm::console;

/// Lines of a report that are kept.
const LINES: usize = 16;
/// "rcu: INFO: rcu_preempt self-detected stall on CPU", "… detected stalls on CPUs/tasks".
const STALL: &str = "rcu: INFO:";
/// Lines of a report that say of which kind it is.
const HEADING: usize = 6;
/// How guest.sh marks a line of a process's stack in the kernel.
const STACK: &str = "stack: ";

/// Kinds of reports after which the kernel cannot be trusted any more.
const FATAL: [&str; 10] = [
    "Oops",
    "BUG: kernel NULL pointer",
    "BUG: unable to handle",
    // arm64's words for these.
    "Unable to handle kernel",
    "Internal error:",
    "general protection fault",
    "kernel BUG at",
    "soft lockup",
    "Kernel panic",
    "INFO: task",
];

/// Whether the machine should be started anew after this.
pub fn is_fatal(log: &str) -> bool {
    let complaints = console::complaints_in(log);
    complaints
        .iter()
        .any(|line| FATAL.iter().any(|kind| line.contains(kind)))
}

/// Whether a call that has not returned after this may never do so. A stall alone may come of a host that had no time for its guest.
pub fn may_hang(log: &str) -> bool {
    is_fatal(log)
        || console::complaints_in(log)
            .iter()
            .any(|line| line.contains(STALL))
}

/// What the kernel complained of, if it did: the complaint, its meaning, and the trace's lines in the module.
pub fn report(log: &str, module: &Module<'_>) -> Option<String> {
    let complaints = console::complaints_in(log);
    let first = complaints
        .iter()
        .find(|line| !console::is_head_of_trace(line))
        .or(complaints.first())?;
    let mut lines = vec![message(first).to_owned()];
    let after = || log.lines().skip_while(|line| *line != first.as_str());
    // Lockdep's first line only frames the next ones.
    let heading: Vec<_> = after().take(HEADING).collect();
    let meaning = meanings::of(&heading.join("\n"));
    lines.extend(meaning.map(|meaning| format!("that is: {meaning}")));
    lines.extend(module.places(after()));
    Some(lines.join("\n"))
}

/// What kmemleak has found, with the module's own lines of where it was allocated.
pub fn leaks(found: &str, module: &Module<'_>) -> Option<String> {
    let first = found.lines().find(|line| !line.trim().is_empty())?;
    let mut lines = vec![
        format!("kmemleak: {}", first.trim()),
        format!("that is: {}", meanings::of("kmemleak").unwrap_or_default()),
    ];
    let places = module.places(found.lines());
    if places.is_empty() {
        lines.extend(found.lines().skip(1).take(LINES).map(str::to_owned));
    }
    lines.extend(places.iter().map(|place| format!("allocated {place}")));
    Some(lines.join("\n"))
}

/// Where a call that does not return waits: guest.sh's lines `stack: `, as far as they are in the module.
pub fn waits(text: &str, module: &Module<'_>) -> Option<String> {
    let stack = text.lines().filter_map(|line| line.strip_prefix(STACK));
    let places = module.places(stack);
    (!places.is_empty()).then(|| format!("a call that does not return\n{}", places.join("\n")))
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

/// What a module is looked into with.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// Cache and recipe.
    pub shop: &'a Shop,
    /// The tree, with its binutils.
    pub tree: &'a Entry,
    /// The kernel, with its source.
    pub kernel: &'a Kernel,
}

/// The module that reports are about.
#[derive(Debug)]
pub struct Module<'a> {
    /// Without them there are no lines.
    pub tools: Option<Tools<'a>>,
    /// The module's name.
    pub name: &'a str,
    /// The module's file.
    pub ko: &'a Path,
    /// The user's path, to name files as they do.
    pub given: &'a Path,
}

/// Whether a line has the address of the instruction itself: on x86 behind "RIP:", on arm64 behind "pc :".
fn is_faults_own(line: &str) -> bool {
    line.contains("RIP:") || line.starts_with("pc :")
}

impl Module<'_> {
    /// The module's own functions in lines of a trace, each place once.
    fn places<'l>(&self, trace: impl Iterator<Item = &'l str>) -> Vec<String> {
        let mark = format!("[{}]", self.name);
        let inside: Vec<_> = trace
            .map(message)
            // What the kernel itself is not sure of.
            .filter(|line| line.contains(&mark) && !line.starts_with('?'))
            .filter_map(|line| Some((place(line)?, is_faults_own(line))))
            .take(LINES)
            .collect();
        // A return address is behind the call; the address of a fault is that of its instruction.
        let address = |offset: u64, is_fault: bool| offset.saturating_sub(u64::from(!is_fault));
        let wanted: Vec<_> = inside
            .iter()
            .map(|((function, offset), is_fault)| (function.clone(), address(*offset, *is_fault)))
            .collect();
        let places = self.lines(&wanted);
        let mut seen = Vec::new();
        for ((function, offset), is_fault) in inside {
            let place = places.get(&(function.clone(), address(offset, is_fault)));
            let line = match place {
                Some(place) => format!("in {function}(), {place}"),
                None => format!("in {function}()+0x{offset:x}"),
            };
            if !seen.contains(&line) {
                seen.push(line);
            }
        }
        seen
    }

    /// File and line of each place, as far as the module has debug information.
    fn lines(&self, places: &[(String, u64)]) -> BTreeMap<(String, u64), String> {
        let mut found = BTreeMap::new();
        let Some(Tools { shop, tree, .. }) = self.tools else {
            return found;
        };
        if places.is_empty() {
            return found;
        }
        let view = shop.host_view(tree.path());
        let tool = |name: &str| tool_spec(&view, &shop.arch.tool(name)).cwd("/");
        let Ok(symbols) = child::output(&tool("objdump").arg("-t").arg(self.ko)) else {
            return found;
        };
        for (function, offset) in places {
            let Some((section, start)) = symbol(&symbols, function) else {
                continue;
            };
            let address = start + offset;
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
        let copy = file.strip_prefix(sandbox::PLACE);
        let name = copy.unwrap_or(Path::new(file.file_name().unwrap_or_default()));
        let folder = if self.given.is_dir() {
            self.given
        } else {
            self.given.parent().unwrap_or(Path::new(""))
        };
        let candidate = folder.join(name);
        // The copy of a single file has the module's name.
        let is_given = name.file_stem().is_some_and(|stem| *stem == *self.name)
            && name.extension() == self.given.extension();
        let file = if self.given.is_file() && is_given {
            self.given.display().to_string()
        } else if candidate.is_file() {
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
    fn a_place_in_the_copy_is_named_as_the_user_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my driver.c");
        std::fs::write(&file, "").unwrap();
        let module = Module {
            name: "my_driver",
            given: &file,
            ..module()
        };
        let named = module.named("/lab/module/my_driver.c:61 (discriminator 2)");
        assert_eq!(named, format!("{}:61", file.display()));
        let elsewhere = module.named("/lab/kernel/source/include/linux/x.h:5");
        assert_eq!(elsewhere, "/lab/kernel/source/include/linux/x.h:5");
    }

    #[test]
    fn a_leak_names_where_its_memory_was_allocated() {
        let found = "unreferenced object 0xffff888 (size 64):\n  comm \"insmod\", pid 9\n  backtrace (crc 0):\n    kmalloc+0x1/0x2\n    fifo_init+0x12/0x80 [fifo]\n";
        let text = leaks(found, &module()).unwrap();
        assert!(text.starts_with("kmemleak: unreferenced object"), "{text}");
        assert!(text.contains("was not freed") && text.ends_with("allocated in fifo_init()+0x12"));
        assert_eq!(leaks("\n", &module()), None);
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
