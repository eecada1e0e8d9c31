//! The keyboard controller, of which nothing is left but its command port: guests reset the machine
//! through it, and some ask for the controller's state before they do.
//!
//! There is neither a keyboard nor a mouse. Each command that has an answer is answered at once,
//! since Linux polls 50,000 times for an answer that does not come.

use std::sync::Arc;

use super::{MachineEvent, MachineEvents};
use crate::bus::BusDevice;
use crate::sync::Lock;

// Status register.
const STATUS_OUTPUT_FULL: u8 = 1;
const STATUS_SELF_TEST_PASSED: u8 = 4;
const STATUS_COMMAND: u8 = 8;
const STATUS_UNLOCKED: u8 = 0x10;

/// Controller command byte after power on: translation, self test passed, both devices disabled.
const COMMAND_BYTE: u8 = 0x74;
const COMMAND_BYTE_FIRST: u8 = 0x20;
const COMMAND_BYTE_LAST: u8 = 0x3f;
/// Output port: the CPU is not in reset, the A20 gate is open.
const OUTPUT_PORT: u8 = 0xcf;
/// Output port bit 0 low resets the machine.
const OUTPUT_PORT_RUNNING: u8 = 1;
const SELF_TEST_PASSED: u8 = 0x55;
/// Test result of a port with nothing behind it: the clock line is stuck high.
const TEST_FAILED: u8 = 2;

/// What a byte for the data port means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// It is for the keyboard.
    Keyboard,
    /// It is for the controller's memory.
    Memory(u8),
    /// It is the output port.
    OutputPort,
    /// It comes back as if the keyboard had sent it.
    Echo,
    /// It is for a mouse.
    Nobody,
}

/// The keyboard controller.
pub struct I8042 {
    state: Lock<State>,
    events: Arc<dyn MachineEvents>,
}

#[derive(Debug)]
struct State {
    memory: [u8; 32],
    /// The byte in the output buffer.
    output: Option<u8>,
    expect: Expect,
    last_was_command: bool,
}

impl std::fmt::Debug for I8042 {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.lock().fmt(formatter)
    }
}

impl I8042 {
    /// A controller as after power on.
    pub fn new(events: Arc<dyn MachineEvents>) -> Arc<I8042> {
        let mut memory = [0; 32];
        memory[0] = COMMAND_BYTE;
        let state =
            State { memory, output: None, expect: Expect::Keyboard, last_was_command: false };
        Arc::new(I8042 { state: Lock::new(state), events })
    }

    /// The device for port 0x60.
    pub fn data_port(self: &Arc<I8042>) -> Arc<dyn BusDevice> {
        Arc::new(DataPort(self.clone()))
    }

    /// The device for port 0x64.
    pub fn command_port(self: &Arc<I8042>) -> Arc<dyn BusDevice> {
        Arc::new(CommandPort(self.clone()))
    }

    fn command(&self, command: u8) {
        let mut state = self.state.lock();
        state.last_was_command = true;
        state.expect = Expect::Keyboard;
        match command {
            COMMAND_BYTE_FIRST..=COMMAND_BYTE_LAST => {
                state.output = Some(state.memory[usize::from(command & 0x1f)]);
            }
            0x60..=0x7f => state.expect = Expect::Memory(command & 0x1f),
            0xa9 | 0xab => state.output = Some(TEST_FAILED),
            0xaa => state.output = Some(SELF_TEST_PASSED),
            // Enabling and disabling: bits of the command byte.
            0xa7 => state.memory[0] |= 0x20,
            0xa8 => state.memory[0] &= !0x20,
            0xad => state.memory[0] |= 0x10,
            0xae => state.memory[0] &= !0x10,
            // The input port.
            0xc0 => state.output = Some(0xff),
            0xd0 => state.output = Some(OUTPUT_PORT),
            0xd1 => state.expect = Expect::OutputPort,
            // Without the mark of the second port, so that nobody takes it for a mouse.
            0xd2 | 0xd3 => state.expect = Expect::Echo,
            0xd4 => state.expect = Expect::Nobody,
            // Pulses of output lines; the lowest bit is the reset line, low when clear.
            0xf0..=0xff if command & OUTPUT_PORT_RUNNING == 0 => {
                drop(state);
                self.events.report(MachineEvent::Reset);
            }
            _ => {}
        }
    }

