// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ctl PATH top`: levels and rates as they change, on a terminal with keys that do things to the device.
//!
//! It knows the control protocol alone: what it shows is what `status` says, twice.

mod lines;
mod link;
mod panel;
mod rates;
#[cfg(test)]
mod samples;
mod screen;

use std::io;
use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use clap::Args;

use self::link::Link;
use self::link::News;
use self::panel::Panel;
use self::panel::Reaction;
use self::screen::Happening;
use self::screen::Screen;
use super::CtlError;
use super::Session;
use super::read;
use super::write_out;
use crate::control::protocol::Command;
use crate::control::protocol::Status;

/// Arguments of `top`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TopArgs {
    /// Time between two looks at the device, in seconds: 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Print so many blocks of lines and end, also on a terminal
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds from 0.1 to 3600".to_owned()),
    }
}

/// Shows the device until a key, a signal, the count, or its end.
///
/// # Errors
///
/// The daemon ends or does not answer; the terminal or standard output cannot be used.
pub(super) fn run(session: Session, args: &TopArgs) -> Result<(), CtlError> {
    let dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb;
    if terminal && args.count.is_none() && !session.json {
        on_a_terminal(session, args.interval)
    } else {
        as_lines(session, args)
    }
}

/// One block for each interval, each with the rates of that interval. With `--json` the answers of the daemon instead.
fn as_lines(mut session: Session, args: &TopArgs) -> Result<(), CtlError> {
    let ask = |session: &mut Session| session.ask(Command::Status {}).and_then(read::<Status>);
    let json = session.json;
    // Of the first look, only what the second is compared with is wanted.
    session.json = false;
    let mut earlier = ask(&mut session)?;
    session.json = json;
    let mut left = args.count;
    while left != Some(0) {
        thread::sleep(args.interval);
        let later = ask(&mut session)?;
        if !json {
            write_out(lines::block(&later, &rates::between(&earlier, &later)).as_bytes())?;
        }
        earlier = later;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn on_a_terminal(session: Session, interval: Duration) -> Result<(), CtlError> {
    let use_terminal = |error| CtlError::Stream("use the terminal", error);
    let link = Link::new(session.client, interval);
    let mut panel = Panel::default();
    let mut screen = Screen::open().map_err(use_terminal)?;
    let ended = loop {
        for news in link.news() {
            match news {
                News::Status(status) => panel.update(*status),
                News::Done(text) => panel.say(text),
                News::Ended(error) => return Err(error),
            }
        }
        screen
            .draw(|frame| panel.draw(frame))
            .map_err(use_terminal)?;
        match screen.wait().map_err(use_terminal)? {
            Happening::Nothing => {}
            Happening::Signal(signal) => break Some(signal),
            Happening::Key(key) => match panel.key(key) {
                Reaction::Nothing => {}
                Reaction::Quit => break None,
                Reaction::Do(command) => link.order(command),
            },
        }
    };
    drop(screen);
    // As if it had not been caught: who started this learns how it ended.
    ended.map_or(Ok(()), |signal| {
        signal_hook::low_level::emulate_default_handler(signal)
            .map_err(|error| CtlError::Stream("end by a signal", error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_within_limits() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.01", "-1", "3601", "NaN", "1s", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
