//! The keys that are not for the guest.
//!
//! | Keys          | Meaning                          |
//! |---------------|----------------------------------|
//! | Ctrl-A x      | quit: the machine ends in order  |
//! | Ctrl-A h      | show these keys                  |
//! | Ctrl-A Ctrl-A | one Ctrl-A for the guest         |
//!
//! After Ctrl-A any other key goes to the guest together with the Ctrl-A. Ctrl-C goes to a guest
//! that reads its serial port, and ends a machine whose guest does not.

/// Starts a command.
const ESCAPE: u8 = 0x01;

/// What a terminal sends for Ctrl-C.
const INTERRUPT: u8 = 0x03;

/// What Ctrl-A h shows.
pub const HELP: &str = "Ctrl-A x: quit   Ctrl-A h: this help   Ctrl-A Ctrl-A: send Ctrl-A";

/// Whether somebody in the guest reads what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The guest reads its serial port.
    Present,
    /// The guest does not: it never asked for receive interrupts.
    Absent,
}

/// What the user wants from the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End the machine.
    Quit,
    /// Show the keys.
    Help,
}

/// Separates keys for the guest from commands for the VMM.
#[derive(Debug, Default)]
pub struct EscapeFilter {
    escaped: bool,
}

impl EscapeFilter {
    /// Appends what is for the guest to `output` until a command comes. Gives how many keys were
    /// taken and the command, if that is why it stopped.
    pub fn feed(
        &mut self,
        keys: &[u8],
        listener: Listener,
        output: &mut Vec<u8>,
    ) -> (usize, Option<Command>) {
        for (index, key) in keys.iter().enumerate() {
            if let Some(command) = self.key(*key, listener, output) {
                return (index + 1, Some(command));
            }
        }
        (keys.len(), None)
    }

    fn key(&mut self, key: u8, listener: Listener, output: &mut Vec<u8>) -> Option<Command> {
        let escaped = std::mem::take(&mut self.escaped);
        match (escaped, key) {
            (false, ESCAPE) => self.escaped = true,
            (true, ESCAPE) => output.push(ESCAPE),
            (true, b'x' | b'X') => return Some(Command::Quit),
            (true, b'h' | b'H' | b'?') => return Some(Command::Help),
            (_, INTERRUPT) if listener == Listener::Absent => return Some(Command::Quit),
            (true, _) => output.extend([ESCAPE, key]),
            (false, _) => output.push(key),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &[u8], listener: Listener) -> (Vec<u8>, Vec<Command>) {
        let (mut filter, mut output, mut commands) =
            (EscapeFilter::default(), Vec::new(), Vec::new());
        let mut rest = keys;
        while !rest.is_empty() {
            let (taken, command) = filter.feed(rest, listener, &mut output);
            rest = &rest[taken..];
            commands.extend(command);
        }
        (output, commands)
    }

    #[test]
    fn keys_and_commands_are_told_apart() {
        let table: [(&[u8], &[u8], &[Command]); 9] = [
            (b"ls\r", b"ls\r", &[]),
            (b"\x03\x1b[A\x04", b"\x03\x1b[A\x04", &[]),
            (b"\x01x", b"", &[Command::Quit]),
            (b"a\x01hb", b"ab", &[Command::Help]),
            (b"\x01\x01x", b"\x01x", &[]),
            (b"\x01\x01\x01x", b"\x01", &[Command::Quit]),
            (b"\x01q", b"\x01q", &[]),
            (b"\x01", b"", &[]),
            (b"x\xff\x00", b"x\xff\x00", &[]),
        ];
        for (keys, output, commands) in table {
            assert_eq!(
                feed(keys, Listener::Present),
                (output.to_vec(), commands.to_vec()),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn an_escape_may_come_in_two_reads() {
        let (mut filter, mut output) = (EscapeFilter::default(), Vec::new());
        assert_eq!(filter.feed(b"a\x01", Listener::Present, &mut output), (2, None));
        assert_eq!(filter.feed(b"xb", Listener::Present, &mut output), (1, Some(Command::Quit)));
        assert_eq!(output, b"a");
    }

    #[test]
    fn control_c_ends_a_machine_that_does_not_listen() {
        assert_eq!(feed(b"a\x03", Listener::Absent), (b"a".to_vec(), vec![Command::Quit]));
        assert_eq!(feed(b"\x01\x03", Listener::Absent), (vec![], vec![Command::Quit]));
    }
}
