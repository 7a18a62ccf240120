// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's state in Prometheus' text format.
//!
//! Each request makes all of it anew from a [`Status`]: there is no second set of counters that
//! could disagree with the first.

use std::collections::BTreeMap;

use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;

use super::protocol::DirectionStatus;
use super::protocol::FaultStatus;
use super::protocol::FifoStatus;
use super::protocol::HostSide;
use super::protocol::Status;

/// What all names begin with.
const PREFIX: &str = "virtio_fifo";

/// The text.
///
/// # Errors
///
/// When a name or a label is none, or is used twice.
pub fn text(status: &Status) -> prometheus::Result<String> {
    let page = Page(Registry::new_custom(Some(PREFIX.to_owned()), None)?);
    page.device(status)?;
    page.levels(&status.fifos)?;
    page.traffic(&status.fifos)?;
    page.states(&status.fifos)?;
    page.faults(&status.faults)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

/// What is measured so far.
struct Page(Registry);

impl Page {
    fn device(&self, status: &Status) -> prometheus::Result<()> {
        let device = &status.device;
        let info = self.gauge(
            "build_info",
            "Version of the daemon; always 1.",
            &["version"],
        )?;
        info.with_label_values(&[&device.version]).set(1);
        let uptime = self.gauge("uptime_seconds", "Time since the daemon started.", &[])?;
        set(&uptime, &[], device.uptime_ms / 1000);
        let connected = self.gauge("vmm_connected", "Whether a VMM is connected.", &[])?;
        set(&connected, &[], device.connected.into());
        self.counter("vmm_connections_total", "VMMs that have connected.", &[])?
            .with_label_values(&[] as &[&str])
            .inc_by(device.connections);
        let interrupts = self.counter(
            "device_interrupts_total",
            "Interrupts for virtqueues that belong to no FIFO.",
            &["queue"],
        )?;
        for (queue, count) in [
            ("control", device.control_interrupts),
            ("event", device.event_interrupts),
        ] {
            interrupts.with_label_values(&[queue]).inc_by(count);
        }
        let refused = self.counter(
            "device_refused_total",
            "What was refused on virtqueues that belong to no FIFO.",
            &["reason"],
        )?;
        count_reasons(&refused, None, &device.refused);
        Ok(())
    }

    fn levels(&self, fifos: &[FifoStatus]) -> prometheus::Result<()> {
        let capacity = self.gauge(
            "capacity_bytes",
            "Bytes that each direction holds.",
            &["fifo", "kind"],
        )?;
        let level = self.gauge("level_bytes", "Bytes inside.", &["fifo", "direction"])?;
        for fifo in fifos {
            let name = fifo.fifo.to_string();
            let bytes = u64::try_from(fifo.capacity).unwrap_or(u64::MAX);
            set(&capacity, &[&name, &fifo.kind], bytes);
            for (direction, traffic) in directions(fifo) {
                let bytes = u64::try_from(traffic.level).unwrap_or(u64::MAX);
                set(&level, &[&name, direction], bytes);
            }
        }
        Ok(())
    }

    fn traffic(&self, fifos: &[FifoStatus]) -> prometheus::Result<()> {
        let labels = ["fifo", "direction"];
        let entered = self.counter("entered_bytes_total", "Bytes that came in.", &labels)?;
        let left = self.counter(
            "left_bytes_total",
            "Bytes that went out or were discarded.",
            &labels,
        )?;
        let messages = self.counter(
            "messages_total",
            "Messages to or from the driver that carried bytes.",
            &labels,
        )?;
        let interrupts = self.counter("interrupts_total", "Interrupts to the driver.", &labels)?;
        for fifo in fifos {
            let name = fifo.fifo.to_string();
            for (direction, traffic) in directions(fifo) {
                for (metric, count) in [
                    (&entered, traffic.entered),
                    (&left, traffic.left),
                    (&messages, traffic.messages),
                    (&interrupts, traffic.interrupts),
                ] {
                    metric.with_label_values(&[&name, direction]).inc_by(count);
                }
            }
        }
        Ok(())
    }

    fn states(&self, fifos: &[FifoStatus]) -> prometheus::Result<()> {
        let hangup = self.gauge("hangup", "Whether the host side has hung up.", &["fifo"])?;
        let error = self.gauge(
            "error",
            "Whether the FIFO has failed and waits for a reset.",
            &["fifo"],
        )?;
        let connected = self.gauge(
            "host_connected",
            "Whether there is a host side now.",
            &["fifo"],
        )?;
        let peers = self.counter(
            "host_peers_total",
            "Peers that the host side has had.",
            &["fifo"],
        )?;
        let refused = self.counter(
            "refused_total",
            "What was refused from the driver.",
            &["fifo", "reason"],
        )?;
        for fifo in fifos {
            let name = fifo.fifo.to_string();
            let is_there = !matches!(fifo.host, HostSide::Awaited | HostSide::Gone);
            set(&hangup, &[&name], fifo.hangup.into());
            set(&error, &[&name], fifo.error.into());
            set(&connected, &[&name], is_there.into());
            peers.with_label_values(&[&name]).inc_by(fifo.peers);
            count_reasons(&refused, Some(&name), &fifo.refused);
        }
        Ok(())
    }

    fn faults(&self, faults: &[FaultStatus]) -> prometheus::Result<()> {
        let labels = ["fault", "spec"];
        let opportunities = self.counter(
            "fault_opportunities_total",
            "How often a fault could have struck.",
            &labels,
        )?;
        let strikes = self.counter("fault_strikes_total", "How often a fault struck.", &labels)?;
        for fault in faults {
            let labels = [&fault.fault.to_string(), &fault.spec];
            opportunities
                .with_label_values(&labels)
                .inc_by(fault.opportunities);
            strikes.with_label_values(&labels).inc_by(fault.strikes);
        }
        Ok(())
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

fn directions(fifo: &FifoStatus) -> [(&'static str, DirectionStatus); 2] {
    [("rx", fifo.rx), ("tx", fifo.tx)]
}

fn set(gauge: &IntGaugeVec, labels: &[&str], value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    gauge.with_label_values(labels).set(value);
}

fn count_reasons(counter: &IntCounterVec, fifo: Option<&str>, reasons: &BTreeMap<String, u64>) {
    for (reason, count) in reasons {
        let labels: Vec<&str> = fifo.into_iter().chain([reason.as_str()]).collect();
        counter.with_label_values(&labels).inc_by(*count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use prometheus_parse::Scrape;
    use prometheus_parse::Value;

    use super::super::Service;
    use super::*;
    use crate::device::Device;
    use crate::fifo::ResetPolicy;
    use crate::spec::PartialSpec;

    fn page() -> String {
        let specs = ["loopback", "null"].map(|spec| {
            let spec: PartialSpec = spec.parse().unwrap();
            spec.with_default(100)
        });
        let device = Arc::new(Device::new(&specs, ResetPolicy::Keep).unwrap());
        device.fifo(1).unwrap().push(b"abc").unwrap();
        let fault = "drop-interrupt,fifo=0,p=0.5".parse().unwrap();
        if crate::fault::BUILT_IN {
            device.faults().add(&fault).unwrap();
        }
        text(&Service::new(device).status()).unwrap()
    }

    /// Every sample parses, with the type that its name promises.
    #[test]
    fn the_text_is_what_prometheus_reads() {
        let page = page();
        let lines = page.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).unwrap();
        let count = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(scrape.samples.len(), count);
        for sample in &scrape.samples {
            let is_counter = matches!(sample.value, Value::Counter(_));
            let is_gauge = matches!(sample.value, Value::Gauge(_));
            assert!(is_counter || is_gauge, "{sample:?}");
            assert_eq!(is_counter, sample.metric.ends_with("_total"), "{sample:?}");
            assert!(sample.metric.starts_with("virtio_fifo_"), "{sample:?}");
        }
        let level = scrape.samples.iter().find(|sample| {
            sample.metric == "virtio_fifo_level_bytes"
                && sample.labels.get("fifo") == Some("1")
                && sample.labels.get("direction") == Some("rx")
        });
        assert_eq!(level.unwrap().value, Value::Gauge(3.0));
    }

    /// What promtool asks for: HELP and TYPE once for each metric, before its samples; no sample
    /// twice; a newline at the end.
    #[test]
    fn every_metric_has_help_and_type() {
        let page = page();
        assert!(page.ends_with('\n'));
        let (mut helped, mut typed, mut samples) = (None, HashSet::new(), HashSet::new());
        for line in page.lines() {
            let mut words = line.split(' ');
            match (words.next().unwrap(), words.next().unwrap()) {
                ("#", "HELP") => helped = words.next(),
                ("#", "TYPE") => {
                    let name = words.next();
                    assert_eq!(name, helped, "{line}");
                    assert!(typed.insert(name.unwrap()), "{line}");
                }
                (sample, _) => {
                    let name = sample.split('{').next();
                    assert_eq!(name, helped, "{line}");
                    assert!(samples.insert(sample), "{line}");
                }
            }
        }
        assert!(typed.len() > 10, "{page}");
    }
}
