//! What an idle guest costs the host, with the device and without.

use anyhow::Result;
use globalfifo_bench_protocol::Task;
use globalfifo_bench_protocol::Work;
use serde::Serialize;

use super::goals::Goal;
use super::goals::Limit;
use super::rig::Rig;
use super::stats::Spread;
use super::stats::real;
use crate::vm::config::Config;
use crate::vm::config::Paths;

/// CPU time below which two machines are alike, in milliseconds a second, on top of what either varies by itself.
const GRAIN: f64 = 0.5;

/// One machine, watched several times: each figure is for a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Idle {
    /// Milliseconds of CPU time of QEMU and the daemon.
    pub host_cpu_millis: Option<Spread>,
    /// Wake-ups of the daemon.
    pub wakeups: Option<Spread>,
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
    bare.driver = false;
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
        host_cpu_millis: Spread::of(cpu),
        wakeups: Spread::of(wakeups),
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
                this.and_then(|this| this.with.wakeups),
            ),
        ]
    }

    /// How much more the machine with the device takes.
    fn more(&self) -> Option<Spread> {
        let (with, without) = (self.with.host_cpu_millis?, self.without.host_cpu_millis?);
        Some(Spread {
            median: with.median - without.median,
            low: with.low - without.high,
            high: with.high - without.low,
        })
    }

    /// What the figures of the same machine differ by: less than that is not measurable.
    fn variation(&self) -> Option<f64> {
        let spread = |idle: &Idle| idle.host_cpu_millis.map(|cpu| cpu.high - cpu.low);
        Some(spread(&self.with)?.max(spread(&self.without)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::goals::Verdict;
    use super::*;

    fn idle(cpu: [f64; 3], wakeups: f64) -> Idle {
        Idle {
            host_cpu_millis: Spread::of(cpu),
            wakeups: Spread::of([wakeups]),
        }
    }

    fn verdicts(with: Idle, without: Idle) -> Vec<Verdict> {
        let goals = Comparison::judge(Some(&Comparison { with, without }));
        goals.iter().map(|goal| goal.verdict).collect()
    }

    #[test]
    fn what_lies_within_the_noise_is_not_measurable() {
        let noisy = idle([10.0, 12.0, 14.0], 0.0);
        assert_eq!(
            verdicts(noisy.clone(), idle([9.0, 10.0, 11.0], 0.0)),
            [Verdict::Met, Verdict::Met]
        );
        assert_eq!(
            verdicts(noisy, idle([2.0, 2.1, 2.2], 0.0)),
            [Verdict::Missed, Verdict::Met]
        );
    }

    #[test]
    fn one_wake_up_is_too_many() {
        let calm = || idle([1.0, 1.0, 1.0], 0.0);
        assert_eq!(
            verdicts(idle([1.0, 1.0, 1.0], 0.25), calm()),
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
