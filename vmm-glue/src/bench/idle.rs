// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an idle guest costs the host, with the device and without.

use anyhow::Result;
use globalfifo_bench_protocol::Task;
use globalfifo_bench_protocol::Work;
use serde::Serialize;

use super::goals::Goal;
use super::goals::Limit;
use super::interval::Estimate;
use super::rig::Rig;
use super::stats::Spread;
use super::stats::real;
use crate::vm::config::Config;
use crate::vm::config::Load;
use crate::vm::config::Paths;

/// CPU time below which two machines are alike, in milliseconds a second, on top of what either varies by itself.
const GRAIN: f64 = 0.5;

/// One machine, watched several times: each figure is for a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Idle {
    /// Milliseconds of CPU time of QEMU and the daemon.
    pub host_cpu_millis: Vec<f64>,
    /// Wake-ups of the daemon.
    pub wakeups: Vec<f64>,
}

/// With the device and without.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// With.
    pub with: Idle,
    /// Without.
    pub without: Idle,
}

/// Boots two machines, one after the other, and watches them do nothing.
pub fn compare(config: &Config, paths: &Paths, millis: u64, times: usize) -> Result<Comparison> {
    let mut bare = config.clone();
    bare.driver = Load::None;
    bare.device = false;
    Ok(Comparison {
        with: watch(config, paths, millis, times)?,
        without: watch(&bare, paths, millis, times)?,
    })
}

fn watch(config: &Config, paths: &Paths, millis: u64, times: usize) -> Result<Idle> {
    let mut rig = Rig::plain(config, paths)?;
    let task = Task {
        work: Work::Idle,
        millis,
    };
    let mut seen = Vec::new();
    // The first time is not counted: the boot may not have come to rest.
    for turn in 0..=times {
        let (_, cost) = rig.watch(&task)?.map_err(anyhow::Error::msg)?;
        if turn > 0 {
            seen.push(cost);
        }
    }
    let seconds = real(millis) / 1000.0;
    let cpu = seen
        .iter()
        .map(|cost| cost.cpu.as_secs_f64() * 1e3 / seconds);
    let wakeups = seen.iter().map(|cost| real(cost.wakeups) / seconds);
    Ok(Idle {
        host_cpu_millis: cpu.collect(),
        wakeups: wakeups.collect(),
    })
}

impl Comparison {
    /// The goals about it.
    pub fn judge(this: Option<&Self>) -> Vec<Goal> {
        let against = "none attached";
        let more = this.and_then(Self::more);
        let allowed = this.and_then(Self::variation).unwrap_or_default() + GRAIN;
        vec![
            Goal::new(
                "idle guest with the device, more CPU time, ms a second",
                against,
                Limit::AtMost(allowed),
                more,
            ),
            Goal::new(
                "idle guest with the device, wake-ups of the daemon a second",
                against,
                Limit::AtMost(0.0),
                this.and_then(|this| Estimate::of(&this.with.wakeups)),
            ),
        ]
    }

    /// How much more the machine with the device takes. The two are not measured side by side, but one after the other.
    fn more(&self) -> Option<Estimate> {
        let [with, without] = [&self.with, &self.without].map(|idle| &idle.host_cpu_millis);
        Estimate::of_two(with, without, |with, without| with - without)
    }

    /// What the figures of the same machine differ by: less than that is not measurable.
    fn variation(&self) -> Option<f64> {
        let spread = |idle: &Idle| {
            let cpu = Spread::of(idle.host_cpu_millis.iter().copied())?;
            Some(cpu.high - cpu.low)
        };
        Some(spread(&self.with)?.max(spread(&self.without)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::goals::Verdict;
    use super::*;

    fn idle(cpu: [f64; 5], wakeups: f64) -> Idle {
        Idle {
            host_cpu_millis: cpu.into(),
            wakeups: vec![wakeups; 5],
        }
    }

    fn verdicts(with: Idle, without: Idle) -> Vec<Verdict> {
        let goals = Comparison::judge(Some(&Comparison { with, without }));
        goals.iter().map(|goal| goal.verdict).collect()
    }

    #[test]
    fn what_lies_within_the_noise_is_not_measurable() {
        let noisy = idle([10.0, 10.5, 11.0, 11.5, 14.0], 0.0);
        assert_eq!(
            verdicts(noisy.clone(), idle([11.0, 11.0, 11.5, 11.5, 12.0], 0.0)),
            [Verdict::Met, Verdict::Met]
        );
        assert_eq!(
            verdicts(noisy, idle([2.0, 2.0, 2.1, 2.2, 2.2], 0.0)),
            [Verdict::Missed, Verdict::Met]
        );
    }

    #[test]
    fn one_wake_up_in_one_of_five_watches_decides_nothing() {
        let mut stray = idle([1.0; 5], 0.0);
        stray.wakeups[3] = 0.25;
        assert_eq!(
            verdicts(stray, idle([1.0; 5], 0.0)),
            [Verdict::Met, Verdict::Undecided]
        );
    }

    #[test]
    fn one_wake_up_is_too_many() {
        let calm = || idle([1.0; 5], 0.0);
        assert_eq!(
            verdicts(idle([1.0; 5], 0.25), calm()),
            [Verdict::Met, Verdict::Missed]
        );
        let goals = Comparison::judge(None);
        assert!(
            goals
                .iter()
                .all(|goal| goal.verdict == Verdict::NotMeasured)
        );
    }
}
