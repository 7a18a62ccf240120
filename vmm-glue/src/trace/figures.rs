// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The documentation's figures that are traces: which command each is of, and what has to be in it. It must not know machines.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::report::Report;
use super::svg::Picture;

/// A figure.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Where it is in the repository.
    pub path: &'static str,
    /// The command that is traced in the guest.
    pub command: &'static [&'static str],
    /// Steps that have to be in it, in order of time. The chain is one that passes through the last of them.
    pub steps: &'static [&'static str],
}

/// All of them.
pub const FIGURES: [Figure; 3] = [
    // Figure 9.1 of the chapter: a reader that is blocked.
    Figure {
        path: "docs/lessons/figure-9.1-path.svg",
        command: &[
            "sh",
            "-c",
            "head -c 6 /dev/globalfifo & sleep 1; echo hello >/dev/globalfifo; wait",
        ],
        steps: &[
            "sys_write",
            "write",
            "pop",
            "push",
            "notify",
            "irq_handler_entry",
            "receive",
            "wake",
            "sched_waking",
            "sched_switch",
            "read",
        ],
    },
    // Figure 9.2, and the README's picture: asynchronous notification.
    Figure {
        path: "docs/interrupt.svg",
        command: &[
            "sh",
            "-c",
            "monitor & sleep 1; echo hello >/dev/globalfifo; sleep 1",
        ],
        steps: &[
            "sys_write",
            "write",
            "pop",
            "push",
            "notify",
            "irq_handler_entry",
            "interrupt",
            "receive",
            "signal",
            "signal_generate",
            "signal_deliver",
        ],
    },
    // Figure 9.3: a request of native AIO, while the program computes.
    Figure {
        path: "docs/lessons/figure-9.3-path.svg",
        command: &["lesson", "figure-9.3", "--svg", "/tmp"],
        steps: &[
            "write",
            "pop",
            "push",
            "notify",
            "irq_handler_entry",
            "receive",
            "read",
            "request_complete",
        ],
    },
];

impl Figure {
    /// Draws it from its command's trace.
    ///
    /// # Errors
    ///
    /// The command has failed, the guest cannot trace, or a step is missing.
    pub fn picture(&self, status: u8, report: Option<&Report>) -> Result<Picture> {
        ensure!(status == 0, "its command ended with status {status}");
        let report = report.context("the guest cannot trace")?;
        let (through, retry) = (self.through(), "try again on a machine with less to do");
        let picture = Picture::through(through, report)
            .with_context(|| format!("the trace has no {through}; {retry}"))?;
        match self.missing(picture.names()) {
            None => Ok(picture),
            Some(step) => bail!("the trace has no {step} at its place; {retry}"),
        }
    }

    /// The step through which its chain passes.
    pub fn through(&self) -> &'static str {
        self.steps.last().copied().unwrap_or_default()
    }

    /// The first of its steps that is not among these names, or not in order.
    pub fn missing<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
        let mut names = names;
        let mut steps = self.steps.iter();
        steps
            .find(|step| !names.any(|name| name == **step))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::report::tests::small;
    use super::*;

    #[test]
    fn steps_have_to_be_there_and_in_order() {
        let figure = Figure {
            path: "",
            command: &[],
            steps: &["a", "b"],
        };
        let missing = |names: &[&'static str]| figure.missing(names.iter().copied());
        assert_eq!(missing(&["a", "x", "b"]), None);
        assert_eq!(missing(&["b", "a"]), Some("b"));
        assert_eq!(missing(&["b"]), Some("a"));
    }

    #[test]
    fn a_command_that_fails_is_not_drawn_whatever_its_trace_shows() {
        let report = small();
        let of = |steps| Figure {
            path: "",
            command: &[],
            steps,
        };
        let figure = of(&["write", "pop"]);
        figure.picture(0, Some(&report)).unwrap();
        let why = |figure: Figure, status, report| {
            figure.picture(status, report).unwrap_err().to_string()
        };
        assert!(why(figure, 1, Some(&report)).contains("status 1"));
        assert!(why(figure, 0, None).contains("cannot trace"));
        assert!(why(of(&["no such step"]), 0, Some(&report)).contains("no such step"));
    }

    /// `cargo lab docs --figures` makes them anew.
    #[test]
    fn the_figures_are_what_this_renderer_draws_and_show_the_whole_path() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for figure in FIGURES {
            let text = fs::read_to_string(repository.join(figure.path)).unwrap();
            let again = "make it anew: cargo lab docs --figures";
            let picture = Picture::read(&text).expect(again);
            assert!(picture.svg() == text, "{}: {again}", figure.path);
            assert_eq!(
                figure.missing(picture.names()),
                None,
                "{}: {again}",
                figure.path
            );
        }
    }
}
