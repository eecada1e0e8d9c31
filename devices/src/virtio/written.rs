//! What a driver wrote to the configuration space since its reset: a successor of the back end is told.

/// Writes that are kept: more than any device has writable fields.
const MOST: usize = 16;

/// Writes by offset, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<(u32, Vec<u8>)>);

impl Written {
    /// The driver wrote once more, and what was there before is of no interest.
    pub(super) fn remember(&mut self, offset: u32, data: &[u8]) {
        self.0.retain(|(known, _)| *known != offset);
        if self.0.len() < MOST {
            self.0.push((offset, data.to_vec()));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Vec<u8>)> {
        self.0.iter().cloned()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_counts_and_endless_offsets_do_not_fill_memory() {
        let mut written = Written::default();
        for offset in [4, 8, 4] {
            written.remember(offset, &[offset as u8]);
        }
        written.remember(4, &[7]);
        assert_eq!(written.iter().collect::<Vec<_>>(), [(8, vec![8]), (4, vec![7])]);
        for offset in 100..1000 {
            written.remember(offset, &[0]);
        }
        assert_eq!(written.iter().count(), MOST);
        written.clear();
        assert_eq!(written.iter().count(), 0);
    }
}
