// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A trace as Perfetto's viewer opens it: the messages of perfetto_trace.proto that are needed, with the
//! numbers of their fields there. It must not know how the trace came about.

use prost::Message;

use super::event::Place;
use super::report::Report;

/// Of the only sequence of packets.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing before it is needed.
const BEGINS: u32 = 1;
/// `BUILTIN_CLOCK_MONOTONIC`
const MONOTONIC: u32 = 3;

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<Packet>,
}

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(uint32, optional, tag = "13")]
    sequence_flags: Option<u32>,
    #[prost(uint32, optional, tag = "58")]
    timestamp_clock_id: Option<u32>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    parent_uuid: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unspecified = 0,
    SliceBegin = 1,
    SliceEnd = 2,
    Instant = 3,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    debug_annotations: Vec<Annotation>,
    #[prost(enumeration = "Kind", optional, tag = "9")]
    kind: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    track_uuid: Option<u64>,
    #[prost(string, repeated, tag = "22")]
    categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(fixed64, repeated, tag = "47")]
    flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Annotation {
    #[prost(string, optional, tag = "6")]
    string_value: Option<String>,
    #[prost(string, optional, tag = "10")]
    name: Option<String>,
}

/// The bytes of the file.
pub fn file(report: &Report) -> Vec<u8> {
    let timeline = &report.timeline;
    let places = timeline.places();
    let uuid = |place: Place| {
        let at = places.iter().position(|other| *other == place);
        at.map_or(0, |at| at as u64 + 100)
    };
    let uuids: std::collections::HashMap<_, _> =
        places.iter().map(|place| (*place, uuid(*place))).collect();
    let (guest, host) = (1, 2);
    let mut packet = vec![
        track(guest, None, "guest".to_owned()),
        track(host, None, "host".to_owned()),
    ];
    if let Some(first) = packet.first_mut() {
        first.sequence_flags = Some(BEGINS);
    }
    for place in &places {
        let parent = match place {
            Place::Daemon | Place::Qemu(_) => host,
            _ => guest,
        };
        packet.push(track(uuid(*place), Some(parent), timeline.label(*place)));
    }
    let flows = flows(report);
    let mut timed = Vec::new();
    for (at, event) in timeline.events.iter().enumerate() {
        let track_uuid = uuids.get(&event.place).copied();
        let begin = if event.lasts > 0 {
            Kind::SliceBegin
        } else {
            Kind::Instant
        };
        timed.push((
            event.ns,
            TrackEvent {
                debug_annotations: vec![Annotation {
                    string_value: Some(event.text.to_string()),
                    name: Some("fields".to_owned()),
                }],
                kind: Some(begin as i32),
                track_uuid,
                categories: vec![event.place.kind().to_owned()],
                name: Some(event.name.to_string()),
                flow_ids: flows.get(at).cloned().unwrap_or_default(),
            },
        ));
        if event.lasts > 0 {
            let end = TrackEvent {
                kind: Some(Kind::SliceEnd as i32),
                track_uuid,
                ..TrackEvent::default()
            };
            timed.push((event.ns + event.lasts, end));
        }
    }
    timed.sort_by_key(|(ns, _)| *ns);
    packet.extend(timed.into_iter().map(|(ns, event)| Packet {
        timestamp: Some(ns),
        trusted_packet_sequence_id: Some(SEQUENCE),
        track_event: Some(event),
        timestamp_clock_id: Some(MONOTONIC),
        ..Packet::default()
    }));
    Trace { packet }.encode_to_vec()
}

fn track(uuid: u64, parent: Option<u64>, name: String) -> Packet {
    Packet {
        trusted_packet_sequence_id: Some(SEQUENCE),
        track_descriptor: Some(TrackDescriptor {
            uuid: Some(uuid),
            name: Some(name),
            parent_uuid: parent,
        }),
        ..Packet::default()
    }
}

/// Of each event, the flows that go through it: one for each link.
fn flows(report: &Report) -> Vec<Vec<u64>> {
    let mut flows = vec![Vec::new(); report.timeline.events.len()];
    let mut next = 1;
    for chain in &report.chains {
        for step in &chain.steps {
            let Some(before) = step.after.and_then(|after| chain.steps.get(after)) else {
                continue;
            };
            for event in [before.event, step.event] {
                if let Some(of) = flows.get_mut(event) {
                    of.push(next);
                }
            }
            next += 1;
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::small;
    use super::*;

    #[test]
    fn events_have_tracks_and_links_are_flows() {
        let trace = Trace::decode(file(&small()).as_slice()).unwrap();
        let tracks: Vec<_> = trace
            .packet
            .iter()
            .filter_map(|packet| packet.track_descriptor.as_ref()?.name.clone())
            .collect();
        assert_eq!(tracks, ["guest", "host", "driver, CPU 0", "daemon"]);
        let events: Vec<_> = trace
            .packet
            .iter()
            .filter_map(|packet| Some((packet.timestamp?, packet.track_event.clone()?)))
            .collect();
        let seen: Vec<_> = events
            .iter()
            .map(|(ns, event)| (*ns, event.name.clone().unwrap(), event.flow_ids.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                (1000, "write".to_owned(), vec![1]),
                (4500, "send".to_owned(), vec![1, 2]),
                (9000, "pop".to_owned(), vec![2]),
            ]
        );
    }
}
