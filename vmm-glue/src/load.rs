// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much this machine has to do: proc_loadavg(5). It must not know what is measured or booted.

/// Processes that ran or wanted to, on average over the last minute.
pub fn average() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// A remark on a failure that an overloaded machine may have caused; empty on any other machine.
pub fn remark() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    remark_on(average(), cpus)
}

fn remark_on(load: Option<f64>, cpus: usize) -> String {
    let many = u32::try_from(cpus).map_or(f64::MAX, |cpus| f64::from(cpus) * 2.0);
    match load {
        Some(load) if load > many => format!(
            " (this machine has a load of {load} on {cpus} CPUs, which may be all that is wrong: try again when it has less to do)"
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_too_much_to_do_is_remarked_on() {
        let remark = |text: &str| remark_on(parse(text), 2);
        assert!(remark("17.02 9 5 3/200 1").contains("load of 17.02 on 2 CPUs"));
        assert_eq!(remark("3.9 9 5 3/200 1"), "");
        assert_eq!(remark(""), "");
    }
}
