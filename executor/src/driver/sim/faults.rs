//! What goes wrong in a world, and how often.

use super::numbers::Numbers;

/// How many times in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerMille(pub u16);

impl PerMille {
    pub(super) fn strikes(self, random: &mut Numbers) -> bool {
        self.0 > 0 && random.below(1000) < u64::from(self.0)
    }
}

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A transfer moves fewer bytes than it could.
    pub short: PerMille,
    /// A transfer fails with `EIO`; some of a write may have happened.
    pub io_error: PerMille,
    /// A write or an allocation fails with `ENOSPC`.
    pub no_space: PerMille,
    /// A sync fails with `EIO`. As with Linux, what it should have written counts as clean then, and
    /// no later sync writes it.
    pub sync_error: PerMille,
    /// `EINTR`.
    pub interrupted: PerMille,
    /// `EAGAIN`: from a transfer on the spot, which the page cache cannot serve, and from a socket.
    pub again: PerMille,
    /// An operation takes milliseconds.
    pub slow: PerMille,
    /// Cancelling comes too late: the operation happens, and says so.
    pub uncancelled: PerMille,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Faults {
        short: PerMille(0),
        io_error: PerMille(0),
        no_space: PerMille(0),
        sync_error: PerMille(0),
        interrupted: PerMille(0),
        again: PerMille(0),
        slow: PerMille(0),
        uncancelled: PerMille(0),
    };
}