    fn data(&self, value: u8) {
        let mut state = self.state.lock();
        state.last_was_command = false;
        match std::mem::replace(&mut state.expect, Expect::Keyboard) {
            Expect::Memory(index) => state.memory[usize::from(index)] = value,
            Expect::Echo => state.output = Some(value),
            Expect::OutputPort if value & OUTPUT_PORT_RUNNING == 0 => {
                drop(state);
                self.events.report(MachineEvent::Reset);
            }
            Expect::OutputPort | Expect::Keyboard | Expect::Nobody => {}
        }
    }
}

struct DataPort(Arc<I8042>);

impl BusDevice for DataPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.0.state.lock().output.take().unwrap_or(0);
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(byte) = data.first() {
            self.0.data(*byte);
        }
    }
}

struct CommandPort(Arc<I8042>);

impl BusDevice for CommandPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        let Some(byte) = data.first_mut() else { return };
        let state = self.0.state.lock();
        *byte = STATUS_SELF_TEST_PASSED | STATUS_UNLOCKED;
        if state.output.is_some() {
            *byte |= STATUS_OUTPUT_FULL;
        }
        if state.last_was_command {
            *byte |= STATUS_COMMAND;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(byte) = data.first() {
            self.0.command(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::MockEvents;

    struct Bed {
        data: Arc<dyn BusDevice>,
        command: Arc<dyn BusDevice>,
        events: Arc<MockEvents>,
    }

    fn bed() -> Bed {
        let events = Arc::new(MockEvents::default());
        let controller = I8042::new(events.clone());
        Bed { data: controller.data_port(), command: controller.command_port(), events }
    }

    fn read(port: &Arc<dyn BusDevice>) -> u8 {
        let mut data = [0];
        port.read(0, &mut data);
        data[0]
    }

    #[test]
    fn commands_with_an_answer_have_it_at_once() {
        let bed = bed();
        for (command, answer) in [(0x20, 0x74), (0xaa, 0x55), (0xa9, 2), (0xab, 2), (0xd0, 0xcf)] {
            assert_eq!(read(&bed.command) & 1, 0);
            bed.command.write(0, &[command]);
            assert_eq!(read(&bed.command) & 0x23, 1, "{command:#x}: full, not busy, no mouse");
            assert_eq!(read(&bed.data), answer, "{command:#x}");
        }
    }

    #[test]
    fn the_command_byte_reads_back_and_the_loop_echoes() {
        let bed = bed();
        bed.command.write(0, &[0x60]);
        bed.data.write(0, &[0x47]);
        bed.command.write(0, &[0x20]);
        assert_eq!(read(&bed.data), 0x47);
        bed.command.write(0, &[0xd3]);
        bed.data.write(0, &[0x5a]);
        assert_eq!((read(&bed.command) & 0x21, read(&bed.data)), (1, 0x5a));
        bed.data.write(0, &[0xf2]);
        assert_eq!(read(&bed.command) & 1, 0, "no keyboard answers");
    }

    #[test]
    fn both_ways_to_pull_the_reset_line_reset() {
        let bed = bed();
        bed.command.write(0, &[0xfe]);
        assert_eq!(bed.events.take(), [MachineEvent::Reset]);
        bed.command.write(0, &[0xd1]);
        bed.data.write(0, &[0xfe]);
        assert_eq!(bed.events.take(), [MachineEvent::Reset]);
        bed.command.write(0, &[0xff]);
        bed.command.write(0, &[0xd1]);
        bed.data.write(0, &[0xdf]);
        bed.data.write(0, &[0xfe]);
        assert_eq!(bed.events.take(), []);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(
            steps in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 0..9)), 1..100)
        ) {
            let bed = bed();
            for (kind, mut data) in steps {
                let port = if kind & 1 == 0 { &bed.data } else { &bed.command };
                if kind & 2 == 0 {
                    port.read(0, &mut data);
                } else {
                    port.write(0, &data);
                }
            }
        }
    }
}
