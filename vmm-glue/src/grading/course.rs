// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The course of a grading: rules one after another on one machine, and on a new one after each that the machine did not survive.
//!
//! It must not know how a machine is spoken to, nor how outcomes are shown.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use super::catalog::Catalog;
use super::catalog::Rule;
use super::outcome::End;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::session;
use super::session::Call;
use super::session::Session;
use super::session::Site;
use super::style;
use super::subject::Subject;
use super::timeline;
use super::timeline::Timelines;
use super::trace;
use super::trace::Module;
use crate::cancel;
use crate::exit;
use crate::stages::KernelChoice;
use crate::ui;

/// A driver that has brought down so many machines is not tried further.
const LOST_MAX: usize = 6;
/// So often a machine is started for a rule before none is taken to come up: no driver has been loaded by then.
const STARTS_MAX: usize = 2;
/// For insmod and rmmod, which may wait for a device.
const MODULE_LIMIT: Duration = Duration::from_secs(30);
/// guest.sh's status of an insmod or rmmod that does not return.
const HANGS: u8 = 124;
/// Rounds of `module.reload`.
const RELOADS: &str = "10";
/// kmemleak tells what it has found unreferenced twice, not changed in between, and older than five seconds.
const LEAKS_LIMIT: Duration = Duration::from_secs(60);

/// A grading.
#[derive(Debug)]
pub struct Course<'a> {
    site: &'a Site,
    catalog: &'a Catalog,
    subject: &'a Subject,
    module: Module<'a>,
    kernel: KernelChoice,
    parameters: &'a [String],
    timelines: Option<Timelines<'a>>,
    session: Option<Session>,
    node: Option<String>,
    /// Whether there is a virtio device behind the node.
    has_device: bool,
    is_loaded: bool,
    /// Ends of the first loading.
    loads: Option<(End, End)>,
    /// Why no further rule can be tried.
    blocked: Option<String>,
    /// Why a machine did not come up, in full: then rules are not reached that the driver may well keep.
    no_machine: Option<String>,
    /// What the kernel reported, and during which rule.
    reports: Vec<(String, String)>,
    /// Rules that the machine did not survive.
    lost: Vec<String>,
}

