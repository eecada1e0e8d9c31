//! Worlds of some seeds of each device, and that a seed has one world only. Many more are tried by
//! `cargo xtask sim`.

use sim::hunt::{Quest, hunt, on_a_thread, try_plan};
use sim::minimise::minimise;
use sim::models::Device;
use sim::settings::Kind;
use sim::world::Plan;

#[test]
fn two_runs_of_a_seed_have_the_same_log() {
    for device in Device::ALL {
        for seed in 0..3 {
            let plan = Plan::of(seed);
            let (first, second) =
                on_a_thread(|| (try_plan(device, &plan), try_plan(device, &plan)));
            assert_eq!(first.log.notes(), second.log.notes(), "{} {seed}", device.name());
            assert_eq!(first.log.hash(), second.log.hash());
            assert!(!first.log.notes().is_empty());
        }
    }
}

#[test]
fn the_log_is_that_of_the_seed() {
    let hash = |seed| on_a_thread(|| try_plan(Device::Blk, &Plan::of(seed)).log.hash());
    let mut hashes: Vec<u64> = (0..20).map(hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn what_must_hold_holds() {
    for device in Device::ALL {
        let quest = Quest { first: 1_000_000, seeds: 20, time: None, enough: 3 };
        let bag = hunt(device, quest, 2, || {});
        assert!(bag.failures.is_empty(), "{:?}", bag.failures);
        assert_eq!(bag.seeds, 20);
    }
}

#[test]
fn leaving_things_out_keeps_the_rest_of_the_world() {
    // Nothing fails here, so nothing can be left out.
    let (plan, found) = on_a_thread(|| minimise(Device::Blk, 3));
    assert_eq!(plan, Plan::of(3));
    assert!(found.failure.is_none());
    // A world without its steps still begins and ends.
    let plan = Plan { without: Kind::ALL.to_vec(), steps: Some(0), ..Plan::of(3) };
    let found = on_a_thread(|| try_plan(Device::Blk, &plan));
    assert!(found.failure.is_none());
}
