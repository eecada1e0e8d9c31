//! PCI: configuration space by ports and in memory show the same devices.

use alloc::{format, string::String, vec::Vec};

use super::Checked;
use crate::{
    acpi::Tables,
    pci::{ConfigSpace, EcamConfig, Function, PortConfig, scan},
    report::Report,
};

/// What is on bus 0, and the way to its configuration.
pub(crate) struct Devices {
    pub(crate) space: alloc::boxed::Box<dyn ConfigSpace>,
    pub(crate) functions: Vec<Function>,
}

/// Finds the devices; with a report, by both ways, and compares.
pub(super) fn find(tables: Option<&Tables>, report: Option<&mut Report>) -> Devices {
    let ecam = tables.and_then(|tables| tables.ecam).and_then(EcamConfig::new);
    let in_memory = ecam.as_ref().map(|space| scan(space));
    if let Some(report) = report {
        report.check("pci", compare(in_memory.as_deref(), &scan(&PortConfig)));
    }
    match (ecam, in_memory) {
        (Some(space), Some(functions)) => {
            Devices { space: alloc::boxed::Box::new(space), functions }
        }
        _ => Devices { space: alloc::boxed::Box::new(PortConfig), functions: scan(&PortConfig) },
    }
}

fn compare(in_memory: Option<&[Function]>, by_port: &[Function]) -> Checked {
    let in_memory = match in_memory {
        None if by_port.is_empty() => return Err("no PCI: neither ports nor MCFG".into()),
        None => return Err("no MCFG that covers bus 0".into()),
        Some([]) if by_port.is_empty() => return Err("no PCI: bus 0 is empty".into()),
        Some(functions) => functions,
    };
    if in_memory != by_port {
        return Err(format!("ports show {}, ECAM shows {}", list(by_port), list(in_memory)));
    }
    Ok(format!("{} functions", by_port.len()))
}

fn list(functions: &[Function]) -> String {
    let names: Vec<String> = functions
        .iter()
        .map(|function| format!("{function} {:04x}:{:04x}", function.vendor, function.id))
        .collect();
    format!("[{}]", names.join(", "))
}
