//! What can be wrong with a policy, and where.

use std::fmt;
use std::sync::Arc;

/// A problem of a policy with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The file, as it was named; shared by all errors of a file.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 means the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.file, self.problem),
            line => write!(formatter, "{}:{line}: {}", self.file, self.problem),
        }
    }
}

impl std::error::Error for Error {}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A character that starts no token.
    #[error("`{}` means nothing here", .0.escape_default())]
    BadCharacter(char),
    /// Something else was expected.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What could have stood there.
        expected: &'static str,
        /// What did.
        found: String,
    },
    /// Neither a number nor a known name.
    #[error("`{0}` is neither a number nor a constant that policies know")]
    UnknownConstant(String),
    /// A number that does not fit 64 bits.
    #[error("`{0}` is no number of 64 bits")]
    BadNumber(String),
    /// No architecture has the call.
    #[error("no system call is named `{0}`")]
    UnknownCall(String),
    /// An argument beyond the sixth.
    #[error("`{0}` is no argument: they are arg0 to arg5")]
    BadArgument(String),
    /// An errno that is none.
    #[error("errno {0} is out of range (0 to 4095)")]
    BadErrno(u64),
    /// A call that has rules already.
    #[error("`{name}` has a rule already, in line {first}")]
    Repeated {
        /// The call.
        name: String,
        /// Where the first is.
        first: usize,
    },
    /// A rule behind one that always matches.
    #[error("no call reaches this rule of `{0}`: the one before it always matches")]
    Unreachable(String),
    /// A condition that is false for all values.
    #[error("the condition can never be true")]
    NeverTrue,
    /// A directive that is not known.
    #[error("unknown directive `@{0}`; there are @include, @frequency, @default and @denylist")]
    UnknownDirective(String),
    /// A directive that stands twice.
    #[error("`@{0}` was given before")]
    RepeatedDirective(&'static str),
    /// An included policy that includes another.
    #[error("an included policy cannot include another")]
    NestedInclude,
    /// A file that could not be read.
    #[error("cannot read `{path}`: {reason}")]
    Unreadable {
        /// Its name as written.
        path: String,
        /// Why.
        reason: String,
    },
    /// The policy has no rule at all.
    #[error("the policy has no rules")]
    Empty,
    /// More than the kernel loads.
    #[error("the filter has {0} instructions; the kernel takes 4096")]
    TooLong(usize),
    /// Nesting or lists beyond any sensible policy.
    #[error("more than {0} conditions in one rule")]
    TooComplex(usize),
}
