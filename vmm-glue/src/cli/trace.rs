// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of `cargo lab trace`.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::GuestArgs;
use super::StreamArgs;
use crate::exit::usage;

/// `cargo lab trace`.
///
/// Boots as `run` does, traces the command in the guest and the device on the host on one clock, and links causes to effects. The guest
/// command's exit status is the lab's. docs/trace.md has the lanes, the links and the formats.
#[derive(Debug, Args)]
pub struct TraceArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Where the trace is written, by its ending: .html (one page), .json, .pftrace (for Perfetto's viewer) or .svg (the longest
    /// chain); may be repeated. Without it, the chains are printed.
    #[arg(short, long, value_name = "FILE", value_parser = output)]
    pub output: Vec<Output>,
    /// The command and its arguments, as they are.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A page.
    Html,
    /// The schema of docs/trace.md.
    Json,
    /// For Perfetto's viewer.
    Perfetto,
    /// A picture of the chain with the most steps.
    Svg,
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub path: PathBuf,
    /// How.
    pub format: Format,
}

fn output(text: &str) -> Result<Output, String> {
    let path = PathBuf::from(text);
    let format = match path.extension().and_then(|ending| ending.to_str()) {
        Some("html") => Format::Html,
        Some("json") => Format::Json,
        Some("pftrace" | "perfetto-trace") => Format::Perfetto,
        Some("svg") => Format::Svg,
        _ => {
            return Err(
                "give it an ending that says what it is to be: .html, .json, .pftrace or .svg"
                    .to_owned(),
            );
        }
    };
    Ok(Output { path, format })
}

impl TraceArgs {
    /// What can be said against it before anything is started.
    pub fn check(&self) -> Result<()> {
        for Output { path, .. } in &self.output {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !Path::is_dir(folder)) {
                return Err(usage(format!(
                    "-o {}: there is no folder {}",
                    path.display(),
                    folder.display()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_is_written() {
        let format = |text| output(text).map(|output| output.format);
        assert_eq!(format("a/t.html"), Ok(Format::Html));
        assert_eq!(format("t.json"), Ok(Format::Json));
        assert_eq!(format("t.pftrace"), Ok(Format::Perfetto));
        for bad in ["t", "t.txt", ".html", ""] {
            assert!(format(bad).unwrap_err().contains(".pftrace"), "{bad}");
        }
    }
}
