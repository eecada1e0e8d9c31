//! What the CPUID instruction tells each processor.
//!
//! The hypervisor says what the host and it can do; this adjusts the leaves that depend on which
//! processor asks and on how many there are. The machine is one package of cores with one thread
//! each, so a processor's APIC id is its index, and all cores share the last level of cache.
//!
//! Leaves are those of the Intel SDM (volume 2A, "CPUID") and, from `0x8000_0000` on, of the AMD APM
//! (volume 3, appendix E.4); `0x4000_0000` on are the hypervisor's
//! (Linux, Documentation/virt/kvm/x86/cpuid.rst).

use std::fmt;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What a processor is to be told.
#[derive(Clone, Copy)]
pub struct CpuidConfig<'a> {
    /// What the hypervisor supports (`KVM_GET_SUPPORTED_CPUID`).
    pub supported: &'a [kvm_cpuid_entry2],
    /// How many processors the machine has, at least 1.
    pub processors: u32,
    /// Whether the local APIC's timer has TSC deadline mode (`KVM_CAP_TSC_DEADLINE_TIMER`).
    pub tsc_deadline_timer: bool,
    /// Whether the guest gets performance counters.
    pub performance_counters: bool,
    /// The frequency of the guest's time stamp counter in kHz, if it is known.
    pub tsc_khz: Option<u32>,
}

impl fmt::Debug for CpuidConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuidConfig")
            .field("supported", &self.supported.len())
            .field("processors", &self.processors)
            .field("tsc_deadline_timer", &self.tsc_deadline_timer)
            .field("performance_counters", &self.performance_counters)
            .field("tsc_khz", &self.tsc_khz)
            .finish()
    }
}

/// The hypervisor's maximum leaf and signature.
const HYPERVISOR: u32 = 0x4000_0000;
/// Frequencies of the time stamp counter and the local APIC's timer, in kHz.
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds.
const APIC_TIMER_KHZ: u32 = 1_000_000;

/// Leaf 1 ECX: performance capabilities MSR.
const PDCM: u32 = 1 << 15;
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: zero on every real processor.
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// Leaf 1 EDX: the package has more than one APIC id.
const HTT: u32 = 1 << 28;
/// Leaf `0x8000_0001` ECX: those APIC ids are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf `0x8000_0001` ECX: performance counter extensions.
const PERF_CTR_EXT_CORE: u32 = 1 << 23;

/// Level types of the topology leaves 0xB and 0x1F.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// All leaves for processor `index`, which counts from 0.
#[must_use]
pub fn for_processor(config: &CpuidConfig<'_>, index: u32) -> Vec<kvm_cpuid_entry2> {
    let amd = is_amd(config.supported);
    let topology_leaves = topology_leaves(config.supported);
    let mut entries: Vec<_> = config
        .supported
        .iter()
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f | HYPERVISOR_FREQUENCIES))
        .copied()
        .collect();
    for entry in &mut entries {
        adjust(entry, config, index, amd);
    }
    for &leaf in topology_leaves {
        entries.extend(topology(leaf, config.processors, index));
    }
    let frequencies = frequencies(&mut entries, config.tsc_khz);
    entries.extend(frequencies);
    entries
}

/// AMD's leaves mean something else, or nothing, on other processors.
fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    let vendor = supported.iter().find(|entry| entry.function == 0);
    vendor.is_some_and(|leaf| {
        let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
        matches!(name.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
    })
}

/// Leaf 0xB is always there, so that APIC ids of more than eight bits can be told; 0x1F is only
/// where the host has it.
fn topology_leaves(supported: &[kvm_cpuid_entry2]) -> &'static [u32] {
    let last = supported.iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.eax);
    if last >= 0x1f { &[0xb, 0x1f] } else { &[0xb] }
}

fn adjust(entry: &mut kvm_cpuid_entry2, config: &CpuidConfig<'_>, index: u32, amd: bool) {
    let processors = config.processors.max(1);
    match entry.function {
        // The highest basic leaf.
        0 => entry.eax = entry.eax.max(0xb),
        1 => features(entry, config, index),
        // Deterministic cache parameters: who shares the cache, and the cores of the package.
        4 => {
            entry.eax &= 0x3fff;
            if entry.eax & 0x1f != 0 {
                entry.eax |= (sharers(entry.eax, processors) - 1).min(0xfff) << 14;
                entry.eax |= (addressable(processors) - 1).min(0x3f) << 26;
            }
        }
        // Architectural performance monitoring, of Intel and of AMD.
        0xa | 0x8000_0022 if !config.performance_counters => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        0x8000_0001 => {
            set(&mut entry.ecx, CMP_LEGACY, amd && processors > 1);
            if !config.performance_counters {
                entry.ecx &= !PERF_CTR_EXT_CORE;
            }
        }
        // Core count, and how many bits of an APIC id number the cores.
        0x8000_0008 if amd => {
            entry.ecx &= !0xf0ff;
            entry.ecx |= (processors - 1).min(0xff) | id_bits(processors) << 12;
        }
        // AMD's cache parameters.
        0x8000_001d if amd && entry.eax & 0x1f != 0 => {
            entry.eax &= 0x3fff;
            entry.eax |= (sharers(entry.eax, processors) - 1).min(0xfff) << 14;
        }
        // APIC id; core id, one thread a core; node 0 of one.
        0x8000_001e if amd => {
            (entry.eax, entry.ebx, entry.ecx) = (index, index & 0xff, 0);
        }
        _ => {}
    }
}

