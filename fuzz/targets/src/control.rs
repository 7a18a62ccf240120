// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control protocol: from the bytes of a client to lines, requests, what they do, and answers.

use std::io;
use std::io::Read;
use std::sync::Arc;

use vhost_device_fifo::control::Service;
use vhost_device_fifo::control::lines::Incoming;
use vhost_device_fifo::control::lines::Line;
use vhost_device_fifo::control::protocol::Answer;
use vhost_device_fifo::control::protocol::MAX_LINE;
use vhost_device_fifo::control::protocol::Request;
use vhost_device_fifo::device::Device;
use vhost_device_fifo::fifo::ResetPolicy;

use crate::guest::SPECS;
use crate::guest::check_levels;
use crate::guest::spec;

/// Longest answer to a request that asks for no bytes, and to one that is none.
const MOST_SAID: usize = 1000;

/// A byte that says how much a read brings, then what the client sends. A byte that no text has
/// stands for very many others, so that lines can be too long.
pub fn control(data: &[u8]) {
    let Some((chunk, text)) = data.split_first() else {
        return;
    };
    let text = expanded(text);
    // A long line in single bytes would be nothing new, and takes long.
    let fewest = if text.len() > 4096 { 4096 } else { 1 };
    let mut source = Chunks {
        rest: &text,
        most: usize::from(*chunk).pow(2).max(fewest),
    };
    let specs = SPECS.map(spec);
    let device = Arc::new(Device::new(&specs, ResetPolicy::Keep).expect("1 to 31 FIFOs"));
    let service = Service::new(Arc::clone(&device));
    let mut expected = text.split(|byte| *byte == b'\n').peekable();
    let mut incoming = Incoming::default();
    loop {
        let count = incoming.fill(&mut source).expect("it never fails");
        while let Some(line) = incoming.next_line() {
            let wanted = expected.next().expect("as many lines as there are");
            match line {
                Line::Whole(line) => {
                    assert_eq!(line, wanted);
                    answer(&line, &service, &device);
                }
                Line::TooLong => assert!(wanted.len() > MAX_LINE),
            }
        }
        if count == 0 {
            break;
        }
    }
    let last = expected.next().unwrap_or_default();
    if last.len() <= MAX_LINE {
        let line = (!last.is_empty()).then(|| Line::Whole(last.to_vec()));
        assert_eq!(incoming.last(), line);
    }
    assert_eq!(expected.next(), None);
}

fn answer(line: &[u8], service: &Service, device: &Device) {
    let answer = match Request::parse(line) {
        Ok(request) => {
            assert_eq!(
                Request::parse(request.to_line().as_bytes()),
                Ok(request.clone())
            );
            Answer::new(request.id, service.run(request.command))
        }
        Err(bad) => Answer::new(bad.id, Err(bad.failure)),
    };
    assert_eq!(answer.ok, answer.error.is_none());
    if let Some(error) = &answer.error {
        assert!(error.message.len() <= MOST_SAID, "{}", error.message);
    }
    for index in 0..device.num_fifos() {
        check_levels(&device.fifo(index).expect("a FIFO"));
    }
}

fn expanded(text: &[u8]) -> Vec<u8> {
    let mut long = 0;
    let mut all = Vec::with_capacity(text.len());
    for byte in text {
        if *byte == 0xff && long < 2 {
            long += 1;
            all.resize(all.len() + MAX_LINE - 10, b'x');
        } else {
            all.push(*byte);
        }
    }
    all
}

struct Chunks<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Read for Chunks<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = self.most.min(bytes.len());
        let len = self.rest.read(&mut bytes[..most])?;
        Ok(len)
    }
}
