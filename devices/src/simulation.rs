//! What simulations do to devices beyond the world around them: others run between any two stores to
//! shared memory, and known bugs are planted to see whether they are found.
//!
//! Without the feature `sim`, which no normal build has, nothing happens here.

#[cfg(feature = "sim")]
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A queue goes to sleep without a second look after it asked for kicks.
    LostWakeUp,
    /// The used index of a split ring is there before the element.
    MissingBarrier,
    /// A flush of a disk is done before what it flushes lasts.
    FlushOrder,
    /// A flush of a busy disk is given back twice.
    DoubleCompletion,
    /// An indirect table is taken for one entry longer than it is.
    IndirectTable,
    /// The record of what is in flight outlives a reset.
    RecordKept,
    /// A vsock sends more than the driver has room for.
    CreditOverflow,
    /// A successor takes up a split ring where the buffers were used, not where they were taken.
    StaleIndex,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LostWakeUp,
        Self::MissingBarrier,
        Self::FlushOrder,
        Self::DoubleCompletion,
        Self::IndirectTable,
        Self::RecordKept,
        Self::CreditOverflow,
        Self::StaleIndex,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostWakeUp => "lost-wake-up",
            Self::MissingBarrier => "missing-barrier",
            Self::FlushOrder => "flush-order",
            Self::DoubleCompletion => "double-completion",
            Self::IndirectTable => "indirect-table",
            Self::RecordKept => "record-kept",
            Self::CreditOverflow => "credit-overflow",
            Self::StaleIndex => "stale-index",
        }
    }
}

#[cfg(feature = "sim")]
thread_local! {
    static HOOK: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether anything of this is there.
pub const ENABLED: bool = cfg!(feature = "sim");

/// Has `hook` run on this thread before each store of a device to memory that it shares, until the
/// next call. It may unwind.
pub fn at_points(hook: Option<Rc<dyn Fn()>>) {
    #[cfg(feature = "sim")]
    HOOK.set(hook);
    #[cfg(not(feature = "sim"))]
    drop(hook);
}

/// Plants a bug in the devices of this thread, or none.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "sim")]
    PLANTED.set(bug);
    #[cfg(not(feature = "sim"))]
    let _ = bug;
}

/// Others may run here.
#[inline]
pub(crate) fn point() {
    #[cfg(feature = "sim")]
    {
        // The hook may lead to another point, or unwind.
        let hook = HOOK.with_borrow(Clone::clone);
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// Whether a bug is planted.
#[inline]
pub(crate) fn is_planted(bug: Bug) -> bool {
    #[cfg(feature = "sim")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "sim"))]
    {
        let _ = bug;
        false
    }
}
