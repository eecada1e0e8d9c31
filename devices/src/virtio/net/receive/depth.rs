//! How many reads are kept under way.
//!
//! A frame wakes all reads that wait on the tap, and all but one find nothing. So while frames come
//! one by one, few reads wait; when a visit to the kernel brings as many frames as there were reads,
//! there are twice as many for the next.

/// Reads under way while frames come one by one.
const FEWEST: usize = 2;

#[derive(Debug)]
pub(super) struct Depth {
    target: usize,
    most: usize,
}

impl Depth {
    /// At most `most` reads.
    pub(super) fn new(most: usize) -> Self {
        Self { target: FEWEST.min(most), most }
    }

    /// How many reads should be under way.
    pub(super) fn target(&self) -> usize {
        self.target
    }

    /// A visit to the kernel brought so many frames; so many reads still wait.
    pub(super) fn observe(&mut self, frames: usize, waiting: usize) {
        if waiting == 0 {
            self.target = (2 * self.target).min(self.most);
        } else if waiting > frames {
            let fewer = self.target - (self.target / 4).min(waiting - frames);
            self.target = fewer.max(FEWEST.min(self.most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_raise_it_and_single_frames_lower_it() {
        let mut depth = Depth::new(64);
        for _ in 0..10 {
            depth.observe(depth.target(), 0);
        }
        assert_eq!(depth.target(), 64);
        for _ in 0..100 {
            depth.observe(1, depth.target() - 1);
        }
        assert!(depth.target() <= 4, "{depth:?}");
        let mut tiny = Depth::new(1);
        tiny.observe(1, 0);
        tiny.observe(1, 1);
        assert_eq!(tiny.target(), 1);
    }
}
