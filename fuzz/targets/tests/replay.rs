// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fuzz targets without a fuzzer: every input of the corpus, and mutations of them that are the
//! same each time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helper fails as a test does"
)]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use fuzz_targets::TARGETS;
use fuzz_targets::Target;
use fuzz_targets::seeds::seeds;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rstest::rstest;

/// Mutations of the corpus of each target: seconds in all.
const MUTATIONS: u32 = 2000;

/// Longest input that libFuzzer makes, by default.
const MAX_LEN: usize = 4096;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.0 == name).unwrap()
}

/// The inputs of a target in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(fuzz().join("corpus").join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[rstest]
fn replay(#[values("control", "fault", "fifo", "queues", "rings", "spec", "wire")] name: &str) {
    let (name, run) = target(name);
    let corpus = corpus(name);
    for input in &corpus {
        run(input);
    }
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..MUTATIONS {
        run(&mutation(&corpus, &mut random));
    }
}

/// One input, changed in a few places, or two of them spliced.
fn mutation(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            4 if at < bytes.len() => {
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)];
            }
            _ if at < bytes.len() => bytes[at] = random.random(),
            _ => {}
        }
    }
    bytes.truncate(MAX_LEN);
    bytes
}

/// The corpus holds the seeds as they are; `WRITE_SEEDS=1` puts them there.
#[test]
fn the_corpus_holds_the_seeds() {
    for (target, _) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        let dir = fuzz().join("corpus").join(target);
        for (name, bytes) in seeds {
            let file = dir.join(name);
            if std::env::var_os("WRITE_SEEDS").is_some() {
                fs::create_dir_all(&dir).unwrap();
                fs::write(&file, &bytes).unwrap();
            }
            let found = fs::read(&file).unwrap_or_default();
            assert!(found == bytes, "{}: run with WRITE_SEEDS=1", file.display());
        }
    }
}

/// Each target has what libFuzzer needs.
#[test]
fn every_target_is_known_to_cargo_fuzz() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let program = fuzz().join(format!("fuzz_targets/{name}.rs"));
        let body = fs::read_to_string(program).unwrap();
        assert!(
            body.contains(&format!("fuzz_targets::{name}(data)")),
            "{name}"
        );
    }
}
