//! Lists and runs the chapter's lessons, see `docs/lessons/`.

use std::io::{BufRead, BufReader, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::lessons::{Desk, LESSONS, Lesson};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const USAGE: &str = "\
Usage: lesson [list]             all lessons, by the chapter's numbers
       lesson ID [--svg DIR]     one: listing-9.13, or 9.13 where that is enough
       lesson all [--svg DIR]    each in a process of its own, then who passed

  --svg DIR   where figures are written as SVG (default: the current directory, if it is writable)

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

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Task, Option<PathBuf>)> {
    let (mut task, mut svg) = (None, None);
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--svg" => Some(arguments.next().context("--svg needs a folder")?),
            other => other.strip_prefix("--svg=").map(str::to_owned),
        };
        if let Some(folder) = value {
            if !Path::new(&folder).is_dir() {
                bail!("--svg {folder}: no such folder");
            }
            svg = Some(PathBuf::from(folder));
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
    Ok((task.unwrap_or(Task::List), svg))
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

/// Runs one in a process of its own, whose lines go on; why it failed, if it did.
fn apart(lesson: &Lesson, svg: Option<&PathBuf>) -> Result<Option<String>> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(lesson.id)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    if let Some(folder) = svg {
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
    let timed_out = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(text) = line.strip_prefix(&format!("FAIL {}: ", lesson.id)) {
                    reason = Some(text.to_owned());
                }
                say(&line)?;
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
    Ok(match (timed_out, status.success()) {
        (true, _) => Some(format!("still running after {} s", limit.as_secs())),
        (false, true) => None,
        (false, false) => Some(reason.unwrap_or_else(|| status.to_string())),
    })
}

fn all(desk: &Desk) -> Result<bool> {
    let mut outcomes = Vec::new();
    for lesson in LESSONS {
        outcomes.push((lesson, apart(lesson, desk.svg.as_ref())?));
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

fn run(task: &Task, svg: Option<PathBuf>) -> Result<bool> {
    let desk = Desk { svg };
    match task {
        Task::Help => say(USAGE.trim_end()).map(|()| true),
        Task::List => list().map(|()| true),
        Task::One(lesson) => one(lesson, &desk),
        Task::All => all(&desk),
    }
}

fn main() -> ExitCode {
    let (task, svg) = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            let _ = write!(stderr(), "lesson: {error:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&task, svg) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(error) => {
            let _ = writeln!(stderr(), "lesson: {error:#}");
            ExitCode::FAILURE
        }
    }
}
