//! `key=value,flag` strings as a serde format.
//!
//! Every device option of the command line is such a string, and the structure it fills is an
//! ordinary `Deserialize` type, the one the configuration file fills too. A new option is a new
//! field; nothing here changes.
//!
//! ```text
//!   list   = item *( "," item )
//!   item   = key                        a flag: the same as key=true
//!          | key "=" value
//!   value  = bare                       up to the next comma
//!          | '"' text '"'               \" and \\ stand for " and \
//!          | "'" text "'"               taken as it is
//!          | "[" value *( "," value ) "]"
//! ```

mod de;
mod parse;

use std::fmt;

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::suggest::{self, Suggestion};

/// Reads a structure from a `key=value,flag` string.
pub fn from_str<T: DeserializeOwned>(input: &str) -> Result<T, Error> {
    let items = parse::items(input)?;
    T::deserialize(de::ListDeserializer::new(&items))
}

/// Reads a structure from those items of a string whose keys are chosen, as if there were no others.
pub fn from_part<T: DeserializeOwned>(
    input: &str,
    is_chosen: impl Fn(&str) -> bool,
) -> Result<T, Error> {
    let mut items = parse::items(input)?;
    items.retain(|item| is_chosen(&item.key));
    T::deserialize(de::ListDeserializer::new(&items))
}

/// What is wrong with a `key=value,flag` string.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// There is nothing in the string.
    #[error("it is empty")]
    Empty,
    /// The string does not follow the grammar.
    #[error("{expected} expected at character {position}")]
    Syntax {
        /// Where, counted in characters from 1.
        position: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// A key that the structure does not have.
    #[error("unknown key `{key}`{}; the keys are {}", Suggestion(*.nearest), suggest::List(.known))]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// The known key that is spelled most like it.
        nearest: Option<&'static str>,
        /// Every key there is.
        known: &'static [&'static str],
    },
    /// A key that was given before.
    #[error("the key `{0}` is repeated")]
    RepeatedKey(String),
    /// A key that has to be there is not.
    #[error("the key `{0}` is missing")]
    MissingKey(&'static str),
    /// A key that needs a value stands alone.
    #[error("the key `{0}` needs a value: `{0}=...`")]
    MissingValue(String),
    /// The value of a key is not one it can have.
    #[error("`{value}` is no value for `{key}`: {reason}")]
    InvalidValue {
        /// The key.
        key: String,
        /// Its value as it was written.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// The structure as a whole is refused.
    #[error("{0}")]
    Refused(String),
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Refused(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::UnknownKey {
            key: field.to_owned(),
            nearest: suggest::nearest(field, expected),
            known: expected,
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::RepeatedKey(field.to_owned())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingKey(field)
    }
}

#[cfg(test)]
mod tests;
