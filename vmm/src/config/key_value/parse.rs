//! From the string to items; no meaning yet.

use std::str::CharIndices;

use super::Error;

/// One `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: String,
    /// None is a flag.
    pub(super) value: Option<Value>,
}

/// The right side of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
}

/// Splits the whole string.
pub(super) fn items(input: &str) -> Result<Vec<Item>, Error> {
    if input.is_empty() {
        return Err(Error::Empty);
    }
    let mut cursor = Cursor::new(input);
    let mut items = Vec::new();
    loop {
        items.push(item(&mut cursor)?);
        match cursor.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(cursor.expected_before("a comma")),
        }
    }
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item, Error> {
    let key = cursor.take_until(&['=', ',']);
    if key.is_empty() {
        return Err(cursor.expected("a key"));
    }
    let value = if cursor.next_if('=') { Some(value(cursor)?) } else { None };
    Ok(Item { key, value })
}

fn value(cursor: &mut Cursor<'_>) -> Result<Value, Error> {
    if !cursor.next_if('[') {
        return text(cursor, &[',']).map(Value::Text);
    }
    let mut list = Vec::new();
    if cursor.next_if(']') {
        return Ok(Value::List(list));
    }
    loop {
        list.push(text(cursor, &[',', ']'])?);
        match cursor.next() {
            Some(',') => {}
            Some(']') => return Ok(Value::List(list)),
            Some(_) => return Err(cursor.expected_before("a comma or `]`")),
            None => return Err(cursor.expected("`]`")),
        }
    }
}

fn text(cursor: &mut Cursor<'_>, ends: &[char]) -> Result<String, Error> {
    if cursor.next_if('"') {
        return quoted(cursor, '"');
    }
    if cursor.next_if('\'') {
        return quoted(cursor, '\'');
    }
    Ok(cursor.take_until(ends))
}

fn quoted(cursor: &mut Cursor<'_>, quote: char) -> Result<String, Error> {
    let mut text = String::new();
    loop {
        match cursor.next() {
            Some(letter) if letter == quote => return Ok(text),
            Some('\\') if quote == '"' => match cursor.next() {
                Some(letter @ ('"' | '\\')) => text.push(letter),
                _ => return Err(cursor.expected_before("`\"` or `\\` after a backslash")),
            },
            Some(letter) => text.push(letter),
            None => return Err(cursor.expected("the closing quote")),
        }
    }
}

/// Walks the characters and knows how many it has taken.
struct Cursor<'a> {
    rest: CharIndices<'a>,
    taken: usize,
}

impl<'a> Cursor<'a> {
    fn new(input: &'a str) -> Self {
        Self { rest: input.char_indices(), taken: 0 }
    }

    fn next(&mut self) -> Option<char> {
        let (_, letter) = self.rest.next()?;
        self.taken += 1;
        Some(letter)
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next().map(|(_, letter)| letter)
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn take_until(&mut self, ends: &[char]) -> String {
        let mut text = String::new();
        while let Some(letter) = self.peek().filter(|letter| !ends.contains(letter)) {
            text.push(letter);
            self.next();
        }
        text
    }

    /// The character that comes next is wrong.
    fn expected(&self, expected: &'static str) -> Error {
        Error::Syntax { position: self.taken + 1, expected }
    }

    /// The character taken last was wrong.
    fn expected_before(&self, expected: &'static str) -> Error {
        Error::Syntax { position: self.taken.max(1), expected }
    }
}
