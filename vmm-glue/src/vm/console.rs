// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's kernel console, kept in a file: its last lines, and what in it is a complaint.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::files;
use crate::ui;

/// Lines shown when the machine fails.
const TAIL: usize = 20;

/// How many consoles this lab has kept.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Lines of a complaint and what explains it.
const REPORT: usize = 80;

/// What the kernel says when something is wrong with it. Matched against lines without their time stamp.
const COMPLAINTS: [&str; 26] = [
    "WARNING:",
    "BUG:",
    "BUG ",
    "watchdog: BUG:",
    "rcu: INFO:",
    "ODEBUG:",
    "DMA-API: debugging out of memory",
    "kmemleak: Kernel memory leak detector disabled",
    "Oops",
    "Kernel panic",
    "Unable to handle",
    "general protection fault",
    "Call Trace:",
    // arm64's words for these.
    "Call trace:",
    "kernel BUG at",
    "Internal error:",
    "SError Interrupt",
    "INFO: task",
    "INFO: rcu",
    "INFO: possible",
    "INFO: trying to register non-static key",
    "possible circular locking",
    "suspicious RCU usage",
    "rust_kernel: panicked",
    "refcount_t:",
    "UBSAN:",
];

/// Whether a line heads a trace: on x86 as "Call Trace:", on arm64 as "Call trace:".
pub fn is_head_of_trace(line: &str) -> bool {
    let line = line.trim_end();
    line.ends_with("Call Trace:") || line.ends_with("Call trace:")
}

/// The last lines of the console, for people.
pub fn tail(path: &Path) -> String {
    crate::causes::tail(&read(path), TAIL)
}

/// Waits for what the kernel has logged and not printed yet: it prints by a thread of its own, a little later.
pub fn wait_until_quiet(path: &Path) {
    const PAUSE: Duration = Duration::from_millis(100);
    const PAUSES: u32 = 10;
    let length = || fs::metadata(path).map_or(0, |file| file.len());
    let mut before = length();
    for _ in 0..PAUSES {
        std::thread::sleep(PAUSE);
        let now = length();
        if now == before {
            return;
        }
        before = now;
    }
}

/// A process that used up the memory of its control group: the kernel shows a trace of it, and is itself all right.
const OUT_OF_MEMORY: &str = "invoked oom-killer:";
/// The last line of that.
const OUT_OF_MEMORY_END: &str = "Memory cgroup out of memory: Killed process";

/// Lines by which the kernel complains.
pub fn complaints(path: &Path) -> Vec<String> {
    complaints_in(&read(path))
}

/// The same in a text.
pub fn complaints_in(text: &str) -> Vec<String> {
    own_lines(text)
        .into_iter()
        .filter(|line| is_complaint(line))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// All complaints in a text, and the first with what follows it: a trace, or which memory it is about.
pub fn report(text: &str) -> Option<String> {
    let complaints = complaints_in(text);
    if complaints.is_empty() {
        return None;
    }
    let lines = own_lines(text).into_iter();
    let first = lines.skip_while(|line| !is_complaint(line));
    let whole: Vec<_> = first.take(REPORT).collect();
    Some(format!(
        "{}\nthe first in its place:\n{}",
        complaints.join("\n"),
        whole.join("\n")
    ))
}

/// All lines but the trace that begins a report of a control group without memory. What else is in such a report counts, and that of a whole
/// machine without memory does, too.
fn own_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let mut own = Vec::new();
    let mut in_report = false;
    for (at, line) in lines.iter().enumerate() {
        let later = lines.get(at + 1..).unwrap_or_default();
        if line.contains(OUT_OF_MEMORY) {
            let next = later
                .iter()
                .find(|line| line.contains(OUT_OF_MEMORY) || line.contains(OUT_OF_MEMORY_END));
            in_report = next.is_some_and(|line| line.contains(OUT_OF_MEMORY_END));
        }
        let is_its_trace = in_report && is_head_of_trace(line);
        in_report &= !is_its_trace && !line.contains(OUT_OF_MEMORY_END);
        if !is_its_trace {
            own.push(*line);
        }
    }
    own
}

fn is_complaint(line: &str) -> bool {
    let message = match line
        .trim_start()
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((_, message)) => message.trim_start(),
        None => return false,
    };
    COMPLAINTS
        .iter()
        .any(|complaint| message.starts_with(complaint))
}

/// The first complaint of a console with what follows it, for people.
pub fn first_complaint(path: &Path) -> String {
    let text = read(path);
    let lines: Vec<_> = text
        .lines()
        .skip_while(|line| !is_complaint(line))
        .take(REPORT)
        .collect();
    crate::causes::tail(&lines.join("\n"), REPORT)
}

/// Keeps the whole console where the user wants it (`is_users`), else in the cache beside the logs of failures. Its place as words for a message, none
/// for a console that holds nothing.
pub fn kept(path: &Path, is_users: bool) -> String {
    if is_users {
        return format!("\nthe whole console: {}", path.display());
    }
    if !has_spoken(path) {
        return String::new();
    }
    let number = KEPT.fetch_add(1, Ordering::SeqCst);
    let name = format!("console-{}-{number}.log", std::process::id());
    let kept = crate::cache::location().and_then(|cache| {
        let kept = cache.join("logs").join(name);
        files::copy_or_nothing(path, &kept).map(|()| kept)
    });
    match kept {
        Ok(kept) => format!("\nthe whole console: {}", kept.display()),
        Err(err) => format!("\nthe whole console is not kept: {err:#}"),
    }
}

