//! Who there is in a user namespace.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use super::SandboxError;
use super::namespaces::write_proc;

const DOING: &str = "map users into the sandbox";

/// Whom a namespace knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// The user who made it, whom it calls nobody.
    One,
    /// All users and groups, by the numbers that they have outside. It takes the privilege to be any of
    /// them (`CAP_SETUID` and `CAP_SETGID`).
    All,
}

/// What is done before a process enters its user namespace, for it to have users there.
pub(super) enum Mapping {
    /// Inside the process is `nobody`, outside it stays who it was.
    One { user: u32, group: u32 },
    /// A process that stays outside, which writes the maps when it is told to: inside there is no
    /// privilege over who is outside.
    All { writer: Pid, go: OwnedFd },
}

impl Mapping {
    pub(super) fn prepare(users: Users) -> Result<Self, SandboxError> {
        match users {
            Users::One => {
                let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
                Ok(Self::One { user: user.as_raw(), group: group.as_raw() })
            }
            Users::All => {
                let (told, go) =
                    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(SandboxError::of(DOING))?;
                let process = rustix::process::getpid().as_raw_nonzero().get();
                // SAFETY: the process has one thread (the caller says so).
                match unsafe { libc::fork() } {
                    -1 => Err(SandboxError::last(DOING)),
                    0 => {
                        drop(go);
                        let written = write_maps(process, &told);
                        // SAFETY: ends the process without running anything of its parent's.
                        unsafe { libc::_exit(i32::from(written.is_err())) }
                    }
                    writer => {
                        let writer =
                            Pid::from_raw(writer).ok_or_else(|| SandboxError::last(DOING))?;
                        Ok(Self::All { writer, go })
                    }
                }
            }
        }
    }

    /// In the new namespace.
    pub(super) fn put_in_force(self) -> Result<(), SandboxError> {
        match self {
            Self::One { user, group } => {
                const NOBODY: u32 = 65_534;
                // Must be denied before an ordinary user may map a group (user_namespaces(7)).
                write_proc("self/setgroups", "deny", DOING)?;
                write_proc("self/uid_map", &format!("{NOBODY} {user} 1"), DOING)?;
                write_proc("self/gid_map", &format!("{NOBODY} {group} 1"), DOING)
            }
            Self::All { writer, go } => {
                rustix::io::write(&go, &[1]).map_err(SandboxError::of(DOING))?;
                let ended = rustix::io::retry_on_intr(|| {
                    rustix::process::waitpid(Some(writer), WaitOptions::empty())
                });
                match ended.map_err(SandboxError::of(DOING))? {
                    Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
                    _ => Err(SandboxError::new(DOING, std::io::ErrorKind::PermissionDenied.into())),
                }
            }
        }
    }
}

/// Maps all that this process knows, to the same numbers, once somebody says so.
fn write_maps(process: i32, told: &OwnedFd) -> std::io::Result<()> {
    if rustix::io::read(told, &mut [0_u8])? != 1 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    for map in ["uid_map", "gid_map"] {
        let same = same_numbers(&fs::read_to_string(format!("/proc/self/{map}"))?);
        fs::write(format!("/proc/{process}/{map}"), same)?;
    }
    Ok(())
}

/// The map of a namespace below one with this map, in which all have the numbers that they have there.
fn same_numbers(map: &str) -> String {
    let lines = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (first, count) = (words.next()?, words.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::same_numbers;

    #[test]
    fn everybody_keeps_the_number_that_he_has() {
        assert_eq!(same_numbers("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same_numbers("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
