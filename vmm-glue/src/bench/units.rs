// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures as people read them: three digits and a unit.

/// Nanoseconds.
pub fn time(nanos: f64) -> String {
    with_unit(nanos, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Bytes a second.
pub fn rate(bytes: f64) -> String {
    with_unit(bytes, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s"])
}

/// Things a second.
pub fn per_second(count: f64) -> String {
    with_unit(count, 1000.0, &["/s", "k/s", "M/s"])
}

/// Bytes of memory, not much of it.
pub fn memory(bytes: f64) -> String {
    with_unit(bytes, 1024.0, &["B", "KiB", "MiB"])
}

/// A size of messages: a power of two reads as one.
pub fn size(bytes: u64) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// Three digits.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..0.0005 => 0,
        ..0.1 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn with_unit(value: f64, step: f64, units: &[&str]) -> String {
    let (last, smaller) = units.split_last().unwrap_or((&"", &[]));
    let mut value = value;
    for unit in smaller {
        // What would be shown with four digits.
        if value < step - 0.5 {
            return format!("{} {unit}", number(value)).replace(" /", "/");
        }
        value /= step;
    }
    format!("{} {last}", number(value)).replace(" /", "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit_that_fits() {
        assert_eq!(time(123_456.0), "123 µs");
        assert_eq!(time(999_900.0), "1.00 ms");
        assert_eq!(time(12.0), "12.0 ns");
        assert_eq!(rate(744e6), "744 MB/s");
        assert_eq!(per_second(9_870.0), "9.87 k/s");
        assert_eq!(per_second(12.3), "12.3/s");
        assert_eq!(memory(512.0), "512 B");
        assert_eq!(number(0.0123), "0.012");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn sizes_are_powers_of_two_where_they_can_be() {
        assert_eq!(size(64), "64 B");
        assert_eq!(size(65_536), "64 KiB");
        assert_eq!(size(4 << 20), "4 MiB");
        assert_eq!(size(1500), "1500 B");
    }
}
