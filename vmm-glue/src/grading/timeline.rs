// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab grade --trace`: a rule's run as a timeline of guest and daemon, kept as a page if the rule fails.
//!
//! It knows where a trace comes from and goes to. It must not know rules, nor how a trace is put together.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::outcome::End;
use super::outcome::Verdict;
use super::session::Session;
use crate::trace::page;
use crate::trace::run::Recorder;
use crate::trace::run::assemble;
use crate::ui;

/// Name of the folder that machines see: guest.sh has it, too.
pub const SHARE: &str = "traces";
/// For the guest to switch its tracing on, and to save what it has traced, beside a rule's own limit.
pub const OVERHEAD: Duration = Duration::from_secs(60);

/// Where timelines go.
#[derive(Debug, Clone, Copy)]
pub struct Timelines<'a> {
    /// Folder that machines see as [`SHARE`].
    pub shared: &'a Path,
    /// The user's folder for pages.
    pub pages: &'a Path,
}

/// A rule's run that is being traced.
#[derive(Debug)]
pub struct Recording<'a> {
    /// What the guest leaves.
    left: PathBuf,
    page: PathBuf,
    rule: &'a str,
    recorder: Recorder,
}

impl<'a> Timelines<'a> {
    /// Begins with the host's side; the guest's begins with guest.sh's `trace`.
    ///
    /// # Errors
    ///
    /// There is no room for it, or the daemon does not answer.
    pub fn begin(&self, session: &Session, rule: &'a str) -> Result<Recording<'a>> {
        let left = self.shared.join(rule);
        // One of a machine before, or of a grading before with --watch.
        let _ = fs::remove_dir_all(&left);
        let made = fs::create_dir_all(&left).and_then(|()| fs::create_dir_all(self.pages));
        made.with_context(|| format!("--trace: cannot make {}", self.pages.display()))?;
        let page = self.pages.join(format!("{rule}.html"));
        // One that a failure before has left is none of this run.
        let _ = fs::remove_file(&page);
        Ok(Recording {
            left,
            page,
            rule,
            recorder: Recorder::begin(session.machine(), &session.control())?,
        })
    }
}

impl Recording<'_> {
    /// Whether the guest could not trace, and why: then the rule has not run, or its status is lost.
    pub fn refusal(&self) -> Option<String> {
        fs::read_to_string(self.left.join("error")).ok()
    }

    /// Ends it; a failure has the page then. A page that cannot be made is a warning, and the grading goes on.
    pub fn end(self, mut end: End, node: &str) -> End {
        let (rule, page) = (self.rule, self.page.clone());
        let is_wanted = end.verdict == Verdict::Fail;
        match self.write(is_wanted, node) {
            Ok(()) if is_wanted => end.trace = page.display().to_string(),
            Ok(()) => {}
            Err(err) if is_wanted => ui::warn(&format!("no trace of {rule}: {err:#}")),
            Err(_) => {}
        }
        end
    }

    fn write(self, is_wanted: bool, node: &str) -> Result<()> {
        let recorded = self.recorder.end()?;
        if is_wanted {
            let command = [self.rule.to_owned(), node.to_owned()];
            let report = assemble(&self.left, recorded, &command)?;
            let page = page::page(&report);
            fs::write(&self.page, page)
                .with_context(|| format!("cannot write {}", self.page.display()))?;
        }
        // A trace may be large, and a grading has many rules.
        let _ = fs::remove_dir_all(&self.left);
        Ok(())
    }
}
