// SPDX-License-Identifier: GPL-2.0-only

//! The tracepoints are those that docs/tracing.md describes, and the driver hits each.

use std::collections::{BTreeMap, BTreeSet};

const HEADER: &str = include_str!("../../../trace.h");
const SOURCE: &str = include_str!("../../../trace.rs");
const PAGE: &str = include_str!("../../../../docs/tracing.md");

/// What stands between the first `(` of `text` and the `,` after it.
fn first_argument(text: &str) -> &str {
    let (_, rest) = text.split_once('(').expect("a macro's arguments");
    rest.split(',').next().expect("an argument").trim()
}

/// The names of the fields of each event, and of each class.
fn defined() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut fields: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut classes = BTreeSet::new();
    for piece in HEADER.split("\n\n") {
        let Some(at) = piece
            .find("TRACE_EVENT(")
            .or_else(|| piece.find("_EVENT_CLASS("))
        else {
            continue;
        };
        let name = first_argument(&piece[at..]);
        if piece[at..].starts_with("_EVENT_CLASS") {
            classes.insert(name);
        }
        let of_piece = piece.lines().filter_map(|line| {
            let (_, rest) = line.split_once("__field(")?;
            rest.trim_end_matches([')', ','])
                .split_once(", ")
                .map(|(_, name)| name)
        });
        fields.insert(name, of_piece.collect());
    }
    for piece in HEADER.split("DEFINE_EVENT(").skip(1) {
        let (class, rest) = piece.split_once(", ").expect("a class");
        let (name, _) = rest.split_once(',').expect("a name");
        fields.insert(name, fields[class].clone());
    }
    fields.retain(|name, _| !classes.contains(name));
    fields
}

/// Those of the page's table.
fn described() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `globalfifo_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_matches(['|', ' ', '`']);
        // Names are in code font; what else is so in that cell is none.
        let fields = cells.last().expect("cells").split('`').skip(1).step_by(2);
        (name, fields.collect())
    })
    .collect()
}

#[test]
fn every_event_is_described_with_its_fields() {
    let defined = defined();
    assert!(defined.len() > 10, "{defined:?}");
    assert_eq!(defined, described());
}

#[test]
fn every_event_has_a_function() {
    for name in defined().keys() {
        assert!(SOURCE.contains(&format!("= {name};")), "{name}");
    }
}
