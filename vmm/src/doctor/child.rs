//! Tries what cannot be undone in a child process.

use std::io;

use rustix::io::Errno;

/// What a try in a child has come to.
pub(super) type Outcome = Result<(), Errno>;

/// Runs `attempt` in a child. It must only make system calls: it runs between fork and exit.
pub(super) fn attempt(attempt: fn() -> Outcome) -> io::Result<Outcome> {
    // SAFETY: this process has one thread (the caller is the doctor), and the child only makes
    // system calls before it leaves without running any destructor.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = attempt().err().map_or(0, Errno::raw_os_error);
            // SAFETY: ends the child; error numbers are below 256.
            unsafe { libc::_exit(code) }
        }
        pid => wait(pid),
    }
}

fn wait(pid: libc::pid_t) -> io::Result<Outcome> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writing, and `pid` is a child that nobody else waits for.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if !libc::WIFEXITED(status) {
        return Err(io::Error::other(format!("signal {} killed it", libc::WTERMSIG(status))));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(Ok(())),
        code => Ok(Err(Errno::from_raw_os_error(code))),
    }
}
