//! The x86-64 machine: a PC without firmware, with PCI Express, an I/O APIC and ACPI.

pub mod boot;
pub mod kernel;
pub mod layout;
