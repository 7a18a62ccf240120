// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device alone, without a machine around it: what `cargo bench -p vhost-device-fifo` measures, at the size that goals are about.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::goals::Goal;
use super::goals::Limit;
use super::interval::Estimate;
use super::interval::Interval;
use super::stats::Spread;
use crate::child::Running;
use crate::child::Spec;
use crate::scratch;
use crate::scratch::Scratch;
use crate::ui::Step;

/// Bytes of a message.
const SIZE: &str = "65536";
/// criterion's sample size, unless a benchmark sets another.
const SAMPLES: usize = 100;

/// Nanoseconds that a window of messages takes, and memcpy of as many bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alone {
    memcpy: Spread,
    null: Spread,
    zero: Spread,
    loopback: Spread,
}

/// criterion's estimates.json, as far as it matters here.
#[derive(Deserialize)]
struct CriterionEstimates {
    median: CriterionEstimate,
}

#[derive(Deserialize)]
struct CriterionEstimate {
    confidence_interval: CriterionInterval,
    point_estimate: f64,
}

#[derive(Deserialize)]
struct CriterionInterval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Runs the benchmark.
pub fn measure(program: &Path) -> Result<Alone> {
    let step = Step::new("measuring the device alone");
    let home = Scratch::new(scratch::Kind::Alone)?;
    let spec = Spec::new(program)
        .args(["--bench", "--noplot", &format!("/{SIZE}$")])
        .env("CRITERION_HOME", home.path());
    let mut command = spec.command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = Running::start("the device's own benchmark", command)?.wait()?;
    anyhow::ensure!(
        status.success(),
        "the device's own benchmark: {status}; `cargo bench -p vhost-device-fifo` shows more"
    );
    step.done();
    read(home.path())
}

fn read(home: &Path) -> Result<Alone> {
    let estimate = |group: &str| {
        let path = home.join(group).join(SIZE).join("new/estimates.json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let CriterionEstimates { median } = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what it was", path.display()))?;
        anyhow::Ok(Spread {
            median: median.point_estimate,
            low: median.confidence_interval.lower_bound,
            high: median.confidence_interval.upper_bound,
        })
    };
    Ok(Alone {
        memcpy: estimate("memcpy")?,
        null: estimate("null")?,
        zero: estimate("zero")?,
        loopback: estimate("loopback")?,
    })
}

/// The goals about it. What goes in and out of a loopback FIFO is moved twice.
pub fn judge(alone: Option<&Alone>) -> Vec<Goal> {
    let goal = |work: &str, time: fn(&Alone) -> Spread, moved: f64| {
        let ratio = alone.map(|alone| (alone.memcpy, time(alone)));
        // criterion has intervals of its own, of each time for itself: the quotient's is at most as wide as that of their far ends.
        let ratio = ratio.map(|(memcpy, time)| Estimate {
            value: moved * memcpy.median / time.median,
            interval: Some(Interval {
                low: moved * memcpy.low / time.high,
                high: moved * memcpy.high / time.low,
            }),
            rounds: SAMPLES,
        });
        let work = format!("device alone, 64 KiB, {work}");
        Goal::new(work, "memcpy", Limit::AtLeast(0.6), ratio)
    };
    vec![
        goal("to a null FIFO", |alone| alone.null, 1.0),
        goal("from a zero FIFO", |alone| alone.zero, 1.0),
        goal(
            "into a loopback FIFO and out, both counted",
            |alone| alone.loopback,
            2.0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::goals::Verdict;
    use super::*;

    #[test]
    fn twice_the_time_is_half_the_speed() {
        let home = tempfile::tempdir().unwrap();
        for (group, time) in [
            ("memcpy", 100),
            ("null", 150),
            ("zero", 100),
            ("loopback", 400),
        ] {
            let dir = home.path().join(group).join(SIZE).join("new");
            fs::create_dir_all(&dir).unwrap();
            let text = format!(
                r#"{{"mean":{{}},"median":{{"confidence_interval":{{"confidence_level":0.95,"lower_bound":{time},"upper_bound":{time}}},"point_estimate":{time},"standard_error":0.1}}}}"#
            );
            fs::write(dir.join("estimates.json"), text).unwrap();
        }
        let goals = judge(Some(&read(home.path()).unwrap()));
        let verdicts: Vec<Verdict> = goals.iter().map(|goal| goal.verdict).collect();
        assert_eq!(verdicts, [Verdict::Met, Verdict::Met, Verdict::Missed]);
        assert_eq!(goals[2].figure.unwrap().value, 0.5);
        assert!(
            judge(None)
                .iter()
                .all(|goal| goal.verdict == Verdict::NotMeasured)
        );
    }
}
