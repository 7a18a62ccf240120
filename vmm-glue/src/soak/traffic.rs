// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's end of a FIFO: one stream that is sent, one that is checked, both following from the seed.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use fastrand::Rng;

/// How long a write waits before it looks whether there is more to be sent at all.
const BLOCK: Duration = Duration::from_millis(200);

/// A peer of the daemon.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    seed: u64,
    sent: AtomicU64,
    received: AtomicU64,
    enough: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Traffic {
    /// Connects, and begins.
    pub fn start(path: &Path, seed: u64) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to the FIFO at {}", path.display()))?;
        stream.set_write_timeout(Some(BLOCK))?;
        let traffic = Self(Arc::new(Shared {
            stream,
            seed,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }));
        for work in [Self::send as fn(&Self) -> Result<()>, Self::receive] {
            let traffic = traffic.clone();
            thread::spawn(move || {
                if let Err(error) = work(&traffic) {
                    traffic.lock().get_or_insert(format!("{error:#}"));
                }
            });
        }
        Ok(traffic)
    }

    /// Sends nothing more, and says so to the other side.
    pub fn enough(&self) {
        self.0.enough.store(true, Ordering::SeqCst);
    }

    /// Bytes that were sent, and bytes that came.
    pub fn moved(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (count(&self.0.sent), count(&self.0.received))
    }

    /// What is wrong with it, if something is.
    pub fn trouble(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Waits until so many bytes have come, or nothing comes any more for this long.
    pub fn wait_for(&self, total: u64, limit: Duration) {
        let mut last = (self.moved().1, Instant::now());
        while last.0 < total && last.1.elapsed() < limit && self.trouble().is_none() {
            thread::sleep(Duration::from_millis(10));
            let now = self.moved().1;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self) -> Result<()> {
        let mut rng = Rng::with_seed(self.0.seed);
        // The guest has the same two: see guest-tests/src/bin/soak.rs.
        let seed = self.0.seed ^ 1;
        let mut stream = &self.0.stream;
        while !self.0.enough.load(Ordering::SeqCst) {
            let position = self.0.sent.load(Ordering::SeqCst);
            let most = if rng.u8(..4) == 0 { 40_000 } else { 300 };
            let bytes: Vec<u8> = bytes(seed, position, rng.usize(1..=most)).collect();
            match stream.write(&bytes) {
                Ok(count) => {
                    self.0.sent.fetch_add(count as u64, Ordering::SeqCst);
                }
                Err(error) if is_pause(error.kind()) => {}
                Err(error) => return Err(error).context("the FIFO takes no more from the host"),
            }
            if rng.u8(..8) == 0 {
                thread::sleep(Duration::from_micros(rng.u64(..20_000)));
            }
        }
        stream
            .shutdown(Shutdown::Write)
            .context("cannot tell the FIFO that this is the end")
    }

    fn receive(&self) -> Result<()> {
        let seed = self.0.seed ^ 2;
        let mut stream = &self.0.stream;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = stream.read(&mut buffer).context("reading from the FIFO")?;
            let came = buffer.get(..count).unwrap_or_default();
            if came.is_empty() {
                return Ok(());
            }
            let start = self.0.received.load(Ordering::SeqCst);
            let expected = bytes(seed, start, count);
            for (position, (byte, expected)) in (start..).zip(came.iter().zip(expected)) {
                anyhow::ensure!(*byte == expected, "byte {position} from the guest is wrong");
            }
            self.0.received.fetch_add(count as u64, Ordering::SeqCst);
        }
    }
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// `count` bytes from `position` of a stream: the one of a `pattern` FIFO with this seed, in docs/endpoints.md.
fn bytes(seed: u64, position: u64, count: usize) -> impl Iterator<Item = u8> {
    let skip = usize::try_from(position % 8).unwrap_or_default();
    (position / 8..)
        .flat_map(move |n| word(seed, n).to_le_bytes())
        .skip(skip)
        .take(count)
}

/// SplitMix64
fn word(seed: u64, n: u64) -> u64 {
    let step = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = seed.wrapping_add(step);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// The first output of SplitMix64 for this seed, as published.
    #[test]
    fn the_stream_is_splitmix64() {
        let first: Vec<u8> = bytes(1_234_567, 0, 8).collect();
        assert_eq!(first, 6_457_827_717_110_365_317_u64.to_le_bytes());
        let part: Vec<u8> = bytes(1_234_567, 3, 9).collect();
        let whole: Vec<u8> = bytes(1_234_567, 0, 12).collect();
        assert_eq!(Some(part.as_slice()), whole.get(3..));
    }

    /// What comes back is checked, and the end is told when there is enough.
    #[test]
    fn good_bytes_pass_and_a_wrong_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let listener = UnixListener::bind(&path).unwrap();
        let traffic = Traffic::start(&path, 7).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let good: Vec<u8> = bytes(7 ^ 2, 0, 1001).collect();
        let (good, last) = good.split_at(1000);
        peer.write_all(good).unwrap();
        traffic.wait_for(1000, Duration::from_secs(20));
        assert_eq!((traffic.moved().1, traffic.trouble()), (1000, None));
        traffic.enough();
        let mut sent = Vec::new();
        peer.read_to_end(&mut sent).unwrap();
        assert_eq!(sent.len() as u64, traffic.moved().0);
        let expected: Vec<u8> = bytes(7 ^ 1, 0, sent.len()).collect();
        assert_eq!(sent, expected);
        peer.write_all(&[last[0] ^ 1]).unwrap();
        traffic.wait_for(1001, Duration::from_secs(20));
        assert_eq!(
            traffic.trouble().unwrap(),
            "byte 1000 from the guest is wrong"
        );
    }
}