impl<'a> Course<'a> {
    /// At its start; no machine runs yet.
    pub fn new(
        site: &'a Site,
        catalog: &'a Catalog,
        subject: &'a Subject,
        module: Module<'a>,
        kernel: KernelChoice,
        parameters: &'a [String],
    ) -> Self {
        Self {
            site,
            catalog,
            subject,
            module,
            kernel,
            parameters,
            timelines: None,
            session: None,
            node: None,
            has_device: false,
            is_loaded: false,
            loads: None,
            blocked: None,
            no_machine: None,
            reports: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Uses a machine on which no module of this grading is loaded.
    pub fn with_session(mut self, session: Option<Session>) -> Self {
        self.session = session;
        self
    }

    /// Why a machine did not come up, if one did not: the grading is not whole then.
    pub fn no_machine(&self) -> Option<&str> {
        self.no_machine.as_deref()
    }

    /// Traces the run of each rule's program. The site has a folder for it.
    pub fn with_timelines(mut self, pages: &'a Path) -> Self {
        self.timelines = self.site.traces().map(|shared| Timelines { shared, pages });
        self
    }

    /// The machine, once the module has been unloaded again; none if it did not survive.
    pub fn into_session(mut self) -> Option<Session> {
        if self.is_loaded {
            let name = self.subject.name.clone();
            let call = self
                .session
                .as_mut()?
                .call(&["unload", &name], MODULE_LIMIT);
            if !matches!(call, Ok(Call::Ended { status: 0, .. })) {
                return None;
            }
        }
        self.session
    }

    /// Carries a rule out.
    pub fn rule(&mut self, rule: &Rule) -> Result<Outcome> {
        let mut started = Instant::now();
        let end = match rule.id.as_str() {
            "build.compiles" => End::pass(),
            "build.license" => self.subject.license(),
            "build.warnings" => self.subject.warnings(),
            "build.style" => match self.module.tools {
                Some(tools) => style::judge(tools, self.subject)?,
                None => End::absent("there is nothing to check it with"),
            },
            "kernel.clean" => self.clean()?,
            "kernel.alive" => self.alive()?,
            _ => {
                self.begin()?;
                // A rule's time is its own, without that of a boot before it.
                started = Instant::now();
                self.on_machine(rule)?
            }
        };
        Ok(end.outcome(&rule.id, rule.must, started.elapsed()))
    }

    /// A machine with the module loaded, unless nothing more can be tried.
    fn begin(&mut self) -> Result<()> {
        if self.lost.len() >= LOST_MAX && self.blocked.is_none() {
            self.blocked = Some(format!(
                "{LOST_MAX} machines did not survive this driver: mend those rules first"
            ));
        }
        if self.blocked.is_none() && (self.session.is_none() || !self.is_loaded) {
            self.load()?;
        }
        Ok(())
    }

    /// A machine whose device has these faults, beside these devices; else why there is none, in a line.
    fn boot(&mut self, faults: &[String], beside: &[String]) -> Result<Result<Session, String>> {
        let told = |why: &str| format!("no machine came up: {}", session::first_words(why));
        // Another one would not come up either, and that takes minutes.
        if let Some(why) = &self.no_machine {
            return Ok(Err(told(why)));
        }
        let mut why = String::new();
        for _ in 0..STARTS_MAX {
            match self.site.boot(faults, beside) {
                Ok(session) => return Ok(Ok(session)),
                Err(err) => {
                    cancel::check()?;
                    let (status, message) = exit::of(&err);
                    if status != exit::MACHINE {
                        return Err(err);
                    }
                    why = message;
                }
            }
        }
        let line = told(&why);
        self.no_machine = Some(why);
        Ok(Err(line))
    }

    fn load(&mut self) -> Result<()> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match self.boot(&[], &[])? {
                Ok(session) => session,
                Err(why) => {
                    self.blocked = Some(why);
                    return Ok(());
                }
            },
        };
        let ko = self.site.put(&self.subject.ko, &self.subject.name)?;
        let mut words = vec!["load", ko.as_str()];
        words.extend(self.parameters.iter().map(String::as_str));
        let done = format!("insmod {}", self.subject.name);
        let (loads, text) = match session.call(&words, MODULE_LIMIT)? {
            Call::Ended { status, text, log } => {
                let end = match status {
                    _ if trace::is_fatal(&log) => End::fail(&done, "no oops", "an oops"),
                    0 => End::pass(),
                    _ => End::fail(&done, "a loaded module", said(&text)),
                };
                let waits = trace::waits(&text, &self.module);
                let report = self.note("insmod", &log).or(waits);
                if trace::is_fatal(&log) || status == HANGS {
                    self.lost.push("module.loads".to_owned());
                } else {
                    self.session = Some(session);
                }
                (
                    end.with_kernel(report.unwrap_or_else(|| last_words(&log))),
                    text,
                )
            }
            Call::Lost { why, log } => {
                self.lost.push("module.loads".to_owned());
                let report = self.note("insmod", &log);
                let end = End::fail(&done, "a loaded module", why);
                (end.with_kernel(report.unwrap_or_default()), String::new())
            }
        };
        self.is_loaded = loads.verdict == Verdict::Pass;
        let node = nodes(&text).into_iter().next();
        let has_node = match (&node, self.is_loaded) {
            (_, false) => End::unreached("the module does not load"),
            (Some(_), true) => End::pass(),
            (None, true) => End::fail(
                &done,
                "a character device: a new node in /dev, or a new major number in /proc/devices",
                "neither",
            ),
        };
        if !self.is_loaded {
            self.blocked = Some("the module does not load".to_owned());
        }
        self.node = node;
        self.has_device = text.lines().any(|line| line.starts_with("device "));
        // What the log says of a loading that went well is of no interest.
        let loads = if self.is_loaded { End::pass() } else { loads };
        self.loads.get_or_insert((loads, has_node));
        Ok(())
    }

    fn on_machine(&mut self, rule: &Rule) -> Result<End> {
        if let Some((loads, node)) = &self.loads {
            match rule.id.as_str() {
                "module.loads" => return Ok(loads.clone()),
                "module.node" => return Ok(node.clone()),
                _ => {}
            }
        }
        if let Some(why) = &self.blocked {
            return Ok(End::unreached(why.clone()));
        }
        let name = self.subject.name.clone();
        match (rule.id.as_str(), self.node.clone()) {
            ("module.reload", _) => self.reload(&name),
            ("module.leak", _) => self.leak(&name),
            (_, None) => Ok(End::unreached("the module makes no device node")),
            ("module.busy", Some(node)) => self.busy(&name, &node),
            _ if rule.is_apart() => self.apart(rule),
            (_, Some(node)) if self.catalog.program(rule).is_some() => self.program(rule, &node),
            _ => Ok(End::unreached("this lab does not know how to try it")),
        }
    }

