//! The seccomp policies of the actors: part of the program, or from a folder that the user names.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use seccomp::{Arch, Options, Policy, Program, Unmatched};

use super::ActorKind;
use crate::error::Hint;

/// More bytes than any policy has; bounds what a file named by mistake can cost.
const MAX_BYTES: u64 = 1 << 20;

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
    /// The folder of policies is none.
    #[error("cannot use `{}` as a folder of policies", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the policy `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has mistakes; the first is named.
    #[error("the policy `{}` has mistakes ({} in all)", first.file, others.len() + 1)]
    Mistakes {
        /// The first.
        #[source]
        first: seccomp::Error,
        /// The others.
        others: Vec<seccomp::Error>,
    },
}

impl Hint for PolicyError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Mistakes { .. } => {
                Some("`vmm seccomp check FILE` lists all mistakes of a policy".into())
            }
            Self::Folder { .. } | Self::Read { .. } => None,
        }
    }
}

impl PolicyError {
    fn mistakes(file: &str, mistakes: Vec<seccomp::Error>) -> Self {
        let mut mistakes = mistakes.into_iter();
        // A refused policy always has a reason.
        let first = mistakes.next().unwrap_or_else(|| seccomp::Error {
            file: file.into(),
            line: 0,
            problem: seccomp::Problem::Empty,
        });
        Self::Mistakes { first, others: mistakes.collect() }
    }
}

/// Reads a policy from a file; what it includes is looked for in the same folder.
pub fn read_policy(path: &Path, arch: Arch) -> Result<Policy, PolicyError> {
    let unreadable = |source| PolicyError::Read { path: path.into(), source };
    let mut text = String::new();
    let length = File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if length as u64 > MAX_BYTES {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    let name = path.to_string_lossy();
    seccomp::parse(&name, &text, arch, &path.to_path_buf())
        .map_err(|errors| PolicyError::mistakes(&name, errors))
}

/// The policy that is part of the program.
pub fn built_in_policy(kind: ActorKind, arch: Arch) -> Result<Policy, PolicyError> {
    let name = file_name(kind);
    seccomp::parse(&name, kind.built_in_policy(), arch, &BuiltIn)
        .map_err(|errors| PolicyError::mistakes(&name, errors))
}

/// Compiles a policy for actors: what it does not name is told by a note, or only logged.
pub fn compile_policy(
    policy: &Policy,
    arch: Arch,
    enforcement: Enforcement,
) -> Result<Program, PolicyError> {
    let unmatched = match enforcement {
        Enforcement::Enforce => Unmatched::Trap,
        Enforcement::LogOnly => Unmatched::Log,
    };
    seccomp::compile(policy, arch, Options { unmatched })
        .map_err(|error| PolicyError::mistakes(&policy.file, vec![error]))
}

fn file_name(kind: ActorKind) -> String {
    format!("{}.policy", kind.name())
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
        if let Some(path) = &self.folder {
            // A misspelt folder must not mean the built-in policies.
            std::fs::read_dir(path)
                .map_err(|source| PolicyError::Folder { path: path.clone(), source })?;
        }
        let programs = ActorKind::ALL.iter().map(|kind| {
            let policy = self.policy(*kind)?;
            compile_policy(&policy, Arch::HOST, self.enforcement)
        });
        Ok(Programs(programs.collect::<Result<_, PolicyError>>()?))
    }

    fn policy(&self, kind: ActorKind) -> Result<Policy, PolicyError> {
        let in_folder = |folder: &PathBuf| folder.join(file_name(kind));
        // A file that is there and cannot be read is a mistake, not a reason to look elsewhere.
        match self.folder.as_ref().map(in_folder).filter(|path| path.symlink_metadata().is_ok()) {
            Some(path) => read_policy(&path, Arch::HOST),
            None => built_in_policy(kind, Arch::HOST),
        }
    }
}

/// The files that built-in policies include.
struct BuiltIn;

impl seccomp::Includes for BuiltIn {
    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "./common.policy" => Ok(include_str!("policies/common.policy").into()),
            "./descriptors.policy" => Ok(include_str!("policies/descriptors.policy").into()),
            "./files.policy" => Ok(include_str!("policies/files.policy").into()),
            _ => Err("no such built-in policy".into()),
        }
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
