// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab down`: the end of a machine that stays.

use anyhow::Result;

use crate::cli::DownArgs;
use crate::stay::registry;
use crate::stay::registry::Place;
use crate::stay::registry::State;
use crate::ui;
use crate::vm::console;

/// Ends one, or all.
pub fn down(args: &DownArgs) -> Result<u8> {
    if args.all {
        for place in registry::all()? {
            end(&place)?;
        }
        return Ok(0);
    }
    let place = Place::of(&args.name)?;
    anyhow::ensure!(
        place.is_known(),
        "there is no machine called {}: `cargo lab ps` lists those that are there",
        args.name
    );
    end(&place)?;
    Ok(0)
}

fn end(place: &Place) -> Result<()> {
    // Of one that has ended by itself, all has been said.
    if let Some(record) = place.record()
        && record.state == State::Running
    {
        console::tell_complaints(&record.console, false);
        if let Some(loss) = record.loss() {
            loss.tell(&record.console, !record.console.starts_with(&record.run));
        }
    }
    place.end()?;
    ui::say(&format!("the machine {} has ended", place.name));
    Ok(())
}
