//! The other processors: each starts and runs a task in ring 3 that counts and helps to test memory.

use alloc::{format, vec::Vec};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::{Checked, memory};
use crate::{
    acpi::Tables,
    platform::{lapic::LocalApic, processors, time},
};

const COUNTS: u64 = 1000;
const PATIENCE_SECONDS: u64 = 10;
/// The xAPIC addresses no processor beyond this one.
const LAST_XAPIC_ID: u32 = 254;

static COUNTER: AtomicU64 = AtomicU64::new(0);
static TEST: AtomicPtr<memory::Test> = AtomicPtr::new(core::ptr::null_mut());

pub(super) fn check(
    tables: Option<&Tables>,
    lapic: Option<&LocalApic>,
    test: Option<memory::Test>,
) -> Checked {
    let tables = tables.ok_or("no MADT names them")?;
    let lapic = lapic.ok_or("no local APIC")?;
    if let Some(test) = test {
        let test = alloc::boxed::Box::leak(alloc::boxed::Box::new(test));
        TEST.store(test, Ordering::Release);
    }
    let own = u32::from(lapic.id());
    if !tables.processors.contains(&own) {
        return Err(format!("the MADT does not name processor {own}, which runs this"));
    }
    let others: Vec<u32> = tables.processors.iter().copied().filter(|id| *id != own).collect();
    for id in &others {
        let xapic = u8::try_from(*id).ok().filter(|_| *id <= LAST_XAPIC_ID);
        let xapic = xapic.ok_or_else(|| format!("processor {id} is beyond the xAPIC's reach"))?;
        if !processors::start(lapic, xapic, task) {
            return Err(format!("processor {id} does not start"));
        }
    }
    let expected = others.len() as u64 * COUNTS;
    if !time::wait_for(PATIENCE_SECONDS, || COUNTER.load(Ordering::Acquire) == expected) {
        let counted = COUNTER.load(Ordering::Acquire);
        return Err(format!("{} processors counted to {counted} together", others.len()));
    }
    Ok(format!("{} run", others.len() + 1))
}

fn task() {
    for _ in 0..COUNTS {
        COUNTER.fetch_add(1, Ordering::AcqRel);
    }
    let test = TEST.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `check`.
    if let Some(test) = unsafe { test.as_ref() } {
        test.take_part();
    }
}
