//! Characters that the guest writes one by one, gathered so that a line costs one system call.
//!
//! ```text
//!   vCPU ── push ──► pending ── newline, full, flush() ──► SerialOutput::write
//!                       └── first byte of a line ──► SerialOutput::flush_later
//! ```

use crate::sync::Lock;

/// Bytes to gather at most: longer than any line of a console.
const CAPACITY: usize = 4096;

/// Where the characters go.
pub trait SerialOutput: Send + Sync {
    /// Takes characters. When this blocks, the guest's vCPU waits.
    fn write(&self, bytes: &[u8]);
    /// Characters wait for the end of their line: arrange that `flush` of the device is called soon,
    /// some milliseconds from now. Called at most once until the next `write`; must not block.
    fn flush_later(&self);
}

/// Gathers characters for a [`SerialOutput`].
pub(super) struct OutputBuffer {
    output: Box<dyn SerialOutput>,
    /// Never held while the output is called, so that who only pushes does not wait for it.
    pending: Lock<Vec<u8>>,
    /// Held while the output writes, which keeps the order. An empty vector to swap with.
    writing: Lock<Vec<u8>>,
}

impl OutputBuffer {
    pub(super) fn new(output: Box<dyn SerialOutput>) -> OutputBuffer {
        let buffer = || Lock::new(Vec::with_capacity(CAPACITY));
        OutputBuffer { output, pending: buffer(), writing: buffer() }
    }

    pub(super) fn push(&self, byte: u8) {
        let mut pending = self.pending.lock();
        // Another vCPU is in the output: wait for it, which bounds what is pending.
        while pending.len() >= CAPACITY {
            drop(pending);
            drop(self.writing.lock());
            self.flush();
            pending = self.pending.lock();
        }
        pending.push(byte);
        let (first, full) = (pending.len() == 1, pending.len() == CAPACITY);
        drop(pending);
        if byte == b'\n' || full {
            self.flush();
        } else if first {
            self.output.flush_later();
        }
    }

    /// Writes out what is pending.
    /// Writes out what is pending. Does not wait for another thread that is in the output: that one
    /// looks again when it has written. So the output's own thread may call this while a vCPU waits
    /// for it.
    pub(super) fn flush(&self) {
        while !self.pending.lock().is_empty() {
            let Some(mut bytes) = self.writing.try_lock() else { return };
            std::mem::swap(&mut *bytes, &mut *self.pending.lock());
            if !bytes.is_empty() {
                self.output.write(&bytes);
                bytes.clear();
            }
        }
    }
}

impl Drop for OutputBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// An output that records each write.
    #[derive(Default, Clone)]
    pub(in super::super) struct Recorder {
        pub(in super::super) writes: Arc<Lock<Vec<Vec<u8>>>>,
        pub(in super::super) requests: Arc<Lock<u32>>,
    }

    impl Recorder {
        /// Everything since the last call.
        pub(in super::super) fn take(&self) -> Vec<u8> {
            self.writes.lock().drain(..).flatten().collect()
        }
    }

    impl SerialOutput for Recorder {
        fn write(&self, bytes: &[u8]) {
            self.writes.lock().push(bytes.to_vec());
        }
        fn flush_later(&self) {
            *self.requests.lock() += 1;
        }
    }

    #[test]
    fn a_line_is_one_write() {
        let recorder = Recorder::default();
        let buffer = OutputBuffer::new(Box::new(recorder.clone()));
        b"hello\nworld".iter().for_each(|byte| buffer.push(*byte));
        assert_eq!(*recorder.writes.lock(), [b"hello\n".to_vec()]);
        assert_eq!(*recorder.requests.lock(), 2, "one for each line begun");
        buffer.flush();
        buffer.flush();
        assert_eq!(*recorder.writes.lock(), [b"hello\n".to_vec(), b"world".to_vec()]);
    }

    #[test]
    fn what_is_pending_is_bounded_and_not_lost() {
        let recorder = Recorder::default();
        let buffer = OutputBuffer::new(Box::new(recorder.clone()));
        (0..=CAPACITY).for_each(|_| buffer.push(b'x'));
        assert_eq!(recorder.writes.lock().iter().map(Vec::len).collect::<Vec<_>>(), [CAPACITY]);
        drop(buffer);
        assert_eq!(recorder.take().len(), CAPACITY + 1);
    }
}
