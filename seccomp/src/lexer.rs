//! Splits one logical line of a policy into tokens.

use crate::error::Problem;

/// A token of the policy language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'t> {
    /// A name, a number or a word like `allow`: letters, digits, `_` and `-`.
    Word(&'t str),
    /// `@name`
    Directive(&'t str),
    /// One of the symbols.
    Symbol(&'static str),
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 18] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "&", "|", "~", "(", ")", "{", "}", ",", ";", ":",
];

impl Token<'_> {
    /// How a message calls it.
    pub(crate) fn describe(token: Option<&Token<'_>>) -> String {
        match token {
            None => "the end of the line".into(),
            Some(Token::Word(word)) => format!("`{word}`"),
            Some(Token::Directive(name)) => format!("`@{name}`"),
            Some(Token::Symbol(symbol)) => format!("`{symbol}`"),
        }
    }
}

/// The tokens of a line; a comment ends it.
pub(crate) fn tokens(line: &str) -> Result<Vec<Token<'_>>, Problem> {
    let mut tokens = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next().filter(|first| *first != '#') else {
            return Ok(tokens);
        };
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else if first == '@' {
            let (word, tail) = word(&rest[1..]);
            if word.is_empty() {
                return Err(Problem::BadCharacter('@'));
            }
            tokens.push(Token::Directive(word));
            rest = tail;
        } else {
            let (word, tail) = word(rest);
            if word.is_empty() {
                return Err(Problem::BadCharacter(first));
            }
            tokens.push(Token::Word(word));
            rest = tail;
        }
    }
}

fn word(text: &str) -> (&str, &str) {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    text.split_at(text.find(|letter| !is_part(letter)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_read_longest_first() {
        let expected = [
            Token::Word("mmap"),
            Token::Symbol(":"),
            Token::Word("arg2"),
            Token::Symbol("<="),
            Token::Symbol("~"),
            Token::Word("PROT_EXEC"),
            Token::Symbol("||"),
            Token::Word("kill-process"),
        ];
        assert_eq!(tokens("mmap:arg2<=~PROT_EXEC||kill-process # rest").unwrap(), expected);
        assert_eq!(tokens("@default trap").unwrap()[0], Token::Directive("default"));
        assert_eq!(tokens("  # nothing"), Ok(vec![]));
    }

    #[test]
    fn other_characters_are_refused() {
        for (line, bad) in [("read: $", '$'), ("@ x", '@'), ("a = b", '='), ("é", 'é')] {
            assert_eq!(tokens(line), Err(Problem::BadCharacter(bad)), "{line}");
        }
    }
}
