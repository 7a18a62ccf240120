// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's own source, quoted by the name of a function, a type or a constant.
//!
//! The text is compiled in from guest-driver/, so a lesson shows the lines that run. A quotation has no line number,
//! which would be wrong after the next change. Must not know what a lesson is about.

use anyhow::{Context, Result, bail};

use super::show::say;

/// A piece of the driver.
#[derive(Debug)]
pub(super) struct Excerpt {
    /// File, below the repository's root.
    pub(super) path: &'static str,
    pub(super) text: &'static str,
    /// What is quoted: `name`, or `Type::name` for an item of an `impl` block.
    pub(super) item: &'static str,
}

macro_rules! excerpts {
    ($($name:ident: $path:literal, $item:literal;)*) => {
        $(pub(super) const $name: Excerpt = Excerpt {
            path: concat!("guest-driver/", $path),
            text: include_str!(concat!("../../../guest-driver/", $path)),
            item: $item,
        };)*

        #[cfg(test)]
        pub(super) const ALL: &[Excerpt] = &[$($name),*];
    };
}

excerpts! {
    INTERRUPT: "driver/irq.rs", "Interrupts::queue_interrupt";
    CHANGE: "driver/fifo/core.rs", "Fifo::change";
    NOTIFIER: "driver/fifo/notify.rs", "Notifier";
    NOTIFY: "driver/fifo/notify.rs", "Notifier::notify";
    READINESS: "driver/fifo/state.rs", "State::readiness";
    LIST_FOR: "driver/fifo/notify.rs", "Notifier::list_for";
    FIFO: "driver/fifo/mod.rs", "Fifo";
    WRITE: "driver/fifo/write.rs", "Fifo::write_now";
    DEFER: "driver/fifo/serve.rs", "Fifo::try_defer";
    DONE: "driver/fifo/request.rs", "Done::complete";
    FLUSH: "driver/fifo/control.rs", "Fifo::flush";
    CANCEL_REQUEST: "driver/fifo/serve.rs", "Fifo::cancel";
    FILE_POLL: "driver/file.rs", "FifoFile::poll";
    FILE_WRITE: "driver/file.rs", "FifoFile::write";
    FILE_CLOSED: "driver/file.rs", "FifoFile::closed_by";
    FASYNC_LIST: "kapi/fasync.rs", "FasyncList";
    LIST_SET: "kapi/fasync.rs", "FasyncList::set";
    LIST_SIGNAL: "kapi/fasync.rs", "FasyncList::signal";
    TABLE: "kapi/operations.rs", "Operations::TABLE";
    ENTRY_FASYNC: "kapi/operations.rs", "Operations::fasync";
    ENTRY_READ: "kapi/operations.rs", "Operations::read_iter";
    ENTRY_RELEASE: "kapi/operations.rs", "Operations::release";
    CANCEL: "kapi/kiocb.rs", "cancel";
    COMPLETE: "kapi/kiocb.rs", "Pending::complete";
}

impl Excerpt {
    /// Prints it, with its file and name, and what to see in it.
    pub(super) fn show(&self, about: &str) -> Result<()> {
        say!("{}", head(self.path, self.item, about));
        for line in lines_of(self.text, self.item).with_context(|| self.path)? {
            say!("{BEFORE_LINE}{line}");
        }
        say!("");
        Ok(())
    }
}

/// What stands before each quoted line.
pub(super) const BEFORE_LINE: &str = "    | ";

/// The line above a quotation.
fn head(path: &str, item: &str, about: &str) -> String {
    format!("  {path}, {item}: {about}")
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines of the item called `name`, or `Type::name`, without their common indentation, up to the brace that
/// closes it.
pub(super) fn lines_of<'a>(text: &'a str, item: &str) -> Result<Vec<&'a str>> {
    let (owner, name) = match item.split_once("::") {
        Some((owner, name)) => (Some(owner), name),
        None => (None, item),
    };
    let lines: Vec<&str> = text.lines().collect();
    let is_it = |index: &usize| {
        let line = lines.get(*index).copied().unwrap_or_default();
        defines(line, name) && owner_of(&lines, *index) == owner
    };
    let mut found = (0..lines.len()).filter(is_it);
    let first = found.next().with_context(|| format!("no {item}"))?;
    if found.next().is_some() {
        bail!("several {item}");
    }
    let depth = lines.get(first).map_or(0, |line| indent(line));
    let mut quoted = Vec::new();
    for line in lines.into_iter().skip(first) {
        quoted.push(line.get(depth..).unwrap_or(""));
        let closes = ["}", "};"].contains(&line.trim()) && indent(line) == depth;
        if closes || quoted.len() == 1 && line.ends_with(['}', ';']) {
            return Ok(quoted);
        }
    }
    bail!("{item} does not end")
}

