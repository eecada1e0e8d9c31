//! The developer's own terminal while a command of the bed uses it.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::protocol::Size;

/// Raw mode: keys go to the command one by one. Dropping it restores the terminal.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> Result<Self> {
        let before = tcgetattr(stdin().as_fd()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin().as_fd(), OptionalActions::Drain, &raw)
            .context("cannot set the terminal's mode")?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may have gone away.
        let _ = tcsetattr(stdin().as_fd(), OptionalActions::Drain, &self.before);
    }
}

/// The size of the terminal that both our input and our output are, if they are one.
pub(crate) fn size() -> Option<Size> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stdout().as_fd()).ok()?;
    Some(Size { rows: size.ws_row, columns: size.ws_col })
}
