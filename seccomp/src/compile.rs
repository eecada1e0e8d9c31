//! From a policy to a filter.
//!
//! ```text
//!   check architecture ─► (refuse x32) ─► frequent calls, one by one ─► binary search by number
//!                                                                          │
//!                                            verdict ◄── conditions of a call
//! ```

use std::collections::HashMap;

use crate::arch::Arch;
use crate::bpf::{Assembler, Label, MAX_INSTRUCTIONS, Program, Test};
use crate::error::{Error, Problem};
use crate::policy::{Action, Atom, Operator, Policy, Rule};

/// What happens to a call that no rule decides, where the policy has no `@default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// The process dies.
    #[default]
    KillProcess,
    /// The thread gets SIGSYS, so that a handler can say which call it was.
    Trap,
    /// It is carried out and logged: to find out what a policy lacks.
    Log,
}

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// For calls that no rule decides.
    pub unmatched: Unmatched,
}

/// Calls tested one by one, before the search: the first test of the search costs as much.
const FREQUENT_CALLS: usize = 4;

/// Compiles `policy` for `arch`, which must be the one that it was parsed for.
pub fn compile(policy: &Policy, arch: Arch, options: Options) -> Result<Program, Error> {
    let unmatched = match options.unmatched {
        Unmatched::KillProcess => Action::KillProcess,
        Unmatched::Trap => Action::Trap,
        Unmatched::Log => Action::Log,
    };
    let default = match options.unmatched {
        // Logging what is missing wins over what the policy would do about it.
        Unmatched::Log => Action::Log,
        _ => policy.default.unwrap_or(unmatched),
    };
    let mut compiler = Compiler { assembler: Assembler::default(), verdicts: HashMap::new() };
    let otherwise = compiler.verdict(default);
    let mut calls = compiler.calls(policy, arch, otherwise);

    calls.sort_by_key(|call| call.number);
    let search = compiler.search(&calls, otherwise);
    let after_frequent = compiler.frequent(policy, &calls, search);
    compiler.prologue(arch, after_frequent);

    let length = compiler.assembler.len();
    if length > MAX_INSTRUCTIONS {
        let problem = Problem::TooLong(length);
        return Err(Error { file: policy.file.clone(), line: 0, problem });
    }
    Ok(compiler.assembler.finish(arch))
}

struct Call<'p> {
    name: &'p str,
    number: u32,
    body: Label,
}

struct Compiler {
    assembler: Assembler,
    /// One instruction for each verdict serves all rules.
    verdicts: HashMap<Action, Label>,
}

impl Compiler {
    fn verdict(&mut self, action: Action) -> Label {
        if let Some(label) = self.verdicts.get(&action) {
            return *label;
        }
        let label = self.assembler.verdict(action.code());
        self.verdicts.insert(action, label);
        label
    }

