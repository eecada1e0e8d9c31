//! What a front end says of the rings, one thing at a time.

use std::io;
use std::os::fd::OwnedFd;

use crate::virtio::backend::{QueueSetup, QueueState, RingLayout, RingPosition};

/// Where a ring lies, in the guest's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A ring, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) size: u16,
    pub(super) place: Option<Place>,
    /// Where it stands, in the protocol's form; none before a driver was served at it.
    pub(super) base: Option<u32>,
    /// Where it stood when the front end stopped it, until it says where it is to begin.
    pub(super) stopped_at: Option<u32>,
    pub(super) kick: Option<OwnedFd>,
    pub(super) call: Option<OwnedFd>,
    pub(super) enabled: bool,
}

/// What becomes of buffers that were taken, and not used, when a ring begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// They are in the record, and come first.
    Kept,
    /// They are of another driver, or somebody else has seen to them.
    Void,
}

impl Ring {
    /// The front end stops it; gives where it stands.
    pub(super) fn stop(&mut self, layout: RingLayout) -> u32 {
        self.kick = None;
        let base = self.base.unwrap_or(match layout {
            RingLayout::Split => 0,
            RingLayout::Packed => 0x8000_8000,
        });
        self.stopped_at = Some(base);
        base
    }

    /// The front end says where it is to begin: at the beginning there is a driver that was not served yet.
    pub(super) fn begin_at(&mut self, base: u32, layout: RingLayout) -> Taken {
        let beginning = position(base, layout).is_beginning();
        self.base = (!beginning).then_some(base);
        match self.stopped_at.take() {
            Some(stood) if beginning || stood != base => Taken::Void,
            _ => Taken::Kept,
        }
    }

    /// Whether it is to be served.
    pub(super) fn is_wanted(&self) -> bool {
        self.enabled && self.kick.is_some() && self.place.is_some()
    }

    /// What a back end has to know; none if the ring is not to be served.
    pub(super) fn setup(&self, index: u16, layout: RingLayout) -> io::Result<Option<QueueSetup>> {
        let (Some(place), Some(kick), true) = (self.place, &self.kick, self.enabled) else {
            return Ok(None);
        };
        let call = self.call.as_ref().map(OwnedFd::try_clone).transpose()?;
        let state = self.base.map(|base| QueueState { index, position: position(base, layout) });
        Ok(Some(QueueSetup {
            index,
            size: self.size,
            descriptor_table: place.descriptors,
            available_ring: place.available,
            used_ring: place.used,
            kick: kick.try_clone()?.into(),
            call: call.map(Into::into),
            layout,
            state,
        }))
    }
}

/// A split ring is drained when it stops, so that one number says it all. A packed one has its used
/// position in the upper half.
fn position(base: u32, layout: RingLayout) -> RingPosition {
    let next_available = base as u16;
    match layout {
        RingLayout::Split => RingPosition::Split { next_available, next_used: next_available },
        RingLayout::Packed => {
            RingPosition::Packed { next_available, next_used: (base >> 16) as u16 }
        }
    }
}

/// The protocol's form of a position.
pub(super) fn base(position: RingPosition) -> u32 {
    match position {
        RingPosition::Split { next_available, .. } => next_available.into(),
        RingPosition::Packed { next_available, next_used } => {
            u32::from(next_available) | u32::from(next_used) << 16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_as_they_were() {
        let split = RingPosition::Split { next_available: 0xfffe, next_used: 0xfffe };
        assert_eq!(base(split), 0xfffe);
        assert_eq!(position(0xfffe, RingLayout::Split), split);
        let packed = RingPosition::Packed { next_available: 0x8003, next_used: 0x7f };
        assert_eq!(base(packed), 0x007f_8003);
        assert_eq!(position(0x007f_8003, RingLayout::Packed), packed);
    }

    #[test]
    fn what_was_taken_is_kept_where_a_ring_goes_on() {
        let layout = RingLayout::Split;
        let mut ring = Ring::default();
        assert_eq!((ring.begin_at(0, layout), ring.base), (Taken::Kept, None), "a first time");
        assert_eq!((ring.begin_at(7, layout), ring.base), (Taken::Kept, Some(7)), "a successor");
        assert_eq!(ring.stop(layout), 7);
        assert_eq!((ring.begin_at(7, layout), ring.base), (Taken::Kept, Some(7)), "goes on");
        assert_eq!(ring.stop(layout), 7);
        assert_eq!((ring.begin_at(5, layout), ring.base), (Taken::Void, Some(5)), "elsewhere");
        assert_eq!(ring.stop(layout), 5);
        assert_eq!((ring.begin_at(0, layout), ring.base), (Taken::Void, None), "another driver");
        assert_eq!(ring.stop(layout), 0);
        assert_eq!((ring.begin_at(0, layout), ring.base), (Taken::Void, None), "and another");
    }

    #[test]
    fn a_ring_that_nobody_was_served_at_stands_at_the_beginning() {
        for layout in [RingLayout::Split, RingLayout::Packed] {
            let mut ring = Ring::default();
            let base = ring.stop(layout);
            assert!(position(base, layout).is_beginning(), "{layout:?}: {base:#x}");
            assert_eq!((ring.begin_at(base, layout), ring.base), (Taken::Void, None), "{layout:?}");
            assert_eq!(ring.stop(layout), base, "{layout:?}");
        }
    }
}
