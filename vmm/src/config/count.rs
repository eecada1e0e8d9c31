//! Numbers of things of which there is at least one.

use std::fmt::Display;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// What is counted.
pub trait Counted: Copy {
    /// As many as there can be.
    const MOST: u16;

    /// Why a number is refused.
    type Error: Display;

    /// That there are fewer than one, or more than can be.
    const REFUSED: Self::Error;
}

/// How many there are: 1, which is the default, to [`Counted::MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16", bound = "K: Counted")]
pub struct Count<K>(u16, PhantomData<K>);

impl<K: Counted> Count<K> {
    /// As many as there can be.
    pub const MOST: Self = Self(K::MOST, PhantomData);

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// So many, or the most there can be.
    pub(super) fn up_to_most(count: u16) -> Self {
        Self(count.clamp(1, K::MOST), PhantomData)
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    pub(super) fn is_one(&self) -> bool {
        self.0 == 1
    }
}

impl<K> Default for Count<K> {
    fn default() -> Self {
        Self(1, PhantomData)
    }
}

impl<K: Counted> TryFrom<i64> for Count<K> {
    type Error = K::Error;

    fn try_from(count: i64) -> Result<Self, K::Error> {
        match u16::try_from(count) {
            Ok(count) if (1..=K::MOST).contains(&count) => Ok(Self(count, PhantomData)),
            _ => Err(K::REFUSED),
        }
    }
}

impl<K> From<Count<K>> for u16 {
    fn from(count: Count<K>) -> Self {
        count.0
    }
}