/// Leaf 1.
fn features(entry: &mut kvm_cpuid_entry2, config: &CpuidConfig<'_>, index: u32) {
    let processors = config.processors.max(1);
    entry.ebx &= 0xffff;
    entry.ebx |= (index & 0xff) << 24 | addressable(processors).min(0xff) << 16;
    entry.ecx |= HYPERVISOR_PRESENT;
    set(&mut entry.ecx, TSC_DEADLINE, config.tsc_deadline_timer);
    if !config.performance_counters {
        entry.ecx &= !PDCM;
    }
    set(&mut entry.edx, HTT, processors > 1);
}

/// Sets or clears `bits` of `register`, as `on` says.
fn set(register: &mut u32, bits: u32, on: bool) {
    *register = if on { *register | bits } else { *register & !bits };
}

/// The bits of an APIC id that number the cores.
fn id_bits(processors: u32) -> u32 {
    processors.next_power_of_two().trailing_zeros()
}

/// How many APIC ids those bits can number.
fn addressable(processors: u32) -> u32 {
    1 << id_bits(processors)
}

/// How many APIC ids share the cache that `eax` describes: its level is in bits 7:5.
fn sharers(eax: u32, processors: u32) -> u32 {
    let level = eax >> 5 & 7;
    if level >= 3 { addressable(processors) } else { 1 }
}

