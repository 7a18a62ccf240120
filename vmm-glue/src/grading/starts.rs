// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `cargo lab new` makes, graded: part `grade/new/` of `cargo lab test`. It must not know how a rule is run.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::ValueEnum;

use super::graded::Grader;
use super::graded::PLACE;
use super::outcome::Verdict;
use super::session::Session;
use super::subject;
use crate::cli::Kind;
use crate::cli::Lang;
use crate::files;
use crate::scratch;
use crate::scratch::Scratch;
use crate::skeletons;
use crate::stages::System;

/// The rule that a skeleton fails first.
const FIRST: &str = "read.data";

/// A skeleton.
#[derive(Clone, Copy)]
pub struct Start(Kind, Lang);

impl Start {
    /// Each kind in each language.
    pub fn all() -> impl Iterator<Item = Self> {
        let kinds = Kind::value_variants().iter();
        kinds.flat_map(|kind| Lang::value_variants().iter().map(|lang| Self(*kind, *lang)))
    }

    /// Name of its test.
    pub fn test(self) -> String {
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.map_or(String::new(), |value| value.get_name().to_owned())
        };
        let (kind, lang) = (self.0.to_possible_value(), self.1.to_possible_value());
        format!("{PLACE}new/{}-{}", word(kind), word(lang))
    }

    /// It compiles, loads, and fails the first rule that it has a TODO for.
    pub fn leads(self, grader: &Grader<'_>, session: &mut Option<Session>) -> Result<()> {
        let folder = Scratch::new(scratch::Kind::New)?;
        let repository = &grader.shop.repository;
        let sources = skeletons::sources(repository, self.0, self.1, "my_fifo")?;
        files::write(folder.path(), &sources)?;
        let made = (&grader.ready.tree, &grader.ready.kernel);
        let subject = subject::obtain(grader.shop, made, System::default(), folder.path())?
            .map_err(|failed| anyhow::anyhow!(failed.end.seen))?;
        let mut course = grader.course(&subject).with_session(session.take());
        let mut failed = None;
        for rule in grader.catalog.rules.iter().filter(|rule| rule.must) {
            let outcome = course.rule(rule)?;
            if outcome.verdict != Verdict::Pass {
                failed = Some(outcome);
                break;
            }
        }
        *session = course.into_session();
        let failed = failed.context("the skeleton passes every rule")?;
        ensure!(
            failed.id == FIRST && failed.verdict == Verdict::Fail,
            "{} is the first rule that does not pass, not {FIRST}: {}",
            failed.id,
            failed.seen
        );
        Ok(())
    }
}
