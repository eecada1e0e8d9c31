//! The x86-64 machine: a PC without firmware, with PCI Express, an I/O APIC and ACPI.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod kernel;
pub mod layout;
pub mod msrs;
pub mod smbios;
