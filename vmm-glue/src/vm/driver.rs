// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest says of a driver of the user's that does not load: images/start leaves it among its complaints, and the console shows how far
//! it came.
//!
//! Text in, text out. This file must not know how a machine is run.

use std::path::Path;

/// What complaints about such a driver begin with.
const COMPLAINT: &str = "driver: ";
/// What images/start says on the console before it loads one, and afterwards.
const LOADING: &str = "lab start: loading the driver ";
const LOADED: &str = "lab start: the driver has returned";

/// Why the driver does not load, with the kernel's words, if that is so.
pub fn failure(complaints: &[String]) -> Option<String> {
    let lines = complaints.iter();
    let said: Vec<_> = lines
        .filter_map(|line| line.strip_prefix(COMPLAINT))
        .collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

/// What a guest that has not come up was waiting for, if that was a driver's init.
pub fn stuck(console: &Path) -> Option<String> {
    let bytes = std::fs::read(console).unwrap_or_default();
    in_init(&String::from_utf8_lossy(&bytes)).map(|name| {
        format!("the driver {name} has not returned from its init function and lets nothing else run: the guest did not come up")
    })
}

fn in_init(console: &str) -> Option<String> {
    let (_, after) = console.rsplit_once(LOADING)?;
    let name = after.split_whitespace().next()?;
    (!after.contains(LOADED)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_does_not_load_is_told_in_the_kernels_words() {
        let complaints = [
            "udev did not settle",
            "driver: x does not load",
            "driver:   | x: bad",
        ];
        let complaints = complaints.map(str::to_owned);
        assert_eq!(failure(&complaints).unwrap(), "x does not load\n  | x: bad");
        assert_eq!(failure(&complaints[..1]), None);
    }

    #[test]
    fn a_guest_that_is_stuck_in_a_drivers_init_is_told_from_one_that_is_stuck_elsewhere() {
        let loading = "[ 1.0] lab start: loading the driver slow_one\n[ 1.1] slow_one: here\n";
        assert_eq!(in_init(loading).as_deref(), Some("slow_one"));
        let loaded = format!("{loading}[ 1.2] lab start: the driver has returned\n");
        assert_eq!(in_init(&loaded), None);
        assert_eq!(in_init("[ 1.0] Linux\n"), None);
    }
}
