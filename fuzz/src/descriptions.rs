//! What people and programs say of machines.

use std::path::Path;

use vmm::config::MachineOptions;
use vmm::control::{Frame, Request};

/// A `vm.toml`: it is understood and checked, or refused with a reason.
pub(crate) fn machine(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match MachineOptions::from_toml(text, Path::new("vm.toml")) {
        // What names files is refused for want of them, which is as far as a description gets.
        Ok(options) => drop(options.check().map_err(|error| error.to_string())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Lines of clients and of machines: what is understood says the same when it is written again.
pub(crate) fn control(input: &[u8]) {
    again::<Request>(input);
    again::<Frame>(input);
}

fn again<T>(line: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(said) = serde_json::from_slice::<T>(line) {
        let written = serde_json::to_vec(&said).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<T>(&written).expect("it can be read"), said);
    }
}
