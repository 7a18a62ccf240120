// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How lessons print: a line at a time, on standard output, at once.

use std::fmt::Arguments;
use std::io::{Write, stdout};

use anyhow::Result;

/// Prints one line.
pub(super) fn line(text: Arguments<'_>) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a line, and leaves the function on an error.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::lessons::show::line(format_args!($($text)*))?
    };
}

/// Says what is expected to hold, and fails with it unless it does.
macro_rules! holds {
    ($condition:expr, $($text:tt)*) => {{
        let holds: bool = $condition;
        let text = format!($($text)*);
        if !holds {
            anyhow::bail!("expected, and not so: {text}");
        }
        $crate::lessons::show::line(format_args!("  [ok] {text}"))?;
    }};
}

pub(super) use {holds, say};

/// What a byte string says, for people.
pub(super) fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}
