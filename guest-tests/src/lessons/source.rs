//! The driver's own source, quoted: it is compiled in from guest-driver/, so a lesson shows the lines
//! that run, and a name that is no longer there is found by a test.

use anyhow::{Context, Result, bail};

use super::show::say;

/// A piece of the driver.
pub(super) struct Excerpt {
    path: &'static str,
    text: &'static str,
    /// How its first line begins.
    begins: &'static str,
}

macro_rules! excerpts {
    ($($name:ident: $path:literal, $begins:literal;)*) => {
        $(pub(super) const $name: Excerpt = Excerpt {
            path: concat!("guest-driver/", $path),
            text: include_str!(concat!("../../../guest-driver/", $path)),
            begins: $begins,
        };)*

        #[cfg(test)]
        const ALL: &[Excerpt] = &[$($name),*];
    };
}

excerpts! {
    FIFO: "driver/fifo.rs", "pub(crate) struct Fifo {";
    RX_INTERRUPT: "driver/fifo.rs", "pub(crate) fn rx_interrupt(";
    NOTIFY: "driver/fifo.rs", "fn notify(";
    SEND: "driver/fifo.rs", "fn send(";
    DEFER: "driver/fifo.rs", "fn defer(";
    FLUSH: "driver/fifo.rs", "pub(crate) fn flush(";
    WATCH_SPACE: "driver/fifo.rs", "fn watch_space(";
    FILE_FASYNC: "driver/file.rs", "fn fasync(";
    FILE_POLL: "driver/file.rs", "fn poll(";
    FILE_WRITE: "driver/file.rs", "fn write(";
    FILE_FLUSH: "driver/file.rs", "fn flush(";
    FASYNC_LIST: "kapi/fasync.rs", "pub(crate) struct FasyncList {";
    LIST_SET: "kapi/fasync.rs", "pub(crate) fn set(";
    LIST_SIGNAL: "kapi/fasync.rs", "pub(crate) fn signal(";
    TABLE: "kapi/chardev.rs", "fn table(";
    ENTRY_FASYNC: "kapi/chardev.rs", "unsafe extern \"C\" fn fasync(";
    ENTRY_READ: "kapi/chardev.rs", "unsafe extern \"C\" fn read_iter(";
    ENTRY_RELEASE: "kapi/chardev.rs", "unsafe extern \"C\" fn release(";
    CANCEL: "kapi/aio.rs", "unsafe extern \"C\" fn cancel<T: Cancel>(";
    COMPLETE: "kapi/aio.rs", "pub(crate) fn complete(";
}

impl Excerpt {
    /// Number of the first line, and the lines up to the brace that closes it.
    fn lines(&self) -> Result<(usize, Vec<&'static str>)> {
        let begins = |line: &str| line.trim_start().starts_with(self.begins);
        let mut found = self.text.lines().enumerate().filter(|(_, l)| begins(l));
        let (index, first) = found
            .next()
            .with_context(|| format!("{} has no {:?}", self.path, self.begins))?;
        if found.next().is_some() {
            bail!("{} has several {:?}", self.path, self.begins);
        }
        let indent = |line: &str| line.len() - line.trim_start().len();
        let closes = |line: &str| indent(line) == indent(first) && line.trim() == "}";
        let mut lines = Vec::new();
        for line in self.text.lines().skip(index) {
            lines.push(line.get(indent(first)..).unwrap_or(""));
            if closes(line) {
                return Ok((index + 1, lines));
            }
        }
        bail!("{}: {:?} does not end", self.path, self.begins)
    }

    /// Prints it, with file and line numbers, and what to see in it.
    pub(super) fn show(&self, about: &str) -> Result<()> {
        let (first, lines) = self.lines()?;
        say!("  {}:{first}: {about}", self.path);
        for (number, line) in (first..).zip(lines) {
            say!("  {number:>5} | {line}");
        }
        say!("");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, FILE_POLL};

    #[test]
    fn every_excerpt_is_in_the_driver() {
        for excerpt in ALL {
            excerpt.lines().unwrap();
        }
    }

    #[test]
    fn an_excerpt_is_a_whole_item() {
        let (_, lines) = FILE_POLL.lines().unwrap();
        assert!(lines[0].starts_with("fn poll("));
        assert_eq!(lines.last(), Some(&"}"));
        assert!(lines.len() < 12);
    }
}