/// Leaf 0xB or 0x1F: threads of a core (one), cores of the package, and the end of the list.
fn topology(leaf: u32, processors: u32, index: u32) -> [kvm_cpuid_entry2; 3] {
    let processors = processors.max(1);
    let level = |number: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function: leaf,
        index: number,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: number | kind << 8,
        edx: index,
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, 0, 1, LEVEL_THREAD),
        level(1, id_bits(processors), processors, LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

/// The leaf with the frequencies, if there is a hypervisor signature that can announce it.
fn frequencies(entries: &mut [kvm_cpuid_entry2], tsc_khz: Option<u32>) -> Option<kvm_cpuid_entry2> {
    let tsc_khz = tsc_khz?;
    let signature = entries.iter_mut().find(|entry| entry.function == HYPERVISOR)?;
    signature.eax = signature.eax.max(HYPERVISOR_FREQUENCIES);
    Some(kvm_cpuid_entry2 {
        function: HYPERVISOR_FREQUENCIES,
        eax: tsc_khz,
        ebx: APIC_TIMER_KHZ,
        ..kvm_cpuid_entry2::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
    const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn host([ebx, ecx, edx]: [u32; 3], last: u32) -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(0, 0, [last, ebx, ecx, edx]),
            leaf(1, 0, [0x906ea, 0x0512_0800, PDCM, 0]),
            leaf(4, 0, [0x1c00_4121, 1, 2, 3]),
            leaf(4, 3, [0x1c03_c163, 1, 2, 3]),
            leaf(4, 4, [0, 0, 0, 0]),
            leaf(0xa, 0, [1, 2, 3, 4]),
            leaf(0xb, 0, [9, 9, 9, 9]),
            leaf(HYPERVISOR, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
            leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
            leaf(0x8000_0001, 0, [0, 0, PERF_CTR_EXT_CORE | 0x20, 0]),
            leaf(0x8000_0008, 0, [0x3030, 0, 0x400f, 0]),
            leaf(0x8000_001d, 3, [0x1c163, 0, 0, 0]),
            leaf(0x8000_001e, 0, [7, 0x0107, 0x100, 0]),
        ]
    }

    fn config(supported: &[kvm_cpuid_entry2], processors: u32) -> CpuidConfig<'_> {
        CpuidConfig {
            supported,
            processors,
            tsc_deadline_timer: true,
            performance_counters: false,
            tsc_khz: Some(2_900_000),
        }
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = entries.iter().filter(|e| e.function == function && e.index == index);
        let first = *found.next().expect("the leaf is there");
        assert!(found.next().is_none(), "leaf {function:#x} is there twice");
        first
    }

    #[test]
    fn each_processor_is_told_its_apic_id_everywhere() {
        for vendor in [INTEL, AMD] {
            let supported = host(vendor, 0x20);
            for index in [0, 1, 5] {
                let entries = for_processor(&config(&supported, 6), index);
                assert_eq!(find(&entries, 1, 0).ebx >> 24, index);
                for topology in [0xb, 0x1f] {
                    for level in 0..3 {
                        assert_eq!(find(&entries, topology, level).edx, index);
                    }
                }
                if vendor == AMD {
                    assert_eq!(find(&entries, 0x8000_001e, 0).eax, index);
                }
            }
        }
    }

    #[test]
    fn the_package_has_as_many_cores_as_there_are_processors() {
        let supported = host(INTEL, 0xd);
        let entries = for_processor(&config(&supported, 6), 0);
        let (threads, cores) = (find(&entries, 0xb, 0), find(&entries, 0xb, 1));
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (3, 6, 0x201));
        assert_eq!(find(&entries, 0xb, 2).ecx, 2);
        assert_eq!(find(&entries, 1, 0).ebx >> 16 & 0xff, 8);
        assert_ne!(find(&entries, 1, 0).edx & HTT, 0);
        assert!(!entries.iter().any(|entry| entry.function == 0x1f));
    }

    #[test]
    fn a_single_processor_has_no_neighbours() {
        let supported = host(AMD, 0x10);
        let entries = for_processor(&config(&supported, 1), 0);
        assert_eq!(find(&entries, 1, 0).edx & HTT, 0);
        assert_eq!(find(&entries, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
        assert_eq!(find(&entries, 0xb, 1).ebx, 1);
        assert_eq!(find(&entries, 4, 3).eax >> 14, 0);
    }

    #[test]
    fn only_the_last_level_of_cache_is_shared() {
        let supported = host(INTEL, 0xd);
        let entries = for_processor(&config(&supported, 4), 2);
        let (first, last) = (find(&entries, 4, 0), find(&entries, 4, 3));
        assert_eq!((first.eax >> 14 & 0xfff, first.eax >> 26), (0, 3));
        assert_eq!((last.eax >> 14 & 0xfff, last.eax >> 26), (3, 3));
        assert_eq!(first.eax & 0x3fff, 0x121);
        assert_eq!(find(&entries, 4, 4).eax, 0);
    }

    #[test]
    fn amd_leaves_are_adjusted_on_amd_only() {
        let supported = host(AMD, 0x10);
        let entries = for_processor(&config(&supported, 4), 3);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 0x2003);
        assert_ne!(find(&entries, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
        assert_eq!(find(&entries, 0x8000_001d, 3).eax >> 14, 3);
        assert_eq!(find(&entries, 0x8000_001e, 0).ebx, 3);

        let supported = host(INTEL, 0xd);
        let entries = for_processor(&config(&supported, 4), 3);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 0x400f);
    }

    #[test]
    fn a_thousand_processors_do_not_spill_into_other_fields() {
        let supported = host(AMD, 0x20);
        let entries = for_processor(&config(&supported, 1024), 1023);
        assert_eq!(find(&entries, 1, 0).ebx, 0xffff_0800);
        assert_eq!(find(&entries, 0xb, 1).edx, 1023);
        assert_eq!(find(&entries, 4, 3).eax, 0xfcff_c163);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 0xa0ff);
    }

    #[test]
    fn performance_counters_are_hidden_or_as_the_host_has_them() {
        let supported = host(AMD, 0x10);
        let mut config = config(&supported, 2);
        let hidden = for_processor(&config, 0);
        assert_eq!(find(&hidden, 0xa, 0).eax, 0);
        assert_eq!(find(&hidden, 1, 0).ecx & PDCM, 0);
        assert_eq!(find(&hidden, 0x8000_0001, 0).ecx & PERF_CTR_EXT_CORE, 0);
        config.performance_counters = true;
        let shown = for_processor(&config, 0);
        assert_eq!(find(&shown, 0xa, 0).eax, 1);
        assert_ne!(find(&shown, 1, 0).ecx & PDCM, 0);
    }

    #[test]
    fn the_hypervisor_is_announced_and_keeps_its_leaves() {
        let supported = host(INTEL, 0xd);
        let mut config = config(&supported, 2);
        let entries = for_processor(&config, 0);
        assert_ne!(find(&entries, 1, 0).ecx & HYPERVISOR_PRESENT, 0);
        assert_ne!(find(&entries, 1, 0).ecx & TSC_DEADLINE, 0);
        assert_eq!(find(&entries, 0x4000_0001, 0).eax, 0x0100_7efb);
        assert_eq!(find(&entries, HYPERVISOR, 0).ebx, 0x4b4d_564b);
        assert_eq!(find(&entries, HYPERVISOR, 0).eax, HYPERVISOR_FREQUENCIES);
        assert_eq!(find(&entries, HYPERVISOR_FREQUENCIES, 0).eax, 2_900_000);

        config.tsc_khz = None;
        config.tsc_deadline_timer = false;
        let entries = for_processor(&config, 0);
        assert_eq!(find(&entries, HYPERVISOR, 0).eax, 0x4000_0001);
        assert_eq!(find(&entries, 1, 0).ecx & TSC_DEADLINE, 0);
    }

    #[test]
    fn an_empty_list_of_leaves_is_no_problem() {
        let entries = for_processor(&config(&[], 0), 0);
        assert!(entries.iter().all(|entry| entry.function == 0xb));
    }
}
