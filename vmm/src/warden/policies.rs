//! The seccomp policies of the actors: part of the program, or from a folder that the user names.

use std::borrow::Cow;
use std::path::PathBuf;

use seccomp::{Arch, Options, Program, Unmatched};

use super::ActorKind;
use crate::error::Hint;

/// What happens to a system call that a policy does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// The actor dies and leaves a note with the call's number.
    #[default]
    Enforce,
    /// The call is carried out and the kernel logs it: for writing policies.
    LogOnly,
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySource {
    /// A folder whose `KIND.policy` files stand in for the built-in ones.
    pub folder: Option<PathBuf>,
    /// What happens to other calls.
    pub enforcement: Enforcement,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has mistakes; the first is named.
    #[error("{count} mistakes in a policy, the first")]
    Mistakes {
        /// How many.
        count: usize,
        /// The first.
        #[source]
        first: seccomp::Error,
    },
}

impl Hint for PolicyError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        Some("`vmm seccomp check FILE` lists all mistakes of a policy".into())
    }
}

/// The filters of all kinds of actors, in the order of [`ActorKind::ALL`], made before the fork.
#[derive(Debug)]
pub(super) struct Programs(Vec<Program>);

impl Programs {
    /// The filter of a kind.
    pub(super) fn of(&self, kind: ActorKind) -> &Program {
        &self.0[kind as usize]
    }
}

impl PolicySource {
    pub(super) fn compile(&self) -> Result<Programs, PolicyError> {
        let programs = ActorKind::ALL.iter().map(|kind| self.compile_one(*kind));
        Ok(Programs(programs.collect::<Result<_, PolicyError>>()?))
    }

    fn compile_one(&self, kind: ActorKind) -> Result<Program, PolicyError> {
        let mistakes = |errors: Vec<seccomp::Error>| {
            let count = errors.len();
            // A refused policy always has a reason.
            let first = errors.into_iter().next().unwrap_or_else(|| seccomp::Error {
                file: kind.name().into(),
                line: 0,
                problem: seccomp::Problem::Empty,
            });
            PolicyError::Mistakes { count, first }
        };
        let override_file = self
            .folder
            .as_ref()
            .map(|folder| folder.join(format!("{}.policy", kind.name())))
            .filter(|path| path.exists());
        let policy = match override_file {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|source| PolicyError::Read {
                    path: path.clone(),
                    source,
                })?;
                seccomp::parse(&path.to_string_lossy(), &text, Arch::HOST, &path)
            }
            None => {
                let name = format!("{}.policy", kind.name());
                seccomp::parse(&name, kind.built_in_policy(), Arch::HOST, &BuiltIn)
            }
        }
        .map_err(mistakes)?;
        let unmatched = match self.enforcement {
            Enforcement::Enforce => Unmatched::Trap,
            Enforcement::LogOnly => Unmatched::Log,
        };
        seccomp::compile(&policy, Arch::HOST, Options { unmatched })
            .map_err(|error| mistakes(vec![error]))
    }
}

/// The one file that built-in policies include.
struct BuiltIn;

impl seccomp::Includes for BuiltIn {
    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "./common.policy" => Ok(include_str!("policies/common.policy").into()),
            _ => Err("no such built-in policy".into()),
        }
    }
}
