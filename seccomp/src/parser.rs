//! Reads policy text. All problems of a file are reported, not only the first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::arch::Arch;
use crate::constants;
use crate::error::{Error, Problem};
use crate::lexer::{Token, tokens};
use crate::policy::{Action, Atom, Clause, Operator, Policy, Rule, Statement};

/// More conditions in one rule than any policy needs; bounds what a hostile file can cost.
const MAX_CONDITIONS: usize = 256;
/// The largest errno that a filter can return (`MAX_ERRNO` of linux/err.h).
const MAX_ERRNO: u64 = 4095;

/// Where `@include` and `@frequency` find their files.
pub trait Includes {
    /// The text of the file that `path` names, or a sentence that says why not.
    fn read(&self, path: &str) -> Result<String, String>;
}

/// For policies that stand alone, as those that are part of the program.
#[derive(Debug, Clone, Copy)]
pub struct NoIncludes;

impl Includes for NoIncludes {
    fn read(&self, _path: &str) -> Result<String, String> {
        Err("this policy cannot include files".into())
    }
}

/// Files, relative to the folder of the policy that names them.
impl Includes for PathBuf {
    fn read(&self, path: &str) -> Result<String, String> {
        let folder = self.parent().unwrap_or(Path::new("."));
        std::fs::read_to_string(folder.join(path)).map_err(|error| error.to_string())
    }
}

/// Parses `text`, which messages call `file`, for `arch`.
pub fn parse(
    file: &str,
    text: &str,
    arch: Arch,
    includes: &dyn Includes,
) -> Result<Policy, Vec<Error>> {
    let policy = Policy {
        file: file.into(),
        default: None,
        statements: Vec::new(),
        frequencies: Vec::new(),
    };
    let mut reader = Reader {
        arch,
        includes,
        policy,
        lines: HashMap::new(),
        denylist: false,
        errors: Vec::new(),
    };
    reader.read_file(&file.into(), text, Depth::Top);
    if reader.policy.statements.is_empty() && reader.errors.is_empty() {
        reader.report(&file.into(), 0, Problem::Empty);
    }
    if reader.denylist && reader.policy.default.is_none() {
        reader.policy.default = Some(Action::Allow);
    }
    if reader.errors.is_empty() { Ok(reader.policy) } else { Err(reader.errors) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Included,
}

struct Reader<'i> {
    arch: Arch,
    includes: &'i dyn Includes,
    policy: Policy,
    /// Where each call got its rules.
    lines: HashMap<String, usize>,
    denylist: bool,
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn report(&mut self, file: &Arc<str>, line: usize, problem: Problem) {
        self.errors.push(Error { file: Arc::clone(file), line, problem });
    }

    fn read_file(&mut self, file: &Arc<str>, text: &str, depth: Depth) {
        for (number, line) in logical_lines(text) {
            if let Err(problem) = self.read_line(file, number, &line, depth) {
                self.report(file, number, problem);
            }
        }
    }

    fn read_line(
        &mut self,
        file: &Arc<str>,
        number: usize,
        line: &str,
        depth: Depth,
    ) -> Result<(), Problem> {
        // Paths may hold any character, so these two are not split into tokens.
        if let Some(path) = directive_with_path(line, "@include") {
            if depth == Depth::Included {
                return Err(Problem::NestedInclude);
            }
            let text = self.read_other(path)?;
            self.read_file(&path.into(), &text, Depth::Included);
            return Ok(());
        }
        if let Some(path) = directive_with_path(line, "@frequency") {
            let text = self.read_other(path)?;
            self.read_frequencies(&path.into(), &text);
            return Ok(());
        }
        let tokens = tokens(line)?;
        let mut cursor = Cursor { tokens: &tokens, arch: self.arch, conditions: 0 };
        match cursor.peek() {
            None => Ok(()),
            Some(Token::Directive(name)) => {
                cursor.advance();
                self.read_directive(name, &mut cursor)
            }
            Some(_) => self.read_statement(file, number, &mut cursor),
        }
    }

    fn read_other(&self, path: &str) -> Result<String, Problem> {
        self.includes
            .read(path)
            .map_err(|reason| Problem::Unreadable { path: path.to_owned(), reason })
    }

    fn read_directive(&mut self, name: &str, cursor: &mut Cursor<'_>) -> Result<(), Problem> {
        match name {
            "default" => {
                let action = cursor.action()?;
                cursor.end()?;
                match self.policy.default.replace(action) {
                    None => Ok(()),
                    Some(_) => Err(Problem::RepeatedDirective("default")),
                }
            }
            "denylist" => {
                cursor.end()?;
                if std::mem::replace(&mut self.denylist, true) {
                    return Err(Problem::RepeatedDirective("denylist"));
                }
                Ok(())
            }
            other => Err(Problem::UnknownDirective(other.to_owned())),
        }
    }

    fn read_statement(
        &mut self,
        file: &Arc<str>,
        line: usize,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Problem> {
        let calls = cursor.calls()?;
        cursor.expect(":", "`:`")?;
        let rules = cursor.rules()?;
        cursor.end()?;
        for call in calls {
            check_rules(&call, &rules)?;
            if self.arch.number(&call).is_none() {
                if Arch::any_has(&call) {
                    // Another architecture's call: a policy may name it and stays portable.
                    continue;
                }
                return Err(Problem::UnknownCall(call));
            }
            if let Some(&first) = self.lines.get(&call) {
                return Err(Problem::Repeated { name: call, first });
            }
            self.lines.insert(call.clone(), line);
            let rules = rules.clone();
            self.policy.statements.push(Statement { call, rules, file: Arc::clone(file), line });
        }
        Ok(())
    }

    fn read_frequencies(&mut self, file: &Arc<str>, text: &str) {
        for (number, line) in logical_lines(text) {
            match frequency(&line, self.arch) {
                Ok(Some(entry)) => self.policy.frequencies.push(entry),
                Ok(None) => {}
                Err(problem) => self.report(file, number, problem),
            }
        }
    }
}

fn frequency(line: &str, arch: Arch) -> Result<Option<(String, u64)>, Problem> {
    let tokens = tokens(line)?;
    let mut cursor = Cursor { tokens: &tokens, arch, conditions: 0 };
    if cursor.peek().is_none() {
        return Ok(None);
    }
    let call = cursor.word("a system call")?.to_owned();
    if !Arch::any_has(&call) {
        return Err(Problem::UnknownCall(call));
    }
    cursor.expect(":", "`:`")?;
    let count = cursor.value()?;
    cursor.end()?;
    Ok(Some((call, count)))
}

/// A rule behind one that always matches, or that never does, is a mistake.
fn check_rules(call: &str, rules: &[Rule]) -> Result<(), Problem> {
    if rules.iter().rev().skip(1).any(Rule::always) {
        return Err(Problem::Unreachable(call.to_owned()));
    }
    let never = |clause: &Clause| clause.iter().any(|atom| atom.is_never_true());
    if rules.iter().flat_map(|rule| &rule.any_of).any(never) {
        return Err(Problem::NeverTrue);
    }
    Ok(())
}

fn directive_with_path<'t>(line: &'t str, directive: &str) -> Option<&'t str> {
    let rest = line.trim().strip_prefix(directive)?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim())
}

