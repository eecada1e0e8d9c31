//! The local APIC, in xAPIC mode: start-up of other processors, and a timer to halt with.

use super::{
    exceptions::{SPURIOUS_VECTOR, TIMER_VECTOR},
    mmio::Window,
    services,
};

/// Where it is unless the MADT says otherwise.
pub(crate) const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

const REGISTERS_BYTES: u64 = 4096;
const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const SPURIOUS_ENABLE: u32 = 1 << 8;
const REQUESTED: u64 = 0x200;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const LINE0: u64 = 0x350;
const LINE0_MASKED: u32 = 1 << 16;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;
const TIMER_DIVIDE_BY_1: u32 = 0b1011;

const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

pub(crate) struct LocalApic(Window);

impl LocalApic {
    /// Enables the local APIC of this processor, and cuts off the 8259 interrupt controllers: what
    /// firmware left running there would arrive as an exception.
    pub(crate) fn enable(address: u64) -> Option<Self> {
        let registers = Window::device(address, REGISTERS_BYTES)?;
        registers.write(SPURIOUS, SPURIOUS_ENABLE | u32::from(SPURIOUS_VECTOR));
        registers.write(LINE0, LINE0_MASKED);
        registers.write(TIMER_DIVIDE, TIMER_DIVIDE_BY_1);
        registers.write(TIMER, u32::from(TIMER_VECTOR)); // one shot
        Some(Self(registers))
    }

    pub(crate) fn id(&self) -> u8 {
        (self.0.read::<u32>(ID) >> 24) as u8
    }

    /// INIT, then start-up at `page` (of 4 KiB, below 1 MiB).
    pub(crate) fn start(&self, id: u8, page: u8) {
        for command in [INIT, STARTUP | u32::from(page)] {
            self.0.write(COMMAND_HIGH, u32::from(id) << 24);
            self.0.write(COMMAND_LOW, command);
        }
    }

    /// Starts the timer. In a virtual machine a count takes a nanosecond.
    pub(crate) fn arm_timer(&self, counts: u32) {
        self.0.write(TIMER_INITIAL, counts);
    }

    /// Whether the timer's interrupt waits to be taken.
    pub(crate) fn timer_fired(&self) -> bool {
        let register = REQUESTED + u64::from(TIMER_VECTOR / 32) * 16;
        self.0.read::<u32>(register) >> (TIMER_VECTOR % 32) & 1 == 1
    }

    /// Halts until the timer's interrupt, and is done with it. The timer is known to work.
    pub(crate) fn halt(&self) {
        services::halt();
        self.0.write(END_OF_INTERRUPT, 0u32);
    }
}
