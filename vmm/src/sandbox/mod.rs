//! The box that an actor process lives in.
//!
//! Two steps, because the first is slow and can be shared, and the second must be each process's
//! own:
//!
//! ```text
//!   warden ── enter_empty_world ──► user, mount, network, IPC and UTS namespaces with nothing in
//!     │                             them: an empty read-only root, no interface, no other user (but [`Users`])
//!     ├── clone (new PID namespace) ── lock_down ──► actor: sees no process but itself, holds
//!     ├── clone (new PID namespace) ── lock_down ──► actor   just its fds, no capability,
//!     └── ...                                                a seccomp filter, limits
//! ```
//!
//! Works for root and for an ordinary user alike: everything after the user namespace needs only
//! the capabilities that this namespace gives, and these are dropped before an actor runs.

mod deaths;
mod descriptors;
mod landlock;
mod namespaces;
mod pages;
mod privileges;
mod root;
mod signals;
mod users;

pub use deaths::{DeathNote, DeathNoteMemory, NOTED_EXIT, die_noted};
pub use descriptors::keep_only;
pub use namespaces::{
    Child, Users, clone_into_pid_namespace, enter_empty_world, leave_shared_places,
};
pub use pages::shed_beginnings;
pub use privileges::{
    Files, Limits, Privileges, confine_thread, empty_bounding_set, lock_down, share_one_heap,
    tie_to_parent,
};
pub use signals::forget_handlers;

use std::borrow::Cow;
use std::io;

/// A step of building a sandbox that the kernel refused. None is optional: without its sandbox an
/// actor does not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct SandboxError {
    doing: &'static str,
    #[source]
    source: io::Error,
}

impl SandboxError {
    pub(crate) fn of(doing: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self { doing, source: errno.into() }
    }

    pub(crate) fn new(doing: &'static str, source: io::Error) -> Self {
        Self { doing, source }
    }

    pub(crate) fn last(doing: &'static str) -> Self {
        Self { doing, source: io::Error::last_os_error() }
    }
}

impl crate::error::Hint for SandboxError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(
            "the sandbox needs user namespaces (sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone); `vmm doctor` says what is missing, and \
             `--single-process` runs without a sandbox"
                .into(),
        )
    }
}
