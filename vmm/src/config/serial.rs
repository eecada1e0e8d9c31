//! Where the serial port of a machine ends on the host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::suggest::{self, Suggestion};

/// The names, in the order of the variants.
const NAMES: [&str; 5] = ["stdio", "file", "pty", "unix", "null"];

/// The host end of the serial port: `stdio`, `file=PATH`, `pty`, `unix=PATH` or `null`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SerialConfig {
    /// Standard input and output; a terminal is put into raw mode.
    #[default]
    Stdio,
    /// Output goes to a file, which is emptied first; there is no input.
    File(PathBuf),
    /// A new pseudo-terminal, whose path is printed.
    Pty,
    /// A Unix socket that is listened on; one client at a time.
    Unix(PathBuf),
    /// Output is thrown away; there is no input.
    Null,
}

/// Why a text is no serial port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SerialError {
    /// The name is not known.
    #[error("unknown kind `{name}`{}; the kinds are stdio, file=PATH, pty, unix=PATH and null", Suggestion(*.nearest))]
    Unknown {
        /// The name as it was written.
        name: String,
        /// The known name that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// A kind that needs a path came without one.
    #[error("`{0}` needs a path: `{0}=PATH`")]
    PathMissing(String),
    /// A kind that has no path came with one.
    #[error("`{0}` takes no value")]
    NoValue(String),
}

impl SerialConfig {
    /// Whether only one line of characters can end there.
    pub fn is_exclusive(&self) -> bool {
        !matches!(self, Self::Null | Self::Pty)
    }
}

impl FromStr for SerialConfig {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        // A path may hold anything, commas and equal signs too: all after the first `=` is the path.
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name, Some(path)),
            None => (text, None),
        };
        let path = path.filter(|path| !path.is_empty() || !matches!(name, "file" | "unix"));
        match (name, path) {
            ("stdio", None) => Ok(Self::Stdio),
            ("pty", None) => Ok(Self::Pty),
            ("null", None) => Ok(Self::Null),
            ("file", Some(path)) => Ok(Self::File(path.into())),
            ("unix", Some(path)) => Ok(Self::Unix(path.into())),
            ("file" | "unix", None) => Err(SerialError::PathMissing(name.to_owned())),
            ("stdio" | "pty" | "null", Some(_)) => Err(SerialError::NoValue(name.to_owned())),
            _ => Err(SerialError::Unknown {
                name: name.to_owned(),
                nearest: suggest::nearest(name, &NAMES),
            }),
        }
    }
}

impl fmt::Display for SerialConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::File(path) => write!(f, "file={}", path.display()),
            Self::Pty => f.write_str("pty"),
            Self::Unix(path) => write!(f, "unix={}", path.display()),
            Self::Null => f.write_str("null"),
        }
    }
}

impl TryFrom<String> for SerialConfig {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        text.parse()
    }
}

impl From<SerialConfig> for String {
    fn from(serial: SerialConfig) -> Self {
        serial.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_shown() {
        let table = [
            ("stdio", SerialConfig::Stdio),
            ("pty", SerialConfig::Pty),
            ("null", SerialConfig::Null),
            ("file=a,b=c", SerialConfig::File("a,b=c".into())),
            ("unix=/run/s", SerialConfig::Unix("/run/s".into())),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let table = [
            ("file", "`file` needs a path: `file=PATH`"),
            ("unix=", "`unix` needs a path: `unix=PATH`"),
            ("pty=x", "`pty` takes no value"),
            (
                "stdoi",
                "unknown kind `stdoi` (did you mean `stdio`?); the kinds are stdio, file=PATH, \
                 pty, unix=PATH and null",
            ),
            ("", "unknown kind ``; the kinds are stdio, file=PATH, pty, unix=PATH and null"),
        ];
        for (text, expected) in table {
            let error = text.parse::<SerialConfig>().expect_err(text);
            assert_eq!(error.to_string(), expected);
        }
    }
}