    /// A call, with what the kernel reported; the machine is given up after a fatal report or silence.
    fn call(
        &mut self,
        rule: &str,
        words: &[&str],
        limit: Duration,
    ) -> Result<(Option<(u8, String)>, End)> {
        let Some(mut session) = self.session.take() else {
            return Ok((None, End::unreached("there is no machine")));
        };
        match session.call(words, limit)? {
            Call::Ended { status, text, log } => {
                let report = self.note(rule, &log).unwrap_or_default();
                if trace::is_fatal(&log) {
                    self.lost.push(rule.to_owned());
                    self.is_loaded = false;
                    let said = End::from_program(status, true, &text);
                    let end = End::fail(&said.done, "a kernel without an oops", "an oops");
                    return Ok((None, end.with_kernel(report)));
                }
                if status == HANGS {
                    self.lost.push(rule.to_owned());
                    self.is_loaded = false;
                    let waits = trace::waits(&text, &self.module).unwrap_or_default();
                    let end = End::fail(&format!("run {rule}"), "a call that returns", said(&text));
                    return Ok((None, end.with_kernel(waits)));
                }
                self.session = Some(session);
                Ok((Some((status, text)), End::pass()))
            }
            Call::Lost { why, log } => {
                self.lost.push(rule.to_owned());
                self.is_loaded = false;
                let report = self.note(rule, &log).unwrap_or_else(|| last_words(&log));
                let end = End::fail(&format!("run {rule}"), "an answer", why);
                Ok((None, end.with_kernel(report)))
            }
        }
    }

    fn program(&mut self, rule: &Rule, node: &str) -> Result<End> {
        let (end, is_stuck) = match (self.timelines, &self.session) {
            (Some(timelines), Some(session)) => {
                let recording = timelines.begin(session, &rule.id)?;
                let (end, is_stuck) = self.run("trace", rule, node)?;
                match recording.refusal() {
                    None => (recording.end(end, node), is_stuck),
                    Some(why) => {
                        ui::warn(&format!("no trace of {}: {why}", rule.id));
                        self.run("run", rule, node)?
                    }
                }
            }
            _ => self.run("run", rule, node)?,
        };
        if is_stuck {
            // A process that does not end keeps the file open: no rule after it would have the FIFO to itself.
            self.lost.push(rule.id.clone());
            self.session = None;
            self.is_loaded = false;
        }
        Ok(end)
    }

    /// Runs a rule's program as guest.sh's `run` or `trace` does: its end, and whether it has left a process that SIGKILL does not end.
    fn run(&mut self, how: &str, rule: &Rule, node: &str) -> Result<(End, bool)> {
        let seconds = rule.limit().as_secs().to_string();
        let words = [how, &rule.id, &seconds, node];
        let more = match how {
            "trace" => timeline::OVERHEAD,
            _ => Duration::ZERO,
        };
        let (answer, end) = self.call(&rule.id, &words, rule.limit() + more)?;
        let Some((status, text)) = answer else {
            return Ok((end, false));
        };
        let end = End::from_program(status, rule.must, &text);
        if status != 3 {
            return Ok((end, false));
        }
        let waits = trace::waits(&text, &self.module);
        Ok((end.with_kernel(waits.unwrap_or_default()), true))
    }

    /// A rule about a device with faults or neighbours, on a machine of its own; the other one stays.
    fn apart(&mut self, rule: &Rule) -> Result<End> {
        if !self.has_device {
            return Ok(End::absent("there is no virtio device behind the node"));
        }
        let other = match self.boot(&rule.faults, &rule.machine)? {
            Ok(session) => session,
            Err(why) => return Ok(End::unreached(why)),
        };
        let usual = self.session.take();
        let node = self.node.take();
        self.session = Some(other);
        self.is_loaded = false;
        let end = self.beside(rule);
        self.is_loaded = usual.is_some();
        self.session = usual;
        self.node = node;
        end
    }

    /// Loads the module on the machine that there is, and runs the rule.
    fn beside(&mut self, rule: &Rule) -> Result<End> {
        let name = self.subject.name.clone();
        let ko = self.site.put(&self.subject.ko, &name)?;
        let mut words = vec!["load", ko.as_str()];
        words.extend(self.parameters.iter().map(String::as_str));
        let (answer, end) = self.call(&rule.id, &words, MODULE_LIMIT)?;
        let Some((_, text)) = answer else {
            return Ok(end);
        };
        match nodes(&text).first() {
            Some(node) => self.program(rule, node),
            None => Ok(End::absent("with this device the driver makes no node")),
        }
    }

