// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `top` without a terminal: one block of lines for each look at the device.

use std::collections::HashMap;

use super::rates::Rates;
use crate::control::protocol::FifoStatus;
use crate::control::protocol::Status;
use crate::ctl::show;

const HEADINGS: [&str; 10] = [
    "FIFO", "KIND", "HOST", "STATE", "RX LEVEL", "RX B/S", "RX IRQ/S", "TX LEVEL", "TX B/S",
    "TX IRQ/S",
];

/// Columns of words; the others are numbers.
const WORDS: usize = 4;

/// The device in a line, its FIFOs in a table, its faults in one more, and an empty line. Rates are whole numbers; `-` is one
/// that is not known.
pub fn block(status: &Status, rates: &HashMap<u16, Rates>) -> String {
    let rows: Vec<_> = status
        .fifos
        .iter()
        .map(|fifo| row(fifo, rates.get(&fifo.fifo)))
        .collect();
    let mut text = show::summary(&status.device);
    text.push('\n');
    text.push_str(&show::table(HEADINGS, &rows, WORDS));
    if !status.faults.is_empty() {
        text.push_str(&show::faults(&status.faults));
    }
    text.push('\n');
    text
}

fn row(fifo: &FifoStatus, rates: Option<&Rates>) -> [String; HEADINGS.len()] {
    let rate =
        |of: fn(&Rates) -> f64| rates.map_or_else(|| "-".to_owned(), |it| format!("{:.0}", of(it)));
    [
        fifo.fifo.to_string(),
        fifo.kind.clone(),
        show::host(fifo.host).to_owned(),
        show::state(fifo).to_owned(),
        fifo.rx.level.to_string(),
        rate(|it| it.rx.bytes),
        rate(|it| it.rx.interrupts),
        fifo.tx.level.to_string(),
        rate(|it| it.tx.bytes),
        rate(|it| it.tx.interrupts),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::top::rates::Rate;
    use crate::ctl::top::samples::fault;
    use crate::ctl::top::samples::status;

    #[test]
    fn a_block_has_the_rates_of_each_fifo_and_ends_with_an_empty_line() {
        let mut now = status(2);
        now.fifos[1].rx.level = 17;
        now.faults.push(fault("drop-interrupt,fifo=0", 3));
        let rx = Rate {
            bytes: 123.6,
            interrupts: 4.0,
        };
        let rates = [(
            1,
            Rates {
                rx,
                tx: Rate::default(),
            },
        )]
        .into();
        let text = block(&now, &rates);
        let fields = |number: usize| {
            let line = text.lines().nth(number).unwrap_or_default();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(
            text.starts_with("vhost-device-fifo 1.2.3, up 5 s"),
            "{text}"
        );
        assert_eq!(
            fields(2)[4..],
            ["ok", "0", "-", "-", "0", "-", "-"].map(str::to_owned),
            "{text}"
        );
        assert_eq!(
            fields(3)[4..],
            ["ok", "17", "124", "4", "0", "0", "0"].map(str::to_owned),
            "{text}"
        );
        assert!(text.contains("drop-interrupt,fifo=0"), "{text}");
        assert!(text.ends_with("\n\n"), "{text}");
    }
}
