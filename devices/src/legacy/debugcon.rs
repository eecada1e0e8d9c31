//! The debug console: a port whose every written byte is a character, for code that runs before it
//! has a driver for anything.

use super::output::{OutputBuffer, SerialOutput};
use crate::bus::BusDevice;

/// What the port reads as when the console is there.
const PRESENT: u8 = 0xe9;

/// The debug console.
pub struct Debugcon {
    output: OutputBuffer,
}

impl std::fmt::Debug for Debugcon {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Debugcon").finish_non_exhaustive()
    }
}

impl Debugcon {
    /// A console that writes to `output`.
    pub fn new(output: Box<dyn SerialOutput>) -> Debugcon {
        Debugcon { output: OutputBuffer::new(output) }
    }

    /// Writes out what the guest has written, as [`SerialOutput::flush_later`] asks for.
    pub fn flush(&self) {
        self.output.flush();
    }
}

impl BusDevice for Debugcon {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = PRESENT;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        for byte in data {
            self.output.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Recorder;
    use super::*;

    #[test]
    fn bytes_become_lines() {
        let recorder = Recorder::default();
        let console = Debugcon::new(Box::new(recorder.clone()));
        let mut present = [0];
        console.read(0, &mut present);
        assert_eq!(present, [0xe9]);
        b"hi\n!".iter().for_each(|byte| console.write(0, &[*byte]));
        assert_eq!(recorder.take(), b"hi\n");
        console.flush();
        assert_eq!(recorder.take(), b"!");
    }
}
