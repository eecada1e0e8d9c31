//! How errors are shown: a numbered chain of causes, then what to do about it.
//!
//! ```text
//! error: cannot use the disk `root.img`
//!   1: it cannot be opened for reading and writing
//!   2: Permission denied (os error 13)
//! hint: add `ro` to the disk if the guest need not write
//! ```

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use serde::Serialize;

use crate::outcome;

/// Causes beyond this many are not shown; a chain that long would be a loop.
const MAX_CAUSES: usize = 16;

/// An error that knows what the user can do about it.
pub trait Hint: StdError {
    /// What to do, in words that follow "hint:".
    fn hint(&self) -> Option<Cow<'static, str>> {
        None
    }

    /// The exit status of a process that ends with this error.
    fn exit_code(&self) -> u8 {
        outcome::BAD_INPUT
    }
}

/// An error made ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was tried.
    error: String,
    /// Why it failed, outermost first.
    causes: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Cow<'static, str>>,
    #[serde(skip)]
    exit_code: u8,
}

impl Report {
    /// Collects the chain and the hint of an error.
    pub fn new(error: &dyn Hint) -> Self {
        Self { hint: error.hint(), exit_code: error.exit_code(), ..Self::of(error) }
    }

    /// Collects the chain of an error that gives no hints.
    pub fn of(error: &dyn StdError) -> Self {
        let message = error.to_string();
        let mut causes: Vec<String> = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source.filter(|_| causes.len() < MAX_CAUSES) {
            let text = cause.to_string();
            // Some errors repeat their source in their own text.
            let previous = causes.last().unwrap_or(&message);
            if *previous != text {
                causes.push(text);
            }
            source = cause.source();
        }
        Self { error: message, causes, hint: None, exit_code: outcome::BAD_INPUT }
    }

    /// The exit status of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The chain in one line: `tried: cause: cause`.
    pub fn one_line(&self) -> String {
        let mut line = self.error.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", Indented(&self.error))?;
        for (index, cause) in self.causes.iter().enumerate() {
            write!(f, "\n  {}: {}", index + 1, Indented(cause))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", Indented(hint))?;
        }
        Ok(())
    }
}

/// A text whose further lines stand under its first and that cannot control the terminal.
struct Indented<'a>(&'a str);

impl fmt::Display for Indented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.trim_end().chars() {
            match letter {
                '\n' => f.write_str("\n     ")?,
                // File names and file contents turn up in errors.
                _ if letter.is_control() => write!(f, "{}", letter.escape_default())?,
                _ => fmt::Write::write_char(f, letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Sample {
        #[error("cannot use the disk `{0}`")]
        Disk(&'static str, #[source] Inner),
    }

    #[derive(Debug, Error)]
    #[error("it cannot be opened")]
    struct Inner(#[source] io::Error);

    impl Hint for Sample {
        fn hint(&self) -> Option<Cow<'static, str>> {
            Some("create it".into())
        }
    }

    #[test]
    fn the_chain_is_numbered_and_ends_with_the_hint() {
        let error = Sample::Disk("a.img", Inner(io::Error::from_raw_os_error(libc::ENOENT)));
        let report = Report::new(&error);
        assert_eq!(
            report.to_string(),
            "error: cannot use the disk `a.img`\n  1: it cannot be opened\n  \
             2: No such file or directory (os error 2)\nhint: create it"
        );
        assert_eq!(report.exit_code(), 35);
    }

    #[test]
    fn a_text_cannot_control_the_terminal() {
        let error = Sample::Disk("a\x1b[2Jb\nc", Inner(io::Error::other("x")));
        assert!(
            Report::of(&error)
                .to_string()
                .starts_with("error: cannot use the disk `a\\u{1b}[2Jb\n     c`\n  1: it cannot")
        );
    }

    #[test]
    fn repeated_texts_are_shown_once() {
        let error = io::Error::other(Inner(io::Error::other("x")));
        assert_eq!(Report::of(&error).to_string(), "error: it cannot be opened\n  1: x");
    }
}
