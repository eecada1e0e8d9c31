//! The processor: what it says it is, and that it calculates.

use alloc::{format, vec::Vec};
use core::{arch::x86_64::CpuidResult, hint::black_box};

use super::Checked;
use crate::{platform::services::cpuid, text::printable};

const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// ECX of leaf 1.
const HYPERVISOR: u32 = 1 << 31;
/// EDX of leaf 1.
const SSE2: u32 = 1 << 26;

pub(super) fn check() -> Checked {
    let CpuidResult { ebx, ecx, edx, .. } = cpuid(0, 0);
    let vendor = text(&[ebx, edx, ecx]);
    if vendor.is_empty() {
        return Err("CPUID names no vendor".into());
    }
    let features = cpuid(1, 0);
    if features.edx & SSE2 == 0 {
        return Err(format!("{vendor} without SSE2"));
    }
    sse()?;
    let hypervisor = if features.ecx & HYPERVISOR == 0 {
        "no hypervisor leaf".into()
    } else {
        let CpuidResult { ebx, ecx, edx, .. } = cpuid(HYPERVISOR_LEAF, 0);
        text(&[ebx, ecx, edx])
    };
    Ok(format!("{vendor}, {hypervisor}"))
}

/// Vectors of numbers whose sums and products are known.
fn sse() -> Result<(), &'static str> {
    let squares = (1..=64_u32)
        .map(|number| {
            let number = black_box(f64::from(number));
            number * number
        })
        .sum::<f64>();
    let expected = 89_440_u32; // 64 * 65 * 129 / 6
    if squares.to_bits() == f64::from(expected).to_bits() {
        Ok(())
    } else {
        Err("SSE calculates wrongly")
    }
}

fn text(registers: &[u32]) -> alloc::string::String {
    let bytes: Vec<u8> = registers.iter().flat_map(|register| register.to_le_bytes()).collect();
    printable(&bytes)
}