    fn busy(&mut self, name: &str, node: &str) -> Result<End> {
        let (answer, end) = self.call("module.busy", &["busy", name, node], MODULE_LIMIT)?;
        let Some((status, text)) = answer else {
            return Ok(end);
        };
        let stays = status == 0 && !text.contains("left: nothing");
        if stays {
            return Ok(End::pass());
        }
        // The code of an open file has gone.
        self.session = None;
        self.is_loaded = false;
        Ok(End::fail(
            &format!("open {node}, rmmod {name}"),
            "rmmod fails: the module is in use",
            "rmmod unloaded it under the open file",
        ))
    }

    fn reload(&mut self, name: &str) -> Result<End> {
        let ko = self.site.put(&self.subject.ko, name)?;
        let mut words = vec!["again", name, ko.as_str(), RELOADS];
        words.extend(self.parameters.iter().map(String::as_str));
        let (answer, end) = self.call("module.reload", &words, MODULE_LIMIT * 3)?;
        let Some((status, text)) = answer else {
            return Ok(end);
        };
        let done = format!("rmmod and insmod, {RELOADS} times");
        if status != 0 {
            self.session = None;
            self.is_loaded = false;
            return Ok(End::fail(&done, "both work each time", text.trim()));
        }
        let made_by_hand = !text.contains("node ");
        match &self.node {
            Some(node) if !made_by_hand && !nodes(&text).contains(node) => Ok(End::fail(
                &done,
                &format!("{node} is there again"),
                "it is not",
            )),
            _ => Ok(End::pass()),
        }
    }

    fn leak(&mut self, name: &str) -> Result<End> {
        let (answer, end) = self.call("module.leak", &["unload", name], MODULE_LIMIT)?;
        let Some((status, text)) = answer else {
            return Ok(end);
        };
        self.is_loaded = false;
        let left: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("left: "))
            .collect();
        if status == 0 && left.is_empty() {
            return Ok(End::pass());
        }
        self.session = None;
        let seen = if left.is_empty() {
            text.trim().to_owned()
        } else {
            left.join("; ")
        };
        Ok(End::fail(
            &format!("rmmod {name}"),
            "nothing is left of it",
            seen,
        ))
    }

    fn clean(&mut self) -> Result<End> {
        if self.kernel == KernelChoice::Debug && self.session.is_some() {
            let words = ["leaks"];
            if let (Some((_, text)), _) = self.call("kernel.clean", &words, LEAKS_LIMIT)?
                && let Some(report) = trace::leaks(&text, &self.module)
            {
                self.reports.push(("the whole grading".to_owned(), report));
            }
        }
        let Some((rule, report)) = self.reports.first() else {
            return Ok(match (&self.session, self.lost.is_empty(), &self.loads) {
                (None, _, None) => End::unreached("no rule was run on a machine"),
                _ => End::pass(),
            });
        };
        let count = self.reports.len();
        let seen = match count {
            1 => format!("a report during {rule}"),
            _ => format!("{count} reports, the first during {rule}"),
        };
        Ok(End::fail(
            "all the rules before",
            "a kernel that reports nothing",
            seen,
        )
        .with_kernel(report.clone()))
    }

    fn alive(&mut self) -> Result<End> {
        if !self.lost.is_empty() {
            let seen = format!("a new machine was needed after {}", self.lost.join(", "));
            return Ok(End::fail(
                "all the rules before",
                "one machine to the end",
                seen,
            ));
        }
        if self.session.is_none() {
            return Ok(match &self.loads {
                None => End::unreached("no rule was run on a machine"),
                Some(_) => End::pass(),
            });
        }
        let (answer, end) = self.call("kernel.alive", &["answer"], MODULE_LIMIT)?;
        Ok(answer.map_or(end, |_| End::pass()))
    }

    /// Keeps what the kernel reported.
    fn note(&mut self, rule: &str, log: &str) -> Option<String> {
        let report = trace::report(log, &self.module)?;
        self.reports.push((rule.to_owned(), report.clone()));
        Some(report)
    }
}

/// Nodes that guest.sh has found or made.
fn nodes(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            line.strip_prefix("node ")
                .or_else(|| line.strip_prefix("made "))
        })
        .map(str::to_owned)
        .collect()
}

/// What a call of guest.sh said, without stacks.
fn said(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("stack: "));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// What the driver itself said last.
fn last_words(log: &str) -> String {
    crate::causes::tail(log.trim(), 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_came_and_nodes_that_were_made_count() {
        let text = "node /dev/globalfifo0\nnode /dev/globalfifo1\nmade /dev/x\nother\n";
        assert_eq!(
            nodes(text),
            ["/dev/globalfifo0", "/dev/globalfifo1", "/dev/x"]
        );
    }
}
