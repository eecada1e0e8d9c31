//! A port of the virtio console.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::serial::{SerialConfig, SerialError};

/// What separates the kind from the name. The last one counts: a path may hold anything.
const NAME: &str = ",name=";

/// A port: `KIND[,name=NAME]`, where `KIND` is as for the serial port. Without a name it is the
/// console `hvc0`, with one a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsoleConfig {
    /// Where it ends on the host.
    pub end: SerialConfig,
    /// The name by which the guest finds it.
    pub name: Option<String>,
}

impl FromStr for ConsoleConfig {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let (end, name) = match text.rsplit_once(NAME) {
            Some((end, name)) => (end, Some(name.to_owned())),
            None => (text, None),
        };
        Ok(Self { end: end.parse()?, name })
    }
}

impl fmt::Display for ConsoleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.end)?;
        match &self.name {
            Some(name) => write!(f, "{NAME}{name}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for ConsoleConfig {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        text.parse()
    }
}

impl From<ConsoleConfig> for String {
    fn from(console: ConsoleConfig) -> Self {
        console.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_are_read_and_shown() {
        let table = [
            ("stdio", SerialConfig::Stdio, None),
            ("unix=/run/s,name=agent", SerialConfig::Unix("/run/s".into()), Some("agent")),
            ("file=a,name=b,name=c", SerialConfig::File("a,name=b".into()), Some("c")),
            ("null,name=org.example.0", SerialConfig::Null, Some("org.example.0")),
        ];
        for (text, end, name) in table {
            let console = ConsoleConfig { end, name: name.map(str::to_owned) };
            assert_eq!(text.parse(), Ok(console.clone()), "{text}");
            assert_eq!(console.to_string(), text);
        }
        assert!(
            "tty".parse::<ConsoleConfig>().is_err() && ",name=a".parse::<ConsoleConfig>().is_err()
        );
    }
}
