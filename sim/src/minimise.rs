//! As little as is needed of a world that fails.

use std::time::{Duration, Instant};

use crate::hunt::{Found, try_plan};
use crate::models::Device;
use crate::settings::Kind;
use crate::world::Plan;

/// Worlds that may be tried for it.
const BUDGET: u32 = 400;
/// And for so long.
const TIME: Duration = Duration::from_secs(10);

/// Leaves out of a world that fails what it can do without and still fail, for whatever reason.
pub fn minimise(device: Device, seed: u64) -> (Plan, Found) {
    let mut search = Search { device, best: Plan::of(seed), left: BUDGET, start: Instant::now() };
    for kind in Kind::ALL {
        search.offer(|plan| plan.without.push(kind));
    }
    // From the end, in ever smaller pieces: what comes after the cause does not matter.
    let mut steps = u32::MAX;
    let mut piece = 64;
    while piece > 0 {
        let shorter = steps.min(256).saturating_sub(piece);
        if shorter > 0 && search.offer(|plan| plan.steps = Some(shorter)) {
            steps = shorter;
        } else {
            piece /= 2;
        }
    }
    let steps = search.best.steps.unwrap_or(128);
    let mut piece = steps.div_ceil(2);
    while piece > 0 {
        for start in (0..steps).step_by(piece as usize).rev() {
            let range = start..(start + piece).min(steps);
            if !range.clone().all(|step| search.best.skip.contains(&step)) {
                search.offer(|plan| plan.skip.extend(range.clone()));
            }
        }
        piece /= 2;
    }
    let found = try_plan(device, &search.best);
    (search.best, found)
}

struct Search {
    device: Device,
    best: Plan,
    left: u32,
    start: Instant,
}

impl Search {
    /// Takes a change if the world still fails with it.
    fn offer(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        if self.left == 0 || self.start.elapsed() > TIME {
            return false;
        }
        self.left -= 1;
        let mut plan = self.best.clone();
        change(&mut plan);
        let fails = try_plan(self.device, &plan).failure.is_some();
        if fails {
            self.best = plan;
        }
        fails
    }
}
