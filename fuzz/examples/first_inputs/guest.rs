//! An input for a device, as `src/guest.rs` reads it.

/// Rings of one of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rings {
    Split,
    Packed,
}

/// What the driver, and others, do in turn.
#[derive(Debug, Clone)]
pub(crate) struct Guest(Vec<u8>);

impl Guest {
    /// A driver that accepts all features.
    pub(crate) fn new(rings: Rings) -> Self {
        Self::in_world(1, rings)
    }

    /// The same; the first byte of an input may mean more to a target.
    pub(crate) fn in_world(world: u8, rings: Rings) -> Self {
        Self(vec![world, 0, u8::from(rings == Rings::Packed), 0])
    }

    /// One that does without some.
    pub(crate) fn without(rings: Rings, features: u64) -> Self {
        let features = features.to_le_bytes();
        Self([&[1, 3], &features[..], &[u8::from(rings == Rings::Packed), 0]].concat())
    }

    /// A chain: what the device reads, and places for so many bytes that it writes.
    pub(crate) fn chain(self, queue: u8, readable: &[&[u8]], writable: &[u16]) -> Self {
        self.send(queue, 0, readable, writable)
    }

    /// The same in an indirect table.
    pub(crate) fn indirect(self, queue: u8, readable: &[&[u8]], writable: &[u16]) -> Self {
        self.send(queue, 0x20, readable, writable)
    }

    /// The same, but the device is told of it with the next chain only.
    pub(crate) fn silent(self, queue: u8, readable: &[&[u8]], writable: &[u16]) -> Self {
        self.send(queue, 0x40, readable, writable)
    }

    fn send(mut self, queue: u8, manner: u8, readable: &[&[u8]], writable: &[u16]) -> Self {
        let count = readable.len() + writable.len();
        assert!((1..=4).contains(&count), "a chain has up to four buffers");
        self.0.extend([0, queue, manner | (count - 1) as u8]);
        for bytes in readable {
            match bytes.len() {
                0..=255 => self.0.extend([0x48, bytes.len() as u8]),
                512 => self.0.push(0x46),
                4096 => self.0.push(0x44),
                length => self.0.extend([&[0x42], &(length as u16).to_le_bytes()[..]].concat()),
            }
            // The rest of a long one is whatever is there.
            self.0.extend(&bytes[..bytes.len().min(512)]);
        }
        for length in writable {
            match length {
                0..=255 => self.0.extend([0x49, *length as u8]),
                512 => self.0.push(0x47),
                4096 => self.0.push(0x45),
                _ => self.0.extend([&[0x43], &length.to_le_bytes()[..]].concat()),
            }
        }
        self
    }

    /// A chain whose buffer lies nowhere.
    pub(crate) fn nowhere(mut self, queue: u8, length: u8, is_written: u8) -> Self {
        self.0.extend([0, queue, 0, 8 | is_written]);
        self.0.extend((1_u64 << 50).to_le_bytes());
        self.0.push(length);
        self
    }

    /// A header, data that lies nowhere, and a status.
    pub(crate) fn without_memory(mut self, queue: u8, header: &[u8]) -> Self {
        self.0.extend([0, queue, 2, 0x48, header.len() as u8]);
        self.0.extend(header);
        self.0.push(7);
        self.0.extend((1_u64 << 50).to_le_bytes());
        self.0.extend([0x49, 1]);
        self
    }

    pub(crate) fn die(self) -> Self {
        self.bytes(&[7])
    }

    /// Bytes into the rings of a queue: 0 descriptors, 1 available, 2 used.
    pub(crate) fn spoil(self, queue: u8, ring: u8, at: u8, bytes: &[u8]) -> Self {
        self.bytes(&[8, queue, ring, at, bytes.len() as u8]).bytes(bytes)
    }

    pub(crate) fn reset(self) -> Self {
        self.bytes(&[9, 0])
    }

    pub(crate) fn pause(self) -> Self {
        self.bytes(&[10])
    }

    pub(crate) fn write_config(self, offset: u8, bytes: &[u8]) -> Self {
        self.bytes(&[11, offset, bytes.len() as u8]).bytes(bytes)
    }

    pub(crate) fn ask_for_statistics(self) -> Self {
        self.control(&[0])
    }

    /// What an operator asks for.
    pub(crate) fn control(self, request: &[u8]) -> Self {
        self.bytes(&[13]).bytes(request)
    }

    /// What the other side of the device reads of the input.
    pub(crate) fn outside(self, bytes: &[u8]) -> Self {
        self.bytes(&[14]).bytes(bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn input(self) -> Vec<u8> {
        self.0
    }

    /// With what the target reads before.
    pub(crate) fn input_behind(self, first: u8) -> Vec<u8> {
        [vec![first], self.0].concat()
    }
}
