// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lists and runs the chapter's lessons, see `docs/lessons/`.

use std::io::{BufRead, BufReader, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::lessons::{Desk, LESSONS, Lesson, pages};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const USAGE: &str = "\
Usage: lesson [list]              all lessons, by the chapter's numbers
       lesson ID [OPTIONS]        one: listing-9.13, or 9.13 where that is enough
       lesson all [OPTIONS]       each in a process of its own, then who passed

  --svg DIR     where figures are written as SVG (default: the current directory, if it is writable)
  --pages DIR   replaces the transcripts on the pages in DIR, as docs/lessons, by what each lesson prints;
                figures are written there

Exit status: 0 all passed, 1 not all did, 2 wrong usage.
";

/// How long a lesson may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What was asked for.
enum Task {
    Help,
    List,
    All,
    One(&'static Lesson),
}

fn say(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Where a run leaves something.
#[derive(Default)]
struct Places {
    svg: Option<PathBuf>,
    pages: Option<PathBuf>,
}

/// The folder that an option names: in the same argument, or in the next.
fn folder(option: &str, argument: &str, next: impl FnOnce() -> Option<String>) -> Result<PathBuf> {
    let given = argument.split_once('=').map(|(_, value)| value.to_owned());
    let folder = given
        .or_else(next)
        .with_context(|| format!("{option} needs a folder"))?;
    if !Path::new(&folder).is_dir() {
        bail!("{option} {folder}: no such folder");
    }
    Ok(PathBuf::from(folder))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Task, Places)> {
    let (mut task, mut places) = (None, Places::default());
    while let Some(argument) = arguments.next() {
        let option = argument.split('=').next().unwrap_or_default();
        let place = match option {
            "--svg" => Some(&mut places.svg),
            "--pages" => Some(&mut places.pages),
            _ => None,
        };
        if let Some(place) = place {
            *place = Some(folder(option, &argument, || arguments.next())?);
            continue;
        }
        let wanted = match argument.as_str() {
            "-h" | "--help" => Task::Help,
            "list" => Task::List,
            "all" => Task::All,
            option if option.starts_with('-') => bail!("unknown option {option}"),
            id => Task::One(find(id)?),
        };
        if task.is_some() {
            bail!("one lesson at a time, or `all`");
        }
        task = Some(wanted);
    }
    Ok((task.unwrap_or(Task::List), places))
}

/// The lesson called `id`, or the only one whose name ends so.
fn find(id: &str) -> Result<&'static Lesson> {
    if let Some(lesson) = LESSONS.iter().find(|lesson| lesson.id == id) {
        return Ok(lesson);
    }
    let tail = format!("-{id}");
    let found: Vec<&Lesson> = LESSONS.iter().filter(|l| l.id.ends_with(&tail)).collect();
    match found.as_slice() {
        [] => bail!("no lesson {id:?}; `lesson list` shows them"),
        [lesson] => Ok(lesson),
        several => {
            let ids: Vec<&str> = several.iter().map(|lesson| lesson.id).collect();
            bail!("{id:?} can be {}", ids.join(" or "))
        }
    }
}

fn list() -> Result<()> {
    say(&format!("{:<13}  {:<7}  {}", "ID", "section", "title"))?;
    for lesson in LESSONS {
        say(&format!(
            "{:<13}  {:<7}  {}",
            lesson.id, lesson.number, lesson.title
        ))?;
    }
    say("\nlesson ID runs one, lesson all runs all; docs/lessons/ has a page for each.")
}

/// Runs one in this process, and says how it went.
fn one(lesson: &Lesson, desk: &Desk) -> Result<bool> {
    match lesson.run(desk) {
        Ok(()) => say(&format!("PASS {}", lesson.id)).map(|()| true),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', " ");
            say(&format!("FAIL {}: {reason}", lesson.id)).map(|()| false)
        }
    }
}

/// Runs one in a process of its own, whose lines go on, and if it passes to its page; why it failed, if it did.
fn apart(lesson: &Lesson, places: &Places) -> Result<Option<String>> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(lesson.id)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    if let Some(folder) = places.pages.as_ref().or(places.svg.as_ref()) {
        command.arg("--svg").arg(folder);
    }
    let mut child = command.spawn().context("starting the lesson")?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let out = child.stdout.take().context("no pipe")?;
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let limit = globalfifo_guest_tests::harness::limit(LIMIT);
    let deadline = Instant::now() + limit;
    let mut reason = None;
    let mut printed = Vec::new();
    let timed_out = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(text) = line.strip_prefix(&format!("FAIL {}: ", lesson.id)) {
                    reason = Some(text.to_owned());
                }
                say(&line)?;
                printed.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timed_out {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = child.wait()?;
    let _ = killpg(group, Signal::SIGKILL);
    if let (Some(folder), false, true) = (&places.pages, timed_out, status.success()) {
        pages::update(folder, lesson.id, &printed)?;
    }
    Ok(match (timed_out, status.success()) {
        (true, _) => Some(format!("still running after {} s", limit.as_secs())),
        (false, true) => None,
        (false, false) => Some(reason.unwrap_or_else(|| status.to_string())),
    })
}

fn all(places: &Places) -> Result<bool> {
    let mut outcomes = Vec::new();
    for lesson in LESSONS {
        outcomes.push((lesson, apart(lesson, places)?));
        say("")?;
    }
    let mut failed = 0;
    for (lesson, outcome) in &outcomes {
        match outcome {
            None => say(&format!("PASS  {:<13}  {}", lesson.id, lesson.title))?,
            Some(reason) => {
                failed += 1;
                say(&format!(
                    "FAIL  {:<13}  {}: {reason}",
                    lesson.id, lesson.title
                ))?;
            }
        }
    }
    say(&format!(
        "{} passed, {failed} failed",
        outcomes.len() - failed
    ))?;
    Ok(failed == 0)
}

fn run(task: &Task, places: Places) -> Result<bool> {
    match task {
        Task::Help => say(USAGE.trim_end()).map(|()| true),
        Task::List => list().map(|()| true),
        Task::One(lesson) if places.pages.is_some() => {
            apart(lesson, &places).map(|reason| reason.is_none())
        }
        Task::One(lesson) => one(lesson, &Desk { svg: places.svg }),
        Task::All => all(&places),
    }
}

fn main() -> ExitCode {
    let (task, places) = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            let _ = write!(stderr(), "lesson: {error:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&task, places) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(error) => {
            let _ = writeln!(stderr(), "lesson: {error:#}");
            ExitCode::FAILURE
        }
    }
}
