//! The file of a test: what is run, and what has to come of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::Hint;
use crate::exec::{Time, TimeError};

/// What a case may take if the file does not say.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Why a file is none of tests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not of this form.
    #[error("`{}` cannot be understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A case has both forms of a command, or none.
    #[error("the case `{name}` has to have either `command` or `run`")]
    Command {
        /// The case.
        name: String,
    },
    /// Reports tell cases apart by their names.
    #[error("two cases are called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// A length of time.
    #[error("`{text}` is not a timeout")]
    Timeout {
        /// What is written.
        text: String,
        /// What should be.
        #[source]
        source: TimeError,
    },
    /// Nothing would be tested.
    #[error("there is no case to run")]
    Empty,
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Command { .. } => {
                Some("command = [\"program\", \"argument\"], or run = \"a line for sh\"".into())
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSuite {
    #[serde(default)]
    options: Vec<String>,
    timeout: Option<String>,
    parallel: Option<usize>,
    #[serde(default)]
    case: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCase {
    name: String,
    command: Option<Vec<String>>,
    run: Option<String>,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    stdin: String,
    timeout: Option<String>,
    #[serde(default)]
    status: u8,
    stdout: Option<String>,
    stderr: Option<String>,
    #[serde(default)]
    stdout_has: Vec<String>,
    #[serde(default)]
    stderr_has: Vec<String>,
}

/// What a stream has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// All of it.
    pub exactly: Option<String>,
    /// Parts of it.
    pub has: Vec<String>,
}

/// One command and what has to come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name, the only one of its kind.
    pub name: String,
    /// The command.
    pub command: Vec<String>,
    /// Options of `vmm exec`, after those of all cases.
    pub options: Vec<String>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// What it reads.
    pub stdin: String,
    /// What it may take, with its machine's boot.
    pub timeout: Duration,
    /// Its exit status.
    pub status: u8,
    /// Its standard output.
    pub stdout: Expected,
    /// Its standard error.
    pub stderr: Expected,
}

/// The cases of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// What it is called in reports.
    pub name: String,
    /// Where its cases run.
    pub folder: PathBuf,
    /// Options of `vmm exec` for all cases.
    pub options: Vec<String>,
    /// How many machines may run at the same time, if the file says it.
    pub parallel: Option<usize>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

impl Suite {
    /// Reads a file, and keeps the cases whose names contain `only`.
    pub fn read(path: &Path, only: &str) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let raw = toml::from_str(&text)
            .map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })?;
        Self::check(raw, name, super::folder_of(path), only)
    }

    fn check(raw: RawSuite, name: String, folder: PathBuf, only: &str) -> Result<Self, Error> {
        let all = raw.timeout.as_deref().map(timeout).transpose()?.unwrap_or(TIMEOUT);
        let mut cases: Vec<Case> = Vec::new();
        for case in raw.case {
            if cases.iter().any(|one| one.name == case.name) {
                return Err(Error::Twice { name: case.name });
            }
            cases.push(case.check(all)?);
        }
        cases.retain(|case| case.name.contains(only));
        if cases.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Self { name, folder, options: raw.options, parallel: raw.parallel, cases })
    }
}

impl RawCase {
    fn check(self, all: Duration) -> Result<Case, Error> {
        let command = match (self.command, self.run) {
            (Some(command), None) if !command.is_empty() => command,
            (None, Some(line)) => vec!["sh".into(), "-c".into(), line],
            _ => return Err(Error::Command { name: self.name }),
        };
        Ok(Case {
            command,
            timeout: self.timeout.as_deref().map(timeout).transpose()?.unwrap_or(all),
            name: self.name,
            options: self.options,
            env: self.env,
            stdin: self.stdin,
            status: self.status,
            stdout: Expected { exactly: self.stdout, has: self.stdout_has },
            stderr: Expected { exactly: self.stderr, has: self.stderr_has },
        })
    }
}

fn timeout(text: &str) -> Result<Duration, Error> {
    let time: Time =
        text.parse().map_err(|source| Error::Timeout { text: text.to_owned(), source })?;
    Ok(time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Suite, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.toml");
        std::fs::write(&path, text).unwrap();
        Suite::read(&path, "")
    }

    #[test]
    fn cases_have_commands_and_limits() {
        let suite = of(r#"
            timeout = "2m"
            options = ["--minimal"]
            [[case]]
            name = "a"
            run = "exit 3"
            status = 3
            [[case]]
            name = "b"
            command = ["cat"]
            timeout = "5s"
            stdin = "x"
            stdout = "x"
            stderr-has = ["y"]
        "#)
        .unwrap();
        assert_eq!(suite.name, "some");
        let [a, b] = &suite.cases[..] else { panic!("{suite:?}") };
        assert_eq!((&a.command[..], a.status), (&["sh", "-c", "exit 3"].map(String::from)[..], 3));
        assert_eq!(a.timeout, Duration::from_mins(2));
        assert_eq!(b.timeout, Duration::from_secs(5));
        assert_eq!(b.stdout.exactly.as_deref(), Some("x"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(matches!(of(""), Err(Error::Empty)));
        assert!(matches!(of("[[case]]\nname = 'a'"), Err(Error::Command { .. })));
        let both = "[[case]]\nname = 'a'\nrun = 'x'\ncommand = ['y']";
        assert!(matches!(of(both), Err(Error::Command { .. })));
        let twice = "[[case]]\nname = 'a'\nrun = 'x'\n[[case]]\nname = 'a'\nrun = 'x'";
        assert!(matches!(of(twice), Err(Error::Twice { .. })));
        assert!(matches!(of("[[case]]\nname = 'a'\nrum = 'x'"), Err(Error::Parse { .. })));
        let time = "timeout = '1d'\n[[case]]\nname = 'a'\nrun = 'x'";
        assert!(matches!(of(time), Err(Error::Timeout { .. })));
    }
}