    /// The code of each call's rules.
    fn calls<'p>(&mut self, policy: &'p Policy, arch: Arch, otherwise: Label) -> Vec<Call<'p>> {
        // Verdicts first, so that they lie together at the end.
        for rule in policy.statements.iter().flat_map(|statement| &statement.rules) {
            self.verdict(rule.action);
        }
        let mut calls = Vec::new();
        for statement in &policy.statements {
            let Some(number) = arch.number(&statement.call) else {
                continue;
            };
            let body = statement.rules.iter().rfold(otherwise, |next, rule| self.rule(rule, next));
            calls.push(Call { name: &statement.call, number, body });
        }
        calls
    }

    /// The code of one rule; the next one stands at `next`.
    fn rule(&mut self, rule: &Rule, next: Label) -> Label {
        let then = self.verdict(rule.action);
        if rule.always() {
            return then;
        }
        rule.any_of.iter().rfold(next, |otherwise, clause| {
            clause.iter().rfold(then, |then, atom| self.atom(*atom, then, otherwise))
        })
    }

    /// BPF has words of 32 bits, so each comparison is one of the halves, high half first.
    fn atom(&mut self, atom: Atom, then: Label, otherwise: Label) -> Label {
        let (high, low) = ((atom.value >> 32) as u32, atom.value as u32);
        let argument = atom.argument;
        match atom.operator {
            Operator::Equal => self.equal(argument, high, low, then, otherwise),
            Operator::NotEqual => self.equal(argument, high, low, otherwise, then),
            Operator::Greater => {
                self.ordered(argument, Test::Greater, (high, low), then, otherwise)
            }
            Operator::GreaterOrEqual => {
                self.ordered(argument, Test::GreaterOrEqual, (high, low), then, otherwise)
            }
            Operator::Less => {
                self.ordered(argument, Test::GreaterOrEqual, (high, low), otherwise, then)
            }
            Operator::LessOrEqual => {
                self.ordered(argument, Test::Greater, (high, low), otherwise, then)
            }
            Operator::AnyBit => self.any_bit(argument, high, low, then, otherwise),
            Operator::OnlyBits => self.any_bit(argument, !high, !low, otherwise, then),
        }
    }

    fn equal(&mut self, argument: u8, high: u32, low: u32, then: Label, otherwise: Label) -> Label {
        self.assembler.branch(Test::Equal, low, then, otherwise);
        let low_half = self.assembler.load_low(argument);
        self.assembler.branch(Test::Equal, high, low_half, otherwise);
        self.assembler.load_high(argument)
    }

    fn ordered(
        &mut self,
        argument: u8,
        test: Test,
        (high, low): (u32, u32),
        then: Label,
        otherwise: Label,
    ) -> Label {
        self.assembler.branch(test, low, then, otherwise);
        let low_half = self.assembler.load_low(argument);
        let same_high = self.assembler.branch(Test::Equal, high, low_half, otherwise);
        self.assembler.branch(Test::Greater, high, then, same_high);
        self.assembler.load_high(argument)
    }

    fn any_bit(
        &mut self,
        argument: u8,
        high: u32,
        low: u32,
        then: Label,
        otherwise: Label,
    ) -> Label {
        self.assembler.branch(Test::AnyBit, low, then, otherwise);
        let low_half = self.assembler.load_low(argument);
        if high == 0 {
            return low_half;
        }
        self.assembler.branch(Test::AnyBit, high, then, low_half);
        self.assembler.load_high(argument)
    }

    /// A binary search over `calls`, which are sorted.
    fn search(&mut self, calls: &[Call<'_>], otherwise: Label) -> Label {
        match calls {
            [] => otherwise,
            [call] => self.assembler.branch(Test::Equal, call.number, call.body, otherwise),
            _ => {
                let (below, from) = calls.split_at(calls.len() / 2);
                let upper = self.search(from, otherwise);
                let lower = self.search(below, otherwise);
                self.assembler.branch(Test::GreaterOrEqual, from[0].number, upper, lower)
            }
        }
    }

    /// Tests for the calls that are made most, in front of the search.
    fn frequent(&mut self, policy: &Policy, calls: &[Call<'_>], search: Label) -> Label {
        let mut frequencies: Vec<_> = policy.frequencies.iter().collect();
        frequencies.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let most = frequencies
            .iter()
            .filter_map(|(name, _)| calls.iter().find(|call| call.name == name))
            .take(FREQUENT_CALLS);
        let most: Vec<_> = most.collect();
        most.iter().rfold(search, |next, call| {
            self.assembler.branch(Test::Equal, call.number, call.body, next)
        })
    }

    fn prologue(&mut self, arch: Arch, then: Label) {
        let start = match arch.foreign_from() {
            Some(first) => {
                let kill = self.verdict(Action::KillProcess);
                self.assembler.branch(Test::GreaterOrEqual, first, kill, then)
            }
            None => self.assembler.go_to(then),
        };
        debug_assert_eq!(start, self.assembler.here());
        let number = self.assembler.load_number();
        let kill = self.verdict(Action::KillProcess);
        // The verdict may have been emitted just now; the branch goes around it.
        self.assembler.branch(Test::Equal, arch.audit(), number, kill);
        self.assembler.load_arch();
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
