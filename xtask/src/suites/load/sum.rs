//! A hash of a stream that does not depend on how it was cut.

#[derive(Default)]
pub struct Sum {
    hash: u64,
    partial: u64,
    pub bytes: u64,
}

impl Sum {
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let offset = (self.bytes % 8) as u32;
            if offset == 0 && bytes.len() >= 8 {
                let (words, rest) = bytes.as_chunks::<8>();
                for word in words {
                    self.word(u64::from_le_bytes(*word));
                }
                self.bytes += 8 * words.len() as u64;
                bytes = rest;
                continue;
            }
            self.partial |= u64::from(bytes[0]) << (8 * offset);
            self.bytes += 1;
            bytes = &bytes[1..];
            if offset == 7 {
                let word = std::mem::take(&mut self.partial);
                self.word(word);
            }
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub fn value(&self) -> u64 {
        self.hash ^ self.partial
    }
}
