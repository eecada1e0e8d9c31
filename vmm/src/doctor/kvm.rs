//! KVM: present, permitted, complete, and native or emulated.

use std::io::ErrorKind;

use kvm_ioctls::{Cap, Kvm};

use super::report::Check;
use super::ring0;
use crate::error::Report;

/// The version of the API that has been the only one since 2007.
const API_VERSION: i32 = 12;

/// The slowest processor is far above this, the fastest emulator far below.
const NATIVE_FROM_MIPS: f64 = 50.0;

/// No machine runs without these.
const REQUIRED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "user memory"),
    (Cap::Irqchip, "interrupt controllers"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::SignalMsi, "signal MSI"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::ExtCpuid, "CPUID"),
    (Cap::Pit2, "timer"),
];

/// The most CPUs a machine is given.
const CPUS: usize = crate::config::CpuCount::MAX as usize;

/// How fast ring 0 of a guest runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed(f64);

impl Speed {
    pub(super) fn mips(self) -> f64 {
        self.0
    }

    pub(super) fn is_native(self) -> bool {
        self.0 >= NATIVE_FROM_MIPS
    }
}

/// Measures; None when no guest can be run, which [`checks`] then explains.
pub(super) fn speed() -> Option<Speed> {
    let kvm = Kvm::new().ok()?;
    ring0::measure(&kvm).ok().map(Speed)
}

pub(super) fn checks(speed: Option<Speed>) -> Vec<Check> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return vec![cannot_open(error)],
    };
    let version = kvm.get_api_version();
    if version != API_VERSION {
        let detail = format!("API version {version}, and {API_VERSION} is wanted");
        return vec![Check::missing("kvm", detail).required()];
    }
    vec![
        Check::ok("kvm", "/dev/kvm opens for reading and writing").required(),
        capabilities(&kvm),
        cpus(&kvm),
        speed_check(&kvm, speed),
    ]
}

fn cannot_open(error: kvm_ioctls::Error) -> Check {
    let error = std::io::Error::from(error);
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            "load kvm_intel or kvm_amd, or switch virtualization on in the firmware or, in a virtual \
             machine, for nested use"
        }
        ErrorKind::PermissionDenied => {
            "join the group that owns it: usermod -aG kvm USER, then log in again"
        }
        _ => "dmesg may say why",
    };
    Check::missing("kvm", format!("/dev/kvm: {error}")).hint(hint).required()
}

fn capabilities(kvm: &Kvm) -> Check {
    let missing: Vec<_> = REQUIRED
        .iter()
        .filter(|(cap, _)| !kvm.check_extension(*cap))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        let names: Vec<_> = REQUIRED.iter().map(|(_, name)| *name).collect();
        return Check::ok("kvm capabilities", names.join(", ")).required();
    }
    Check::missing("kvm capabilities", format!("without {}", missing.join(", ")))
        .hint("these came with Linux 4.12 or before; use a newer kernel")
        .required()
}

fn cpus(kvm: &Kvm) -> Check {
    let (advised, most) = (kvm.get_nr_vcpus(), kvm.get_max_vcpus());
    let detail = format!("{most} for a machine at most, {advised} advised");
    if most < CPUS {
        return Check::warn("kvm cpus", detail).hint("give machines no more --cpus than that");
    }
    Check::ok("kvm cpus", detail)
}

fn speed_check(kvm: &Kvm, speed: Option<Speed>) -> Check {
    let Some(speed) = speed else {
        // Once more, for the reason.
        let reason = match ring0::measure(kvm) {
            Ok(mips) => format!("unsteady: one try failed, the next ran at {mips:.0} MIPS"),
            Err(error) => Report::of(&error).one_line(),
        };
        return Check::missing("kvm speed", reason).required();
    };
    let mips = speed.mips();
    if speed.is_native() {
        return Check::ok("kvm speed", format!("native: ring 0 runs at {mips:.0} MIPS"));
    }
    let detail = format!(
        "emulated: ring 0 runs at {mips:.1} MIPS; the built-in guest runs well, stock Linux does not boot"
    );
    Check::warn("kvm speed", detail)
        .hint("use a host with VT-x or AMD-V, or `cargo xtask bed -- COMMAND` for an emulated one")
}
