//! The serial line, COM1. An exit for each byte, so lines are short and the transmitter is not
//! polled. Without the heap: the message may be that there is none.
//!
//! Registers are those of the 16550 (PC16550D data sheet, section 8).

use core::fmt::{self, Write};

use super::ports;

/// The transmitter, and what was received.
const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const LINE_STATUS_DATA_READY: u8 = 1 << 0;

/// Writes one line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut buffer = Buffer { bytes: [0; 512], filled: 0 };
    // Writing to the buffer does not fail.
    let _ = writeln!(buffer, "{text}");
    buffer.flush();
}

/// What was typed next, if anything was.
pub(crate) fn typed() -> Option<u8> {
    let ready = ports::read_u8(LINE_STATUS) & LINE_STATUS_DATA_READY != 0;
    ready.then(|| ports::read_u8(COM1))
}

struct Buffer {
    bytes: [u8; 512],
    filled: usize,
}

impl Buffer {
    fn flush(&mut self) {
        ports::write_bytes(COM1, &self.bytes[..self.filled]);
        self.filled = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.filled == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.filled] = byte;
            self.filled += 1;
        }
        Ok(())
    }
}
