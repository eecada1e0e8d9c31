//! A parsed policy.

use std::sync::Arc;

/// A whole policy, includes and all, in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The file's name, for messages.
    pub file: Arc<str>,
    /// What happens to calls without a rule, if the policy says.
    pub default: Option<Action>,
    /// The rules, in order.
    pub statements: Vec<Statement>,
    /// How often calls are made, by name; the compiler tests frequent ones first.
    pub frequencies: Vec<(String, u64)>,
}

/// The rules for one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The name of the call.
    pub call: String,
    /// Its rules; the first that matches decides.
    pub rules: Vec<Rule>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: usize,
}

/// One condition and what happens when it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Any of these must hold; empty means always.
    pub any_of: Vec<Clause>,
    /// What happens then.
    pub action: Action,
}

/// All of these must hold.
pub type Clause = Vec<Atom>;

/// One comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Atom {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

/// How an argument is compared; numbers are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `&`: any of the bits is set.
    AnyBit,
    /// `in`: no bit outside the mask is set.
    OnlyBits,
}

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is carried out.
    Allow,
    /// The process dies.
    KillProcess,
    /// The thread dies.
    KillThread,
    /// The thread gets SIGSYS instead.
    Trap,
    /// A tracer decides.
    Trace,
    /// It is carried out, and logged by the kernel.
    Log,
    /// A supervisor decides (seccomp user notification).
    UserNotify,
    /// It is not carried out and returns this errno.
    Errno(u16),
}

impl Action {
    /// The word that policies have for it; an errno follows `return`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::KillProcess => "kill-process",
            Self::KillThread => "kill-thread",
            Self::Trap => "trap",
            Self::Trace => "trace",
            Self::Log => "log",
            Self::UserNotify => "user-notify",
            Self::Errno(_) => "return",
        }
    }

    /// The filter's return value (linux/seccomp.h, `SECCOMP_RET_*`).
    pub const fn code(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | errno as u32,
            Self::UserNotify => 0x7fc0_0000,
            Self::Trace => 0x7ff0_0000,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

impl Atom {
    /// What the comparison says of `value`.
    pub fn holds(self, value: u64) -> bool {
        match self.operator {
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
            Operator::Less => value < self.value,
            Operator::LessOrEqual => value <= self.value,
            Operator::Greater => value > self.value,
            Operator::GreaterOrEqual => value >= self.value,
            Operator::AnyBit => value & self.value != 0,
            Operator::OnlyBits => value & !self.value == 0,
        }
    }

    /// Whether no value makes it true.
    pub(crate) fn is_never_true(self) -> bool {
        match self.operator {
            Operator::Less | Operator::AnyBit => self.value == 0,
            Operator::Greater => self.value == u64::MAX,
            _ => false,
        }
    }
}

impl Rule {
    /// Whether it applies to every call.
    pub fn always(&self) -> bool {
        self.any_of.is_empty()
    }

    /// Whether it applies to a call with these arguments.
    pub fn matches(&self, arguments: &[u64; 6]) -> bool {
        let holds = |atom: &Atom| atom.holds(arguments[usize::from(atom.argument)]);
        self.always() || self.any_of.iter().any(|clause| clause.iter().all(holds))
    }
}

impl Policy {
    /// What the policy says of a call, read from its rules and not from the compiled program;
    /// `unmatched` stands in for a default that the policy does not name.
    pub fn verdict(&self, call: &str, arguments: &[u64; 6], unmatched: Action) -> Action {
        self.statements
            .iter()
            .filter(|statement| statement.call == call)
            .flat_map(|statement| &statement.rules)
            .find(|rule| rule.matches(arguments))
            .map_or(self.default.unwrap_or(unmatched), |rule| rule.action)
    }

    /// The calls that some rule lets through, each once, in the order of the text.
    pub fn allowed_calls(&self) -> Vec<&str> {
        let lets_through = |statement: &&Statement| {
            statement.rules.iter().any(|rule| rule.action == Action::Allow)
        };
        self.statements
            .iter()
            .filter(lets_through)
            .map(|statement| statement.call.as_str())
            .collect()
    }
}