/// Warns of what the guest's kernel complained of: the first complaint whole, and where the console is kept.
pub fn tell_complaints(path: &Path, is_users: bool) {
    wait_until_quiet(path);
    let complaints = complaints(path);
    for line in &complaints {
        ui::warn(&format!("the guest's kernel says: {line}"));
    }
    if !complaints.is_empty() {
        ui::warn(&format!(
            "the first in its place:\n{}{}",
            first_complaint(path),
            kept(path, is_users)
        ));
    }
}

/// Why the kernel gave up, if it did.
pub fn panic(path: &Path) -> Option<String> {
    let line = complaints(path)
        .into_iter()
        .find(|line| line.contains("Kernel panic"))?;
    Some(
        line.rsplit_once("Kernel panic - not syncing: ")
            .map_or(line.clone(), |(_, why)| why.to_owned()),
    )
}

/// True if anything was said at all.
pub fn has_spoken(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn read(path: &Path) -> String {
    // Terminal codes and half characters of the firmware are in it.
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    text.chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 7.3 for arm64 says it.
    const OOPS: &str = "[    7.1] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010\n\
                        [    7.1] Internal error: Oops: 0000000096000004 [#1]  SMP\n\
                        [    7.1] pc : fifo_read+0x12/0x80 [my_fifo]\n\
                        [    7.1] Call trace:\n\
                        [    7.1]  fifo_read+0x12/0x80 [my_fifo] (P)\n";

    #[test]
    fn what_arm64_says_of_a_fault_is_a_complaint() {
        let complaints = complaints_in(OOPS);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(crate::grading::trace::is_fatal(OOPS));
        let bug = "[    7.1] kernel BUG at my_fifo.c:12!\n[    7.1] Internal error: Oops - BUG: 00000000f2000800 [#1]  SMP\n";
        assert_eq!(complaints_in(bug).len(), 2);
        assert!(crate::grading::trace::is_fatal(bug));
    }

    #[test]
    fn complaints_are_recognised_by_how_a_line_begins() {
        let text = "[    1.0] WARNING: CPU: 0 PID: 1 at x.c:1\n[    2.0] BUG: kernel NULL pointer dereference\n\
                    [    3.0] Loading WARNING: not one\nWARNING: printed by a program\n[    4.0] INFO: task cat:12 blocked for more than 120 seconds.\n";
        assert_eq!(complaints_in(text).len(), 3);
    }

    #[test]
    fn each_checker_of_the_debug_kernel_is_heard() {
        for line in [
            "BUG: KASAN: slab-use-after-free in globalfifo_read+0x10/0x20",
            "BUG: sleeping function called from invalid context at mm/x.c:1",
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            "WARNING: possible circular locking dependency detected",
            "WARNING: suspicious RCU usage",
            "ODEBUG: free active (active state 0) object: timer_list",
            "UBSAN: array-index-out-of-bounds in x.c:1:1",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "DMA-API: debugging out of memory - disabling",
            "kmemleak: Kernel memory leak detector disabled",
        ] {
            assert!(is_complaint(&format!("[  12.345678] {line}")), "{line}");
        }
        for line in [
            "kmemleak: Kernel memory leak detector initialized",
            "DMA-API: preallocated 65536 debug entries",
            "DMA-API: debugging enabled by kernel config",
        ] {
            assert!(!is_complaint(&format!("[    0.123456] {line}")), "{line}");
        }
    }

    #[test]
    fn a_report_has_all_complaints_and_the_first_ones_trace() {
        let text = "[ 1.0] fine\n[ 2.0] BUG: KASAN: x\n[ 2.0] Read of size 8\n[ 3.0] WARNING: y\n";
        let said = report(text).unwrap();
        assert!(said.starts_with("[ 2.0] BUG: KASAN: x\n[ 3.0] WARNING: y\n"));
        assert!(said.contains("Read of size 8") && !said.contains("fine"));
        assert_eq!(report("[ 1.0] fine\n"), None);
    }

    #[test]
    fn a_control_group_without_memory_is_no_complaint_and_a_machine_is() {
        let kill = |whose| {
            format!(
                "[ 1.0] hog invoked oom-killer: gfp_mask=0xcc0\n[ 1.0] Call Trace:\n[ 1.0]  <TASK>\n[ 1.1] {whose}: Killed process 7 (hog)\n"
            )
        };
        let group = kill("Memory cgroup out of memory");
        assert_eq!(report(&group), None);
        let machine = kill("Out of memory");
        assert_eq!(complaints_in(&machine).len(), 1);
        assert_eq!(complaints_in(&format!("{machine}{group}")).len(), 1);
        let inside = group.replace(
            " <TASK>",
            "BUG: unable to handle page fault\n[ 1.0] Call Trace:",
        );
        assert_eq!(complaints_in(&inside).len(), 2);
    }
}
