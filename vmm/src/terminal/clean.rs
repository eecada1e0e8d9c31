//! Text that cannot control a terminal.

use std::fmt;

/// Appends text in which control characters are written out.
#[derive(Debug)]
pub struct Clean<'a>(pub &'a mut String);

impl fmt::Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if letter.is_control() {
                self.0.extend(letter.escape_default());
            } else {
                self.0.push(letter);
            }
        }
        Ok(())
    }
}

/// A text with its control characters written out.
pub fn cleaned(text: &str) -> String {
    let mut cleaned = String::new();
    // Writing to a String cannot fail.
    let _ = fmt::Write::write_str(&mut Clean(&mut cleaned), text);
    cleaned
}