/// Lines with their numbers, those that end with a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (index, line) in text.lines().enumerate() {
        let (body, joins_next) = match line.trim_end().strip_suffix('\\') {
            Some(body) => (body, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| continued) {
            Some((_, joined)) => {
                joined.push(' ');
                joined.push_str(body);
            }
            None => lines.push((index + 1, body.to_owned())),
        }
        continued = joins_next;
    }
    lines
}

/// The tokens of a line that are not read yet.
struct Cursor<'t> {
    tokens: &'t [Token<'t>],
    arch: Arch,
    conditions: usize,
}

impl<'t> Cursor<'t> {
    fn peek(&self) -> Option<&'t Token<'t>> {
        self.tokens.first()
    }

    fn advance(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol);
        if found {
            self.advance();
        }
        found
    }

    fn unexpected(&self, expected: &'static str) -> Problem {
        Problem::Unexpected { expected, found: Token::describe(self.peek()) }
    }

    fn expect(&mut self, symbol: &str, expected: &'static str) -> Result<(), Problem> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn end(&self) -> Result<(), Problem> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the line")),
        }
    }

    fn word(&mut self, expected: &'static str) -> Result<&'t str, Problem> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.advance();
                Ok(word)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// `call` or `{call, call}`.
    fn calls(&mut self) -> Result<Vec<String>, Problem> {
        if !self.take("{") {
            return Ok(vec![self.word("a system call")?.to_owned()]);
        }
        let mut calls = Vec::new();
        loop {
            calls.push(self.word("a system call")?.to_owned());
            if self.take("}") {
                return Ok(calls);
            }
            self.expect(",", "`,` or `}`")?;
        }
    }

    /// One rule, or several in braces.
    fn rules(&mut self) -> Result<Vec<Rule>, Problem> {
        if !self.take("{") {
            return Ok(vec![self.rule()?]);
        }
        let mut rules = Vec::new();
        loop {
            rules.push(self.rule()?);
            if self.take("}") {
                return Ok(rules);
            }
            self.expect(",", "`,` or `}`")?;
        }
    }

    /// `action`, `condition` (which allows), or `condition; action`.
    fn rule(&mut self) -> Result<Rule, Problem> {
        let is_condition =
            matches!(self.peek(), Some(Token::Word(word)) if word.starts_with("arg"));
        if !is_condition {
            return Ok(Rule { any_of: Vec::new(), action: self.action()? });
        }
        let mut any_of = vec![self.clause()?];
        while self.take("||") {
            any_of.push(self.clause()?);
        }
        let action = if self.take(";") { self.action()? } else { Action::Allow };
        Ok(Rule { any_of, action })
    }

    fn clause(&mut self) -> Result<Clause, Problem> {
        let mut all_of = vec![self.atom()?];
        while self.take("&&") {
            all_of.push(self.atom()?);
        }
        Ok(all_of)
    }

    fn atom(&mut self) -> Result<Atom, Problem> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(Problem::TooComplex(MAX_CONDITIONS));
        }
        let word = self.word("an argument, arg0 to arg5")?;
        let argument = match word.strip_prefix("arg").map(str::as_bytes) {
            Some([digit @ b'0'..=b'5']) => digit - b'0',
            _ => return Err(Problem::BadArgument(word.to_owned())),
        };
        let operator = self.operator()?;
        let value = self.value()?;
        Ok(Atom { argument, operator, value })
    }

    fn operator(&mut self) -> Result<Operator, Problem> {
        let operator = match self.peek() {
            Some(Token::Symbol("==")) => Operator::Equal,
            Some(Token::Symbol("!=")) => Operator::NotEqual,
            Some(Token::Symbol("<")) => Operator::Less,
            Some(Token::Symbol("<=")) => Operator::LessOrEqual,
            Some(Token::Symbol(">")) => Operator::Greater,
            Some(Token::Symbol(">=")) => Operator::GreaterOrEqual,
            Some(Token::Symbol("&")) => Operator::AnyBit,
            Some(Token::Word("in")) => Operator::OnlyBits,
            _ => return Err(self.unexpected("a comparison: == != < <= > >= & in")),
        };
        self.advance();
        Ok(operator)
    }

    /// Constants joined by `|`, each perhaps complemented or in parentheses.
    fn value(&mut self) -> Result<u64, Problem> {
        let mut value = self.term(0)?;
        while self.take("|") {
            value |= self.term(0)?;
        }
        Ok(value)
    }

    fn term(&mut self, depth: usize) -> Result<u64, Problem> {
        if depth > MAX_CONDITIONS {
            return Err(Problem::TooComplex(MAX_CONDITIONS));
        }
        if self.take("~") {
            return Ok(!self.term(depth + 1)?);
        }
        if self.take("(") {
            let mut value = self.term(depth + 1)?;
            while self.take("|") {
                value |= self.term(depth + 1)?;
            }
            self.expect(")", "`)` or `|`")?;
            return Ok(value);
        }
        self.constant()
    }

    fn constant(&mut self) -> Result<u64, Problem> {
        let word = self.word("a number or a constant")?;
        // A name may have a minus sign only as a word like kill-process, a number only in front.
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word),
        };
        if !digits.starts_with(|first: char| first.is_ascii_digit()) {
            return constants::value(word, self.arch)
                .ok_or_else(|| Problem::UnknownConstant(word.to_owned()));
        }
        let parsed = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16)
        } else if let Some(octal) = digits.strip_prefix('0').filter(|rest| !rest.is_empty()) {
            u64::from_str_radix(octal.trim_start_matches('o'), 8)
        } else {
            digits.parse()
        };
        let value = parsed.map_err(|_| Problem::BadNumber(word.to_owned()))?;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn action(&mut self) -> Result<Action, Problem> {
        const EXPECTED: &str = "a condition (argN ...) or an action: allow, return ERRNO, trap, log, \
                                trace, kill-process, kill-thread, user-notify";
        let before = self.tokens;
        let action = match self.word(EXPECTED)? {
            "allow" | "1" => Action::Allow,
            "kill-process" | "kill" => Action::KillProcess,
            "kill-thread" => Action::KillThread,
            "trap" => Action::Trap,
            "trace" => Action::Trace,
            "log" => Action::Log,
            "user-notify" => Action::UserNotify,
            "return" => {
                let errno = self.value()?;
                match u16::try_from(errno) {
                    Ok(errno) if u64::from(errno) <= MAX_ERRNO => Action::Errno(errno),
                    _ => return Err(Problem::BadErrno(errno)),
                }
            }
            _ => {
                self.tokens = before;
                return Err(self.unexpected(EXPECTED));
            }
        };
        Ok(action)
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
