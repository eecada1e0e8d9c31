//! A 16550A UART, eight ports.
//!
//! ```text
//!          guest writes THR                        guest reads RBR
//!               │                                        ▲
//!               ▼ (loopback) ───────────────► receive queue (bounded)
//!         OutputBuffer ──► SerialOutput                  ▲
//!                                                Serial::input, says what it took
//! ```
//!
//! Transmission takes no time, so the transmitter is always empty and the line speed means nothing.
//! The interrupt line is edge triggered: an edge for each cause that newly appears.
//!
//! A driver writes the interrupt enable register when it has said what it had to say (Linux restores
//! it after each console write and clears the transmit bit when its buffer is empty), so such a write
//! flushes the output.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::output::{OutputBuffer, SerialOutput};
use crate::bus::BusDevice;
use crate::interrupt::IrqLine;
use crate::sync::Lock;

/// Number of ports.
pub const PORTS: u64 = 8;

/// Received bytes that wait for the guest. More than the FIFO of the chip, so that input comes in
/// larger pieces; what does not fit stays with whoever offers it.
const INPUT_CAPACITY: usize = 256;
/// The FIFO of the chip: drivers measure it in loopback.
const FIFO_BYTES: usize = 16;

// Registers by offset.
const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_ID: u64 = 2;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;
const SCRATCH: u64 = 7;

bitflags::bitflags! {
    /// Causes of interrupts, as in the interrupt enable register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Causes: u8 {
        const RECEIVED = 1;
        const TRANSMITTER_EMPTY = 2;
        const LINE_STATUS = 4;
        const MODEM_STATUS = 8;
    }
}

const IIR_NONE: u8 = 1;
const IIR_FIFO_ENABLED: u8 = 0xc0;
const FCR_ENABLE: u8 = 1;
const FCR_CLEAR_RECEIVER: u8 = 2;
const LCR_DIVISOR_ACCESS: u8 = 0x80;
const MCR_WRITABLE: u8 = 0x1f;
const MCR_LOOPBACK: u8 = 0x10;
const LSR_DATA_READY: u8 = 1;
const LSR_OVERRUN: u8 = 2;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;
/// Clear to send, data set ready, carrier detected: somebody is there.
const MSR_CONNECTED: u8 = 0xb0;

/// What a UART is made of.
pub struct SerialParts {
    /// The interrupt line.
    pub irq: Arc<dyn IrqLine>,
    /// Where the guest's output goes.
    pub output: Box<dyn SerialOutput>,
    /// Called when there is room for input again after [`Serial::input`] took less than all.
    /// Runs on a vCPU thread and must not block.
    pub input_room: Box<dyn Fn() + Send + Sync>,
}

/// A 16550A.
pub struct Serial {
    registers: Lock<Registers>,
    output: OutputBuffer,
    irq: Arc<dyn IrqLine>,
    input_room: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registers.lock().fmt(formatter)
    }
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a latch of the chip")]
struct Registers {
    enabled: Causes,
    /// The transmitter became empty and the driver has not been told.
    transmitter_event: bool,
    /// Causes for which an edge has been sent.
    signalled: Causes,
    fifo: bool,
    line_control: u8,
    modem_control: u8,
    /// Changes of the modem status that the driver has not read.
    modem_changes: u8,
    overrun: bool,
    scratch: u8,
    divisor: [u8; 2],
    received: VecDeque<u8>,
    /// Somebody has input for which there was no room.
    input_waits: bool,
}

/// What is to be done after an access, without the registers' lock.
#[derive(Debug, Default, Clone, Copy)]
struct Effects {
    transmit: Option<u8>,
    flush: bool,
    interrupt: bool,
    input_room: bool,
}

impl Serial {
    /// A UART as after power on.
    pub fn new(parts: SerialParts) -> Serial {
        let SerialParts { irq, output, input_room } = parts;
        Serial {
            registers: Lock::new(Registers::new()),
            output: OutputBuffer::new(output),
            irq,
            input_room,
        }
    }

    /// Offers input. Returns how much of it was taken; when that is less than all,
    /// [`SerialParts::input_room`] is called once the guest has read.
    #[must_use = "what was not taken has to be offered again"]
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut registers = self.registers.lock();
        let room = INPUT_CAPACITY - registers.received.len().min(INPUT_CAPACITY);
        let taken = bytes.len().min(room);
        registers.received.extend(&bytes[..taken]);
        registers.input_waits = taken < bytes.len();
        let interrupt = registers.new_interrupt();
        drop(registers);
        if interrupt {
            self.irq.trigger();
        }
        taken
    }

    /// Whether the driver wants to be told of input.
    pub fn is_listening(&self) -> bool {
        self.registers.lock().enabled.contains(Causes::RECEIVED)
    }

    /// Writes out what the guest has written, as [`SerialOutput::flush_later`] asks for.
    pub fn flush(&self) {
        self.output.flush();
    }

    fn apply(&self, effects: Effects) {
        if let Some(byte) = effects.transmit {
            self.output.push(byte);
        }
        if effects.flush {
            self.output.flush();
        }
        if effects.interrupt {
            self.irq.trigger();
        }
        if effects.input_room {
            (self.input_room)();
        }
    }
}

impl BusDevice for Serial {
    /// Wider accesses reach one register after the other, as on an 8-bit bus.
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (register, byte) in (offset..PORTS).zip(data) {
            let (value, effects) = self.registers.lock().read(register);
            *byte = value;
            self.apply(effects);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        for (register, byte) in (offset..PORTS).zip(data) {
            let effects = self.registers.lock().write(register, *byte);
            self.apply(effects);
        }
    }
}

