//! The Fixed ACPI Description Table (ACPI 6.5, 5.2.9).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Presence};
use crate::memory::GuestAddress;
use crate::x86_64::layout::ports;

/// IA-PC boot architecture flags (ACPI 6.5, table 5.11): there are devices on ISA ports...
const LEGACY_DEVICES: u16 = 1 << 0;
/// ...a keyboard controller...
const I8042: u16 = 1 << 1;
/// ...no VGA...
const VGA_NOT_PRESENT: u16 = 1 << 2;
/// ...and no PCI Express link power management worth turning on.
const PCIE_ASPM_NOT_SUPPORTED: u16 = 1 << 4;

/// Lengths of the register blocks in bytes (ACPI 6.5, table 5.9).
const PM1_EVENT_LENGTH: u8 = 4;
const PM1_CONTROL_LENGTH: u8 = 2;
const PM_TIMER_LENGTH: u8 = 4;
/// Latencies above 100 and 1000 microseconds say that there is no C2 and no C3 state.
const NO_C2: u16 = 0x0fff;
const NO_C3: u16 = 0x0fff;

pub(super) fn build(facs: GuestAddress, dsdt: GuestAddress, keyboard: Presence) -> FADT {
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(facs.0 as u32)
        .dsdt_32(dsdt.0 as u32)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // PWR_BUTTON clear: the power button is an event of PM1. SLP_BUTTON set: there is none.
        .flag(Flags::SlpButton)
        // FIX_RTC set: the alarm is no event of PM1.
        .flag(Flags::FixRtc)
        // The timer counts 32 bits, not 24.
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    table.x_dsdt = dsdt.0.into();

    // SMI_CMD stays zero: the machine is in ACPI mode from the start (ACPI 6.5, 4.8.3.1 and 5.2.9).
    table.sci_int = u16::from(ports::ACPI_SCI_IRQ).into();
    table.pm1a_evt_blk = u32::from(ports::ACPI_PM1_EVENT).into();
    table.pm1a_cnt_blk = u32::from(ports::ACPI_PM1_CONTROL).into();
    table.pm_tmr_blk = u32::from(ports::ACPI_PM_TIMER).into();
    table.pm1_evt_len = PM1_EVENT_LENGTH;
    table.pm1_cnt_len = PM1_CONTROL_LENGTH;
    table.pm_tmr_len = PM_TIMER_LENGTH;
    table.x_pm1a_evt_blk = port(ports::ACPI_PM1_EVENT, PM1_EVENT_LENGTH, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk =
        port(ports::ACPI_PM1_CONTROL, PM1_CONTROL_LENGTH, AccessSize::WordAccess);
    table.x_pm_tmr_blk = port(ports::ACPI_PM_TIMER, PM_TIMER_LENGTH, AccessSize::DwordAccess);
    table.p_lvl2_lat = NO_C2.into();
    table.p_lvl3_lat = NO_C3.into();

    table.reset_reg = port(ports::RESET, 1, AccessSize::ByteAccess);
    table.reset_value = ports::RESET_VALUE;
    let keyboard = match keyboard {
        Presence::Present => I8042,
        Presence::Absent => 0,
    };
    table.iapc_boot_arch =
        (LEGACY_DEVICES | keyboard | VGA_NOT_PRESENT | PCIE_ASPM_NOT_SUPPORTED).into();
    table.finalize()
}

/// A register of `length` bytes at `port`.
fn port(port: u16, length: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, length * 8, 0, access, u64::from(port))
}
