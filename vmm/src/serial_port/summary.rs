//! The built-in guest's last line, picked out of its output.

use super::Guest;
use crate::outcome::BuiltInSummary;

/// Longer lines cannot be a summary.
const MAX_LINE_BYTES: usize = 80;

/// Watches output for `builtin: N passed, M failed`.
#[derive(Debug)]
pub(super) struct SummaryTap {
    watching: Watching,
    line: Vec<u8>,
    summary: Option<BuiltInSummary>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    /// This guest has no summary.
    Never,
    Line,
    /// The rest of a line that is too long.
    Skip,
}

impl SummaryTap {
    pub(super) fn new(guest: Guest) -> Self {
        let watching = match guest {
            Guest::BuiltIn => Watching::Line,
            Guest::Kernel => Watching::Never,
        };
        Self { watching, line: Vec::new(), summary: None }
    }

    /// Looks at the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.watching == Watching::Never {
            return;
        }
        for byte in bytes {
            self.byte(*byte);
        }
    }

    /// What the guest said last.
    pub(super) fn summary(&self) -> Option<BuiltInSummary> {
        self.summary
    }

    fn byte(&mut self, byte: u8) {
        match byte {
            b'\r' => {}
            b'\n' => {
                // The last one counts.
                self.summary = parse(&self.line).or(self.summary);
                self.line.clear();
                self.watching = Watching::Line;
            }
            _ if self.line.len() == MAX_LINE_BYTES => {
                self.line.clear();
                self.watching = Watching::Skip;
            }
            _ if self.watching == Watching::Line => self.line.push(byte),
            _ => {}
        }
    }
}

fn parse(line: &[u8]) -> Option<BuiltInSummary> {
    let line = str::from_utf8(line).ok()?;
    let counts = line.strip_prefix("builtin: ")?.strip_suffix(" failed")?;
    let (passed, failed) = counts.split_once(" passed, ")?;
    Some(BuiltInSummary { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(guest: Guest, pieces: &[&[u8]]) -> Option<(u32, u32)> {
        let mut tap = SummaryTap::new(guest);
        for piece in pieces {
            tap.feed(piece);
        }
        tap.summary().map(|summary| (summary.passed, summary.failed))
    }

    #[test]
    fn the_summary_is_found_however_it_is_cut() {
        let whole: &[u8] = b"cpu: ok\r\nbuiltin: 12 passed, 0 failed\r\n";
        assert_eq!(tap(Guest::BuiltIn, &[whole]), Some((12, 0)));
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(tap(Guest::BuiltIn, &bytes), Some((12, 0)));
        assert_eq!(tap(Guest::Kernel, &[whole]), None);
    }

    #[test]
    fn other_lines_are_no_summary() {
        let long = [b"builtin: ".repeat(40), b"1 passed, 0 failed\n".to_vec()].concat();
        let table: [&[u8]; 6] = [
            b"builtin: 1 passed, 0 failed",
            b"xbuiltin: 1 passed, 0 failed\n",
            b"builtin: 1 passed\n",
            b"builtin: -1 passed, 0 failed\n",
            b"builtin: 99999999999 passed, 0 failed\n",
            &long,
        ];
        for line in table {
            assert_eq!(tap(Guest::BuiltIn, &[line]), None);
        }
        assert_eq!(tap(Guest::BuiltIn, &[&long, b"builtin: 1 passed, 2 failed\n"]), Some((1, 2)));
    }
}