impl Registers {
    fn new() -> Registers {
        Registers {
            enabled: Causes::empty(),
            transmitter_event: false,
            signalled: Causes::empty(),
            fifo: false,
            // 8 data bits, no parity, 1 stop bit; 9600 baud: as a firmware leaves it.
            line_control: 3,
            modem_control: 0,
            modem_changes: 0,
            overrun: false,
            scratch: 0,
            divisor: [12, 0],
            received: VecDeque::with_capacity(INPUT_CAPACITY),
            input_waits: false,
        }
    }

    fn read(&mut self, register: u64) -> (u8, Effects) {
        let divisor_access = self.line_control & LCR_DIVISOR_ACCESS != 0;
        let value = match register {
            DATA if divisor_access => self.divisor[0],
            INTERRUPT_ENABLE if divisor_access => self.divisor[1],
            DATA => self.received.pop_front().unwrap_or(0),
            INTERRUPT_ENABLE => self.enabled.bits(),
            INTERRUPT_ID => self.identify_interrupt(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => {
                let overrun = if std::mem::take(&mut self.overrun) { LSR_OVERRUN } else { 0 };
                let ready = if self.received.is_empty() { 0 } else { LSR_DATA_READY };
                LSR_TRANSMITTER_EMPTY | overrun | ready
            }
            MODEM_STATUS => self.modem_status() | std::mem::take(&mut self.modem_changes),
            SCRATCH => self.scratch,
            _ => 0xff,
        };
        (value, self.effects())
    }

    fn write(&mut self, register: u64, value: u8) -> Effects {
        let divisor_access = self.line_control & LCR_DIVISOR_ACCESS != 0;
        let mut transmit = None;
        let mut flush = false;
        match register {
            DATA if divisor_access => self.divisor[0] = value,
            INTERRUPT_ENABLE if divisor_access => self.divisor[1] = value,
            DATA => transmit = self.transmit(value),
            INTERRUPT_ENABLE => {
                let enabled = Causes::from_bits_truncate(value);
                // Enabling the interrupt of an empty transmitter is an event by itself.
                self.transmitter_event |=
                    (enabled - self.enabled).contains(Causes::TRANSMITTER_EMPTY);
                self.enabled = enabled;
                flush = true;
            }
            INTERRUPT_ID => {
                let fifo = value & FCR_ENABLE != 0;
                if fifo != self.fifo || value & FCR_CLEAR_RECEIVER != 0 {
                    self.received.clear();
                }
                self.fifo = fifo;
            }
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => {
                let before = self.modem_status();
                self.modem_control = value & MCR_WRITABLE;
                self.modem_changes |= (before ^ self.modem_status()) >> 4;
            }
            SCRATCH => self.scratch = value,
            _ => {}
        }
        Effects { transmit, flush, ..self.effects() }
    }

    /// Returns what leaves the chip.
    fn transmit(&mut self, byte: u8) -> Option<u8> {
        self.transmitter_event = true;
        // The write takes the event back until the byte is gone, which is now: a new edge.
        self.signalled -= Causes::TRANSMITTER_EMPTY;
        if self.modem_control & MCR_LOOPBACK == 0 {
            return Some(byte);
        }
        if self.received.len() < FIFO_BYTES {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
        None
    }

    /// In loopback the outputs of the modem control are its inputs.
    fn modem_status(&self) -> u8 {
        if self.modem_control & MCR_LOOPBACK == 0 {
            return MSR_CONNECTED;
        }
        let control = self.modem_control;
        let bit = |from: u8, to: u8| (control >> from & 1) << to;
        // RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
        bit(1, 4) | bit(0, 5) | bit(2, 6) | bit(3, 7)
    }

    fn pending(&self) -> Causes {
        let mut causes = Causes::empty();
        causes.set(Causes::RECEIVED, !self.received.is_empty());
        causes.set(Causes::TRANSMITTER_EMPTY, self.transmitter_event);
        causes.set(Causes::LINE_STATUS, self.overrun);
        causes.set(Causes::MODEM_STATUS, self.modem_changes != 0);
        causes & self.enabled
    }

    /// Causes in the order of their priority. Reading that the transmitter is empty ends that.
    fn identify_interrupt(&mut self) -> u8 {
        let pending = self.pending();
        let id = if pending.contains(Causes::LINE_STATUS) {
            6
        } else if pending.contains(Causes::RECEIVED) {
            4
        } else if pending.contains(Causes::TRANSMITTER_EMPTY) {
            self.transmitter_event = false;
            2
        } else if pending.contains(Causes::MODEM_STATUS) {
            0
        } else {
            IIR_NONE
        };
        if self.fifo { id | IIR_FIFO_ENABLED } else { id }
    }

    /// Whether a cause is there that was not there before.
    fn new_interrupt(&mut self) -> bool {
        let pending = self.pending();
        let new = pending - self.signalled;
        self.signalled = pending;
        !new.is_empty()
    }

    fn effects(&mut self) -> Effects {
        let input_room = self.input_waits && self.received.len() <= INPUT_CAPACITY / 2;
        if input_room {
            self.input_waits = false;
        }
        Effects { interrupt: self.new_interrupt(), input_room, ..Effects::default() }
    }
}

#[cfg(test)]
mod tests;
