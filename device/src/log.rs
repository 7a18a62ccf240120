// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log on standard error: what is said, and how much of it.
//!
//! What peers do is logged, and they can do it as often as they like, so the whole log is limited
//! (each FIFO's refusals are limited before, see [`crate::refusal`]). It must not know what the
//! lines say.

mod stderr;

use std::fmt::Display;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::OptionalWriter;

use self::stderr::Lines;

/// virtio-queue logs each corrupt ring; the device says the same once a second at most.
const DEFAULT_FILTER: &str = "info,virtio_queue=off";

/// Lines that may come at once …
const BURST: u32 = 200;
/// … and how long it takes until one more may.
const INTERVAL: Duration = Duration::from_millis(100);

/// Standard error once the log has been started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts the log, in colours on a terminal (<https://no-color.org>). All that `RUST_LOG` selects, if it is set, is logged.
///
/// # Errors
///
/// When standard error cannot be duplicated.
pub fn init() -> io::Result<()> {
    let lines = Lines::stderr()?;
    let lines = LINES.get_or_init(|| lines);
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !unwanted;
    // By default an error of the log is printed to standard error, and an error of that is a panic.
    match EnvFilter::try_from_default_env() {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || lines)
            .with_ansi(colours)
            .log_internal_errors(false)
            .init(),
        Err(_) => tracing_subscriber::fmt()
            .with_env_filter(DEFAULT_FILTER)
            .with_writer(Limited::new(move || lines))
            .with_ansi(colours)
            .log_internal_errors(false)
            .init(),
    }
    // The usual hook would open files to find the names in a backtrace, which no sandbox allows.
    std::panic::set_hook(Box::new(|panic| {
        print(format_args!("vhost-device-fifo: {panic}"));
    }));
    Ok(())
}

/// Prints a line to standard error that is no part of the log; a failure is ignored. Once the log has been started, a line
/// for which there is no room is dropped.
pub fn print(line: impl Display) {
    let line = format!("{line}\n");
    match LINES.get() {
        Some(lines) => lines.put(line.as_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Standard error for a limited number of lines.
struct Limited<F> {
    open: F,
    allowance: Mutex<Allowance>,
}

impl<F> Limited<F> {
    fn new(open: F) -> Self {
        Self {
            open,
            allowance: Mutex::new(Allowance::new(Instant::now())),
        }
    }
}

impl<'a, W: Write, F: Fn() -> W + 'a> MakeWriter<'a> for Limited<F> {
    type Writer = OptionalWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match allowance.take(Instant::now()) {
            None => OptionalWriter::none(),
            Some(left_out) => {
                let mut writer = (self.open)();
                if left_out > 0 {
                    // There is no better place to complain than the one that fails.
                    let line = format!("({left_out} lines left out: too many at once)\n");
                    let _ = writer.write_all(line.as_bytes());
                }
                OptionalWriter::some(writer)
            }
        }
    }
}

/// How many lines may be logged now.
#[derive(Debug)]
struct Allowance {
    lines: u32,
    /// When `lines` was right.
    since: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            lines: BURST,
            since: now,
            left_out: 0,
        }
    }

    /// Takes one line; returns how many were refused before it, `None` if this one is.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since);
        let earned = u32::try_from(passed.as_nanos() / INTERVAL.as_nanos()).unwrap_or(BURST);
        if earned > 0 {
            self.lines = self.lines.saturating_add(earned).min(BURST);
            // What is left of an interval counts for the next.
            self.since += INTERVAL.saturating_mul(earned);
        }
        match self.lines.checked_sub(1) {
            Some(lines) => {
                self.lines = lines;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A flood leaves a burst behind, then a line an interval; what is left out is counted.
    #[test]
    fn a_flood_is_limited() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let lines = (0..1000).filter(|_| allowance.take(start).is_some());
        assert_eq!(lines.count(), 200);
        assert_eq!(allowance.take(start + INTERVAL / 2), None);
        assert_eq!(allowance.take(start + INTERVAL), Some(801));
        assert_eq!(allowance.take(start + INTERVAL), None);
        // A quiet time earns a burst and no more.
        let later = start + 10_000 * INTERVAL;
        let lines = (0..1000).filter(|_| allowance.take(later).is_some());
        assert_eq!(lines.count(), 200);
    }

    /// Lines that come steadily, each a little sooner than an interval after the last, do not
    /// starve the log.
    #[test]
    fn a_steady_stream_is_not_starved() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let step = INTERVAL * 2 / 3;
        let lines = (0..3000).filter(|n| allowance.take(start + step * *n).is_some());
        assert!((1000..=2200).contains(&lines.count()));
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_left_out_is_said() {
        let out = Shared::default();
        let sink = out.clone();
        let limited = Limited::new(move || sink.clone());
        for _ in 0..BURST + 3 {
            writeln!(limited.make_writer(), "line").unwrap();
        }
        limited.allowance.lock().unwrap().lines = 1;
        writeln!(limited.make_writer(), "last").unwrap();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("line\n").count(), 200);
        assert!(
            text.ends_with("(3 lines left out: too many at once)\nlast\n"),
            "{text}"
        );
    }
}
