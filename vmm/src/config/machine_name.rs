//! What the user calls a machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A machine's name: 1 to 40 ASCII letters, digits, `-`, `_` and `.`, and no `.` or `-` at the beginning. It
/// is the name of a folder, with sockets in it whose paths have bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

/// It is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a name has 1 to {} letters, digits, `-`, `_` or `.`, and begins with none of `-` and `.`",
    MachineName::MAX_LEN
)]
pub struct MachineNameError;

impl MachineName {
    /// Far below what a socket's path may have.
    pub const MAX_LEN: usize = 40;

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineName {
    type Err = MachineNameError;

    fn from_str(text: &str) -> Result<Self, MachineNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed);
        if fits && !text.starts_with(['-', '.']) {
            Ok(Self(text.into()))
        } else {
            Err(MachineNameError)
        }
    }
}

impl TryFrom<String> for MachineName {
    type Error = MachineNameError;

    fn try_from(text: String) -> Result<Self, MachineNameError> {
        text.parse()
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name_and_no_option() {
        for good in ["web", "a", "build-3.2_x", &"n".repeat(40)] {
            assert_eq!(good.parse::<MachineName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".web", "-c", "a/b", "a b", "\u{e4}", &"n".repeat(41)] {
            assert_eq!(bad.parse::<MachineName>(), Err(MachineNameError), "{bad}");
        }
    }
}
