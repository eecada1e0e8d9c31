//! "Did you mean": the known word that is spelled most like an unknown one.

use std::fmt;

/// The candidate nearest to `word`, when one is near enough to be what was meant.
pub fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    // One slip per three letters is a misspelling; more is another word.
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be added, removed, replaced or swapped with their neighbour to make
/// `left` out of `right`.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut two_above: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, letter) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != *other);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            let swapped = column > 0 && previous == Some(*other) && right[column - 1] == letter;
            if swapped {
                best = best.min(two_above[column - 1] + 1);
            }
            current.push(best);
        }
        two_above = std::mem::replace(&mut above, current);
        previous = Some(letter);
    }
    above[right.len()]
}

/// Shows `` (did you mean `WORD`?)`` or nothing.
pub(super) struct Suggestion<'a>(pub(super) Option<&'a str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, " (did you mean `{word}`?)"),
            None => Ok(()),
        }
    }
}

/// Shows words as `a, b and c`.
pub(super) struct List<'a>(pub(super) &'a [&'a str]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{separator}{word}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["path", "ro", "direct", "queues", "block-size", "id"];
        let table = [
            ("pth", Some("path")),
            ("paht", Some("path")),
            ("or", Some("ro")),
            ("queue", Some("queues")),
            ("blocksize", Some("block-size")),
            ("block_size", Some("block-size")),
            ("cache", None),
            ("", None),
            ("x", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn distance_counts_single_slips() {
        let table = [("", "", 0), ("abc", "abc", 0), ("acb", "abc", 1), ("ab", "abc", 1)];
        for (left, right, expected) in table {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(List(&["a"]).to_string(), "a");
        assert_eq!(List(&["a", "b", "c"]).to_string(), "a, b and c");
    }
}
