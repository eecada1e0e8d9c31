//! Devices whose processes die while stock Linux uses them.

use std::time::Duration;

use super::Case;

/// One of each kind of death; `cargo xtask chaos` does many.
const KILLS: u32 = 4;

pub(super) fn cases() -> Vec<Case> {
    let mut case = Case::new("chaos/linux-disk-survives-kills", crate::chaos::linux::case(KILLS));
    // fio runs for a fixed time, and Linux boots on an emulated processor.
    case.timeout = Duration::from_mins(5);
    vec![case]
}
