//! Policies from a folder.

use std::fs;

use vmm::warden::{
    Attempt, AttemptOutcome, Enforcement, PolicyError, PolicySource, Users, Warden, WardenError,
};

use crate::Test;
use crate::world::World;

pub(crate) const TESTS: &[Test] = &[
    ("a_folder_overrides_the_built_in_policies", a_folder_overrides_the_built_in_policies),
    ("a_policy_with_mistakes_starts_nothing", a_policy_with_mistakes_starts_nothing),
];

fn source(folder: &tempfile::TempDir) -> PolicySource {
    PolicySource { folder: Some(folder.path().into()), enforcement: Enforcement::Enforce }
}

fn a_folder_overrides_the_built_in_policies() {
    let folder = tempfile::tempdir().expect("a folder");
    let built_in = vmm::warden::ActorKind::Probe.built_in_policy();
    let common = include_str!("../../src/warden/policies/common.policy");
    let descriptors = include_str!("../../src/warden/policies/descriptors.policy");
    for (name, text) in [("common.policy", common), ("descriptors.policy", descriptors)] {
        fs::write(folder.path().join(name), text).expect("writes");
    }
    let text = format!("{built_in}openat: return EDOM\n");
    fs::write(folder.path().join("probe.policy"), text).expect("writes");
    let mut world = World::with(&source(&folder));
    let outcome = world.attempt(Attempt::Open("/".into()));
    assert_eq!(outcome, Ok(AttemptOutcome::Refused(libc::EDOM)));
}

fn a_policy_with_mistakes_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("probe.policy"), "raed: 1\nread: 1 2\n").expect("writes");
    let error = Warden::fork(&source(&folder), Users::One).map(drop).expect_err("refuses");
    let WardenError::Policy(PolicyError::Mistakes { first, others }) = error else {
        panic!("{error:?}");
    };
    assert_eq!((others.len(), first.line), (1, 1));
}
