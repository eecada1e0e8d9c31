//! What the argument parser refuses, in the form of all other errors.

use std::error::Error as StdError;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use thiserror::Error;

use super::run::report_error;
use crate::error::{Hint, Report};
use crate::outcome::BAD_INPUT;

/// A value that an argument cannot have.
#[derive(Debug, Error)]
#[error("cannot use `{value}` as {argument}")]
struct ValueRefused {
    argument: String,
    value: String,
    /// The subcommand, and a space.
    command: String,
    source: Reason,
}

/// What the value's own parser says.
#[derive(Debug, Error)]
#[error("{0}")]
struct Reason(String);

impl Hint for ValueRefused {
    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        Some(format!("`vmm {}--help` lists what it can be", self.command).into())
    }
}

/// Shows what the parser has to say and gives the exit status.
pub(super) fn finish(error: &clap::Error, arguments: &[OsString]) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away has what it wanted.
        let _ = error.print();
        return 0;
    }
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    if let Some(refused) = value_refused(error, arguments) {
        return report_error(&Report::new(&refused), wants_json);
    }
    // Standard error that cannot be written leaves nothing to say it on.
    let _ = error.print();
    if wants_json {
        super::run::print_json_error(&Report::of(&Summary(error)));
    }
    BAD_INPUT
}

fn value_refused(error: &clap::Error, arguments: &[OsString]) -> Option<ValueRefused> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    Some(ValueRefused {
        source: Reason(error.source()?.to_string()),
        // `--cpus <N>`: the flag alone says enough.
        argument: text(ContextKind::InvalidArg)?.split(' ').next()?.to_owned(),
        value: text(ContextKind::InvalidValue)?,
        command: subcommand(arguments).map(|word| format!("{word} ")).unwrap_or_default(),
    })
}

/// Options that have values come after it.
pub(super) fn subcommand(arguments: &[OsString]) -> Option<&str> {
    let mut words = arguments.iter().skip(1);
    words.find(|word| !word.as_encoded_bytes().starts_with(b"-"))?.to_str()
}

/// The first line of the parser's message, without usage and tips.
#[derive(Debug, Error)]
#[error("{}", first_line(.0))]
struct Summary<'a>(&'a clap::Error);

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
