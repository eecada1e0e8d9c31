//! The first line of a host program: `CONNECT <port>\n`.

/// The longest line there is.
pub(super) const LONGEST: usize = "CONNECT 4294967295\r\n".len();

/// What has come of the line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Greeting {
    bytes: [u8; LONGEST],
    length: usize,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// The line is not complete.
    Nothing,
    /// A port of the guest, and what came behind the line.
    Port(u32, &'a [u8]),
    /// Something else.
    Nonsense,
}

impl Greeting {
    /// More of the line, and perhaps of what follows.
    pub(super) fn push<'a>(&mut self, bytes: &'a [u8]) -> Said<'a> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let Some(room) = self.bytes.get_mut(self.length..self.length + line.len()) else {
            return Said::Nonsense;
        };
        room.copy_from_slice(line);
        self.length += line.len();
        match end {
            None if self.length == LONGEST => Said::Nonsense,
            None => Said::Nothing,
            Some(_) => self.port().map_or(Said::Nonsense, |port| Said::Port(port, rest)),
        }
    }

    fn port(&self) -> Option<u32> {
        let line = std::str::from_utf8(&self.bytes[..self.length]).ok()?.trim_end();
        let (word, number) = line.split_once(' ')?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        (digits && word.eq_ignore_ascii_case("connect")).then(|| number.parse().ok())?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_may_come_in_pieces_with_data_behind_it() {
        let mut greeting = Greeting::default();
        assert_eq!(greeting.push(b"CONN"), Said::Nothing);
        assert_eq!(greeting.push(b"ECT 1024\nabc"), Said::Port(1024, b"abc"));
        assert_eq!(Greeting::default().push(b"connect 4294967295\r\n"), Said::Port(u32::MAX, b""));
    }

    #[test]
    fn anything_else_is_nonsense() {
        let lines: [&[u8]; 8] = [
            b"\n",
            b"CONNECT\n",
            b"CONNECT \n",
            b"CONNECT +1\n",
            b"CONNECT 4294967296\n",
            b"LISTEN 1\n",
            b"\xff\xff\n",
            b"CONNECT 00000000000000000001\n",
        ];
        for line in lines {
            assert_eq!(Greeting::default().push(line), Said::Nonsense, "{line:?}");
        }
        assert_eq!(Greeting::default().push(&[b'a'; 100]), Said::Nonsense);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in "[CONET 0-9\n]{0,40}", cut in 0usize..40) {
            let bytes = bytes.as_bytes();
            let whole = Greeting::default().push(bytes);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut greeting = Greeting::default();
            let said = match greeting.push(first) {
                Said::Nothing => greeting.push(second),
                // What is behind the line is longer in the whole.
                Said::Port(port, _) => match whole {
                    Said::Port(_, rest) => Said::Port(port, rest),
                    other => other,
                },
                Said::Nonsense => Said::Nonsense,
            };
            prop_assert_eq!(said, whole);
        }
    }
}
