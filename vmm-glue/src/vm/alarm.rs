// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wakes a guest that is suspended to idle: a serial line over which the guest's rtcwake asks for it.
//!
//! QEMU's real-time clock wakes a machine from S3 alone. Suspended to idle, a guest is woken by an interrupt that its kernel left armed; a serial
//! line's can be. It must not know how the guest comes to ask.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// What the guest says once it is awake.
const AWAKE: &str = "awake";
/// Bytes of a line, at most.
const LONGEST_LINE: usize = 64;
/// Seconds that a guest may ask for at most: a day.
const LONGEST: u64 = 24 * 3600;
/// As the real-time clock, which knows no fractions of a second: never too early.
const GRACE: Duration = Duration::from_secs(1);
/// A guest that was not asleep yet has missed the call: it is called once more.
const AGAIN: Duration = Duration::from_secs(1);

/// Serves QEMU, which will connect, until it has gone.
pub fn serve(listener: UnixListener) {
    thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        attend(&stream)
    });
}

fn attend(mut stream: &UnixStream) -> io::Result<()> {
    let mut said = Vec::new();
    let mut due: Option<Instant> = None;
    let mut buffer = [0; 64];
    loop {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        // A limit of nothing would be none.
        stream.set_read_timeout(left.map(|left| left.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stream.write_all(b"\n")?;
                due = Some(Instant::now() + AGAIN);
            }
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
        while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = said.drain(..=end).collect();
            match order(&String::from_utf8_lossy(&line)) {
                Some(Order::WakeAfter(time)) => due = Some(Instant::now() + time + GRACE),
                Some(Order::Enough) => due = None,
                None => {}
            }
        }
        // The begin of a line, whose end is on its way; of a guest that says anything else, not without bound.
        if said.len() > LONGEST_LINE {
            said.clear();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Order {
    WakeAfter(Duration),
    Enough,
}

fn order(line: &str) -> Option<Order> {
    let word = line.trim();
    if word == AWAKE {
        return Some(Order::Enough);
    }
    let seconds = word.parse().ok().filter(|seconds| *seconds <= LONGEST)?;
    Some(Order::WakeAfter(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_time_a_word_the_end_and_anything_else_nothing() {
        assert_eq!(
            order("3\r\n"),
            Some(Order::WakeAfter(Duration::from_secs(3)))
        );
        assert_eq!(order("awake\n"), Some(Order::Enough));
        for nothing in ["\n", "-1\n", "99999999999\n", "login:\n"] {
            assert_eq!(order(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn an_order_may_come_byte_by_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alarm");
        serve(UnixListener::bind(&path).unwrap());
        let mut guest = UnixStream::connect(&path).unwrap();
        for byte in b"0\n" {
            guest.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        guest.set_read_timeout(Some(GRACE * 10)).unwrap();
        assert_eq!(guest.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_guest_is_called_again_and_again_until_it_is_awake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alarm");
        serve(UnixListener::bind(&path).unwrap());
        let mut guest = UnixStream::connect(&path).unwrap();
        guest.write_all(b"0\n").unwrap();
        let mut calls = [0; 2];
        guest.read_exact(&mut calls).unwrap();
        assert_eq!(&calls, b"\n\n");
        guest.write_all(b"awake\n").unwrap();
        guest.set_read_timeout(Some(AGAIN * 2)).unwrap();
        let more = guest.read(&mut calls).map_err(|err| err.kind());
        assert_eq!(more, Err(ErrorKind::WouldBlock));
    }
}
