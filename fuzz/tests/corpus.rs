//! Each target takes the inputs that are kept for it, and some that differ from them a little.

use std::fs;
use std::path::PathBuf;

use fuzz::TARGETS;

/// Inputs made of each kept one.
const VARIATIONS: usize = 8;

#[test]
fn kept_inputs_and_variations_of_them_do_no_harm() {
    for target in TARGETS {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        let mut random = fastrand::Rng::with_seed(1);
        for input in inputs {
            (target.run)(&input);
            for _ in 0..VARIATIONS {
                (target.run)(&varied(&input, &mut random));
            }
        }
    }
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    for folder in fs::read_dir(root()).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::target(&name).is_some(), "no target is called {name}");
    }
}

fn root() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/corpus").into()
}

/// In the order of their names, so that a failure comes again.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(root().join(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Some bytes are others, doubled or gone.
fn varied(input: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..4) {
            0 => bytes.insert(at, random.u8(..)),
            1 => bytes.truncate(at.max(bytes.len() / 2)),
            2 => bytes.extend_from_within(at..),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
    bytes
}
