//! The checks. Each returns what it saw, or what is wrong.

mod blk;
mod cpu;
mod memory;
mod net;
mod pci;
mod processors;
mod timer;
mod virtio;

use alloc::{format, string::String};

use crate::{
    acpi::Tables,
    boot_params::BootParams,
    cmdline::{Check, Options},
    platform::{firmware, lapic::LocalApic, power, time},
    report::Report,
};

/// What a check sees, or what is wrong.
type Checked = Result<String, String>;

/// Runs what the options ask for.
pub(crate) fn run(params: &BootParams, options: &Options, report: &mut Report) {
    let chosen = |check| options.checks.has(check);
    // The tables are read in any case: they say how to power off and what time is measured by.
    let tables = read_tables(params);
    let known = tables.as_ref().ok();
    if let Some(tables) = known
        && let Some(port) = tables.pm1a_control
    {
        power::set_soft_off(port, tables.s5_sleep_type);
    }
    let pm_timer = known.and_then(|tables| tables.pm_timer);
    let told = time::told_frequency();
    let measured = if told.is_none() || chosen(Check::Timer) {
        pm_timer.and_then(time::measured_frequency)
    } else {
        None
    };
    if let Some(hz) = told.or(measured) {
        time::set_frequency(hz);
    }
    let lapic = LocalApic::enable(local_apic_address(known));

    if chosen(Check::Cpu) {
        report.check("cpu", cpu::check());
    }
    if chosen(Check::Timer) {
        report.check("timer", timer::check(told, measured, lapic.as_ref()));
    }
    if chosen(Check::Acpi) {
        report.check("acpi", described(&tables));
    }
    let test = chosen(Check::Memory).then(|| memory::Test::prepare(params, known));
    if chosen(Check::Processors) {
        let task = test.as_ref().and_then(|test| test.as_ref().ok());
        report.check("processors", processors::check(known, lapic.as_ref(), task.copied()));
    }
    if let Some(test) = test {
        report.check("memory", test.and_then(memory::Test::finish));
    }
    let devices = pci::find(known, chosen(Check::Pci).then_some(&mut *report));
    if chosen(Check::Virtio) {
        virtio::check(&devices, options.rings, report);
    }
    if chosen(Check::Blk) {
        blk::check(&devices, options.rings, report);
    }
    if chosen(Check::Net) {
        net::check(&devices, options.rings, report);
    }
    if let Some(load) = &options.load {
        blk::load(&devices, load, options.rings, report);
    }
    if let Some(load) = &options.net {
        net::load(&devices, load, options.rings, report);
    }
}

/// Stays up, halted: a timer interrupt a second at most.
pub(crate) fn hold(params: &BootParams, seconds: u64) {
    let tables = read_tables(params).ok();
    match LocalApic::enable(local_apic_address(tables.as_ref())) {
        Some(lapic) if timer::fires(&lapic) => timer::sleep(&lapic, seconds),
        _ => time::spin_roughly(seconds),
    }
}

fn read_tables(params: &BootParams) -> Result<Tables, String> {
    let rsdp = params.rsdp().ok_or("the loader gave no RSDP")?;
    Tables::read(rsdp, &firmware::bytes)
}

fn described(tables: &Result<Tables, String>) -> Checked {
    let tables = tables.as_ref().map_err(Clone::clone)?;
    for name in ["FACP", "APIC", "DSDT", "MCFG"] {
        if !tables.names.iter().any(|known| known == name) {
            return Err(format!("no {name}"));
        }
    }
    if tables.s5_sleep_type.is_none() {
        return Err("DSDT has no _S5_".into());
    }
    Ok(tables.names.join(" "))
}

fn local_apic_address(tables: Option<&Tables>) -> u64 {
    tables.and_then(|tables| tables.local_apic).unwrap_or(crate::platform::lapic::DEFAULT_ADDRESS)
}
