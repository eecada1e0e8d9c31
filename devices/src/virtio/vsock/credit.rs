//! Credit: how much each side may send before the other has to say that it took it (virtio 1.3
//! section 5.10.6.3).
//!
//! ```text
//!   to the guest:    may send = buf_alloc of the guest - (sent - fwd_cnt of the guest)
//!   from the guest:  it may send until our buffer is full; fwd_cnt says what has left it
//! ```

use crate::simulation::{Bug, is_planted};

/// The counters of one connection. All of them wrap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    /// What the guest said last.
    guest_buffer: u32,
    guest_forwarded: u32,
    /// Bytes that were sent to the guest.
    sent: u32,
    /// Our buffer for what comes from the guest.
    buffer: u32,
    /// Bytes from the guest that have left our buffer.
    forwarded: u32,
    /// What the guest was told of that.
    told: u32,
}

/// Where what has arrived ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Anywhere in a stream, or behind a message.
    Anywhere,
    /// Within a message.
    MidMessage,
}

/// A guest says that it took more than it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lie;

impl Credit {
    pub(super) fn new(buffer: u32) -> Self {
        Self { guest_buffer: 0, guest_forwarded: 0, sent: 0, buffer, forwarded: 0, told: 0 }
    }

    /// The guest said how it stands.
    pub(super) fn heard(&mut self, buffer: u32, forwarded: u32) -> Result<(), Lie> {
        // What is under way is what was sent and not taken: less than half of the counter's range.
        if self.sent.wrapping_sub(forwarded) > u32::MAX / 2 {
            return Err(Lie);
        }
        (self.guest_buffer, self.guest_forwarded) = (buffer, forwarded);
        Ok(())
    }

    /// Bytes that may be sent to the guest.
    pub(super) fn room(&self) -> u32 {
        // A guest may make its buffer smaller than what is under way. No more than half the
        // counter's range may ever be.
        let mut buffer = self.guest_buffer.min(u32::MAX / 2);
        if is_planted(Bug::CreditOverflow) {
            buffer += 64;
        }
        buffer.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// The longest message that the guest could ever take.
    pub(super) fn guest_buffer(&self) -> u32 {
        self.guest_buffer
    }

    /// What may wait for the host.
    pub(super) fn buffer(&self) -> u32 {
        self.buffer
    }

    pub(super) fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// So many bytes have left our buffer.
    pub(super) fn forwarded(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Whether the guest should hear of it now: often enough for it to go on, and seldom enough for
    /// bulk data to cost few packets.
    ///
    /// The part of a message that has arrived stays until the rest comes, for which the guest needs
    /// all the room that there is.
    pub(super) fn is_stale(&self, end: End) -> bool {
        let untold = self.forwarded.wrapping_sub(self.told);
        untold >= self.buffer / 2 || end == End::MidMessage && untold > 0
    }

    /// What the next packet says: our buffer, and what has left it.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (self.buffer, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn room_is_what_the_guest_has_not_filled() {
        let mut credit = Credit::new(100);
        assert_eq!(credit.room(), 0);
        credit.heard(50, 0).unwrap();
        credit.sent(30);
        assert_eq!(credit.room(), 20);
        credit.heard(50, 30).unwrap();
        assert_eq!(credit.room(), 50);
        credit.sent(40);
        credit.heard(10, 30).unwrap();
        assert_eq!(credit.room(), 0);
    }

    #[test]
    fn a_guest_cannot_have_taken_what_it_did_not_get() {
        let mut credit = Credit::new(100);
        credit.sent(10);
        assert_eq!(credit.heard(50, 11), Err(Lie));
        assert_eq!(credit.heard(50, 10), Ok(()));
    }

    #[test]
    fn the_guest_hears_when_half_of_the_buffer_is_free_again() {
        let mut credit = Credit::new(100);
        credit.forwarded(49);
        assert!(!credit.is_stale(End::Anywhere));
        credit.forwarded(1);
        assert!(credit.is_stale(End::Anywhere));
        assert_eq!(credit.tell(), (100, 50));
        assert!(!credit.is_stale(End::Anywhere));
    }

    #[test]
    fn a_guest_within_a_message_hears_of_all_room() {
        let mut credit = Credit::new(100);
        assert!(!credit.is_stale(End::MidMessage));
        credit.forwarded(1);
        assert!(credit.is_stale(End::MidMessage));
    }

    proptest! {
        #[test]
        fn counters_wrap(start: u32, sent in 0u32..1 << 20, buffer: u32) {
            let mut credit = Credit::new(1);
            (credit.sent, credit.guest_forwarded) = (start, start);
            credit.heard(buffer, start).unwrap();
            credit.sent(sent.min(credit.room()));
            prop_assert!(credit.heard(buffer, start.wrapping_add(sent.min(credit.room()))).is_ok()
                || sent.min(credit.room()) > 0);
            prop_assert!(credit.room() <= buffer);
        }
    }
}
