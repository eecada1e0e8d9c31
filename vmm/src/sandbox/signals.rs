//! Signals as a fresh process has them.

use super::SandboxError;

/// Undoes what the program that forked this process did about signals: default actions for all
/// but `SIGPIPE`, which stays ignored as in every Rust program, and none blocked.
pub fn forget_handlers() -> Result<(), SandboxError> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGPIPE {
            continue;
        }
        // SAFETY: default actions run no code of this process. Fails for SIGKILL, SIGSTOP and the
        // two that the C library keeps for itself, which are as they should be.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is used.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(SandboxError::last("reset the signal mask")),
    }
}
