// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other end of a measured stream: the same code for every way, on the host and in the guest.
//!
//! A stream carries jobs one after another: a header from the client, then what its kind says.

use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a header.
const HEADER: usize = 16;
/// What a header begins with: after a stream has got out of step nothing is believed.
const MAGIC: u32 = 0x4f46_4947;
/// Bytes that are moved at a time.
const CHUNK: usize = 1 << 20;

/// What a peer does with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends back what comes.
    Echo,
    /// Takes everything, and then sends one byte.
    Sink,
    /// Sends.
    Source,
}

/// A job: its kind, and how many bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What to do.
    pub kind: Kind,
    /// With how much.
    pub length: u64,
}

impl Job {
    /// As it travels.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let kind: u32 = match self.kind {
            Kind::Echo => 1,
            Kind::Sink => 2,
            Kind::Source => 3,
        };
        let mut bytes = [0; HEADER];
        let fields = (MAGIC.to_le_bytes().into_iter())
            .chain(kind.to_le_bytes())
            .chain(self.length.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// From what came; `None` if that is no job.
    pub fn from_bytes(bytes: [u8; HEADER]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (kind, length) = rest.split_first_chunk()?;
        if u32::from_le_bytes(*magic) != MAGIC {
            return None;
        }
        let kind = match u32::from_le_bytes(*kind) {
            1 => Kind::Echo,
            2 => Kind::Sink,
            3 => Kind::Source,
            _ => return None,
        };
        Some(Self {
            kind,
            length: u64::from_le_bytes(length.try_into().ok()?),
        })
    }
}

/// Does jobs until the stream ends.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` for what is no job.
pub fn serve(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut header = [0; HEADER];
        match from.read_exact(&mut header) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let job = Job::from_bytes(header)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the stream is out of step"))?;
        match job.kind {
            Kind::Echo => take(&mut from, job.length, &mut buffer, |bytes| {
                to.write_all(bytes)
            })?,
            Kind::Sink => {
                take(&mut from, job.length, &mut buffer, |_| Ok(()))?;
                to.write_all(&[0])?;
            }
            Kind::Source => give(&mut to, job.length, &buffer)?,
        }
    }
}

fn take(
    from: &mut impl Read,
    length: u64,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let room = buffer.get_mut(..room).unwrap_or_default();
        let count = match from.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        each(room.get(..count).unwrap_or_default())?;
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

fn give(to: &mut impl Write, length: u64, buffer: &[u8]) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: Kind, length: u64) -> Vec<u8> {
        Job { kind, length }.to_bytes().to_vec()
    }

    #[test]
    fn jobs_follow_one_another_on_a_stream() {
        let mut input = job(Kind::Echo, 3);
        input.extend(b"abc");
        input.extend(job(Kind::Sink, 2));
        input.extend(b"xy");
        input.extend(job(Kind::Source, 2_500_000));
        let mut output = Vec::new();
        serve(&*input, &mut output).unwrap();
        assert_eq!(&output[..4], b"abc\0");
        assert_eq!(output.len(), 4 + 2_500_000);
    }

    #[test]
    fn a_stream_out_of_step_is_an_error() {
        let error = serve(&[1_u8; 40][..], Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn an_end_within_a_job_is_an_error() {
        let error = serve(&*job(Kind::Sink, 9), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