/// Whether `line` begins the item called `name`: a function, a type, a constant.
fn defines(line: &str, name: &str) -> bool {
    const BEFORE: [&str; 6] = [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "unsafe ",
        "extern \"C\" ",
        "const ",
    ];
    const KINDS: [&str; 6] = ["fn ", "struct ", "enum ", "trait ", "static ", "type "];
    let mut rest = line.trim_start();
    let mut constant = false;
    while let Some((before, after)) = BEFORE
        .iter()
        .find_map(|before| Some((*before, rest.strip_prefix(before)?)))
    {
        constant = before == "const ";
        rest = after;
    }
    let kind = KINDS.iter().find_map(|kind| rest.strip_prefix(kind));
    let Some(after) = kind
        .or(constant.then_some(rest))
        .and_then(|rest| rest.strip_prefix(name))
    else {
        return false;
    };
    !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The type of the `impl` block, or the trait, in which a line is.
fn owner_of<'a>(lines: &[&'a str], index: usize) -> Option<&'a str> {
    let depth = lines.get(index).map_or(0, |line| indent(line));
    let head = lines
        .get(..index)?
        .iter()
        .rev()
        .find(|line| !line.trim().is_empty() && indent(line) < depth)?;
    let head = head.trim_start().trim_start_matches("pub(crate) ");
    let head = head.trim_start_matches("unsafe ");
    let of_impl = head.strip_prefix("impl").map(|rest| {
        let after_for = rest.split_once(" for ").map(|(_, after)| after);
        after_for.unwrap_or_else(|| without_generics(rest).trim_start())
    });
    let owner = of_impl.or_else(|| head.strip_prefix("trait "))?;
    let end = owner.find(|c: char| !c.is_alphanumeric() && c != '_');
    owner.get(..end.unwrap_or(owner.len()))
}

/// `rest` without the angle brackets at its beginning.
fn without_generics(rest: &str) -> &str {
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 {
                rest
            } else {
                rest.get(at + 1..).unwrap_or("")
            };
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::{ALL, FILE_POLL, TABLE, lines_of};

    #[test]
    fn every_excerpt_is_in_the_driver() {
        for excerpt in ALL {
            let lines = lines_of(excerpt.text, excerpt.item);
            assert!(lines.is_ok(), "{}: {lines:?}", excerpt.path);
        }
    }

    #[test]
    fn an_excerpt_is_a_whole_item() {
        let lines = lines_of(FILE_POLL.text, FILE_POLL.item).unwrap();
        assert!(lines[0].starts_with("fn poll("));
        assert_eq!(lines.last(), Some(&"}"));
        assert!(lines.len() < 12);
        let lines = lines_of(TABLE.text, TABLE.item).unwrap();
        assert_eq!(lines.last(), Some(&"};"));
    }

    const TEXT: &str = "\
struct Pair<T>(T);
trait Shape {
    fn area(&self) -> u32;
}
impl<'a, T: Shape<'a>> Pair<T> {
    pub(crate) unsafe fn area<U>(&self) -> u32 {
        if true {
            0
        }
    }
}
impl<T> Shape for Square<T> {
    fn area(&self) -> u32 {
        1
    }
}
fn area() {}
";

    #[test]
    fn an_item_is_found_by_its_type() {
        let first = |item| lines_of(TEXT, item).map(|lines| lines.len());
        assert_eq!(first("Pair::area").unwrap(), 5);
        assert_eq!(first("Square::area").unwrap(), 3);
        assert_eq!(first("area").unwrap(), 1);
        assert_eq!(first("Pair").unwrap(), 1);
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_an_error() {
        assert!(lines_of(TEXT, "Circle::area").is_err());
        assert!(lines_of(TEXT, "Pair::are").is_err());
        let twice = format!("{TEXT}{TEXT}");
        assert!(lines_of(&twice, "area").is_err());
    }
}
