// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the lab says about its own work: on standard error, for standard output belongs to the guest.
//!
//! On a terminal, spinners that tell what goes on in each step and how long it has taken; without one, a plain line at a step's start and
//! one at its end.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::streams;
use crate::streams::Output;

/// A step shorter than this does not tell how long it took.
const WORTH_TELLING: Duration = Duration::from_secs(2);

struct Ui {
    quiet: bool,
    yes: bool,
    bars: Option<MultiProgress>,
}

static UI: OnceLock<Ui> = OnceLock::new();

/// Decides how to speak. Call once; before, and with `quiet`, only warnings are heard. With `yes`, questions are answered
/// already.
pub fn install(quiet: bool, yes: bool) {
    let terminal = std::io::stderr().is_terminal();
    let bars =
        (terminal && !quiet).then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    let _ = UI.set(Ui { quiet, yes, bars });
}

fn ui() -> &'static Ui {
    static SILENT: Ui = Ui {
        quiet: true,
        yes: false,
        bars: None,
    };
    UI.get().unwrap_or(&SILENT)
}

/// Says something.
pub fn say(text: &str) {
    if !ui().quiet {
        line(&format!("lab: {text}"));
    }
}

/// Says something that a quiet lab says too.
pub fn warn(text: &str) {
    line(&format!("lab: warning: {text}"));
}

/// Passes on what a tool of the user's has said: a quiet lab does, too.
pub fn tell(text: &str) {
    line(text);
}

/// Says why it fails.
pub fn error(text: &str) {
    line(&format!("lab: {text}"));
}

/// A line on standard error, above the bars.
fn line(text: &str) {
    let write = || streams::line(Output::Stderr, text);
    match &ui().bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Whether the user agrees: by `--yes`, or by an answer on the terminal. Without either, they do not.
pub fn agreed(question: &str) -> bool {
    if ui().yes {
        return true;
    }
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
        || crate::tty::is_in_background(rustix::stdio::stdin())
    {
        return false;
    }
    aside(|| {
        let _ = Output::Stderr.write(format!("lab: {question} [y/N] ").as_bytes());
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
    })
}

/// Does something that uses the terminal, with the bars out of the way.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match &ui().bars {
        Some(bars) => bars.suspend(work),
        None => work(),
    }
}

/// True where a step is drawn rather than told.
pub fn has_bars() -> bool {
    ui().bars.is_some()
}

/// Something that takes a while.
#[derive(Debug)]
pub struct Step {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins; `what` is like "building the module".
    pub fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = ui().bars.as_ref().map(|bars| spinner(bars, &what));
        if bar.is_none() {
            say(&what);
        }
        Self {
            what,
            started: Instant::now(),
            bar,
        }
    }

    /// What goes on inside, for those who see a bar.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().chars().take(200).collect::<String>());
        }
    }

    /// Ends well.
    pub fn done(self) {
        let took = self.started.elapsed();
        if took >= WORTH_TELLING {
            self.clear();
            say(&format!("{}: done in {}", self.what, seconds(took)));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}

fn spinner(bars: &MultiProgress, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}");
    let bar = bars.add(ProgressBar::new_spinner());
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar with a known end, for those who see bars.
pub fn counter(what: &str, total: u64) -> ProgressBar {
    let Some(bars) = &ui().bars else {
        return ProgressBar::hidden();
    };
    let bar = bars.add(ProgressBar::new(total));
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} [{elapsed}] {wide_msg:.dim}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

/// Prints on standard output, above the bars.
pub fn print(text: &str) {
    let write = || streams::line(Output::Stdout, text);
    match &ui().bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// "61 s", "0.4 s".
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// "1.2 GB", "3 MB".
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in UNITS {
        if count >= size {
            let (whole, tenth) = (count / size, count % size * 10 / size);
            return if whole < 10 {
                format!("{whole}.{tenth} {unit}")
            } else {
                format!("{whole} {unit}")
            };
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(2_345_678_901), "2.3 GB");
        assert_eq!(bytes(61_500_000), "61 MB");
        assert_eq!(seconds(Duration::from_millis(430)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(61)), "61 s");
    }
}
