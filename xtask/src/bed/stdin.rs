//! Our standard input on its way to a command: one thread for the life of the session, so that no
//! byte is lost between two commands, and a window that keeps the other end's memory bounded.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::protocol::{CHUNK, Kind, STDIN_WINDOW};
use super::session::Remote;

struct State {
    /// Bytes that may still be sent.
    window: usize,
    /// A command runs that takes our input.
    open: bool,
    /// Our input has ended.
    ended: bool,
}

/// Standard input, shared by the commands of a session one after another.
#[derive(Clone)]
pub(crate) struct Stdin {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Stdin {
    /// Starts to read; nothing is sent before a command is there.
    pub(crate) fn start(remote: &Remote) -> Self {
        let state = State { window: 0, open: false, ended: false };
        let stdin = Self { shared: Arc::new((Mutex::new(state), Condvar::new())) };
        let (pump, remote) = (stdin.clone(), remote.clone());
        thread::spawn(move || {
            let mut source = std::io::stdin();
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                pump.send(&remote, &buffer[..count]);
            }
            let mut state = pump.lock();
            state.ended = true;
            if state.open {
                send_end(&remote);
            }
        });
        stdin
    }

    /// A command has been started.
    pub(crate) fn open(&self, remote: &Remote) {
        let mut state = self.lock();
        (state.open, state.window) = (true, STDIN_WINDOW);
        if state.ended {
            send_end(remote);
        }
        drop(state);
        self.shared.1.notify_all();
    }

    /// The command took so many bytes.
    pub(crate) fn acknowledge(&self, bytes: usize) {
        self.lock().window += bytes;
        self.shared.1.notify_all();
    }

    /// The command has ended.
    pub(crate) fn close(&self) {
        self.lock().open = false;
    }

    /// Waits for a command with room for the bytes.
    fn send(&self, remote: &Remote, bytes: &[u8]) {
        let mut state = self.lock();
        while !state.open || state.window < bytes.len() {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.window -= bytes.len();
        // A port that fails is noticed by the thread that reads from it.
        let _ = remote.send(Kind::Stdin, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_end(remote: &Remote) {
    let _ = remote.send(Kind::StdinEnd, b"");
}
