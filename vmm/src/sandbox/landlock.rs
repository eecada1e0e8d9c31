//! Landlock, where the kernel has it: one more wall, which holds even if a descriptor of a
//! directory finds its way into the sandbox.

use super::SandboxError;

/// `struct landlock_ruleset_attr`; older kernels know only the first fields.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`
const ASK_VERSION: u32 = 1;

/// Denies the calling process and its children everything that the kernel's Landlock can deny:
/// what a ruleset handles and no rule allows is forbidden, and there is no rule.
pub(super) fn deny_all() -> Result<(), SandboxError> {
    const DOING: &str = "restrict an actor by Landlock";
    let Some((attributes, size)) = everything(version()) else {
        return Ok(());
    };
    // SAFETY: the kernel reads `size` bytes of the attributes, which have at least so many.
    let ruleset = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0_u32)
    };
    if ruleset < 0 {
        return Err(SandboxError::last(DOING));
    }
    // SAFETY: a plain system call on integers.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) };
    let outcome = match result {
        0 => Ok(()),
        _ => Err(SandboxError::last(DOING)),
    };
    // SAFETY: the ruleset's descriptor was made above and has no other owner.
    unsafe { libc::close(ruleset as libc::c_int) };
    outcome
}

/// Zero or less: no Landlock, in this kernel or on this boot.
fn version() -> i64 {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, ASK_VERSION) }
}

/// All that a version can deny (linux/landlock.h), and how long its attributes are.
fn everything(version: i64) -> Option<(RulesetAttributes, usize)> {
    let file_accesses = match version {
        ..=0 => return None,
        1 => 13,
        // LANDLOCK_ACCESS_FS_REFER
        2 => 14,
        // LANDLOCK_ACCESS_FS_TRUNCATE
        3 | 4 => 15,
        // LANDLOCK_ACCESS_FS_IOCTL_DEV
        5.. => 16,
    };
    let bits = |count: u32| (1_u64 << count) - 1;
    let attributes = RulesetAttributes {
        handled_access_fs: bits(file_accesses),
        // TCP bind and connect
        handled_access_net: if version >= 4 { bits(2) } else { 0 },
        // abstract Unix sockets and signals
        scoped: if version >= 6 { bits(2) } else { 0 },
    };
    let fields = match version {
        ..=3 => 1,
        4 | 5 => 2,
        6.. => 3,
    };
    Some((attributes, fields * size_of::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::everything;

    #[test]
    fn each_version_denies_what_it_knows() {
        let table = [
            (1, 0x1fff, 0, 0, 8),
            (2, 0x3fff, 0, 0, 8),
            (3, 0x7fff, 0, 0, 8),
            (4, 0x7fff, 3, 0, 16),
            (5, 0xffff, 3, 0, 16),
            (6, 0xffff, 3, 3, 24),
            (7, 0xffff, 3, 3, 24),
        ];
        for (version, files, net, scoped, size) in table {
            let (attributes, length) = everything(version).expect("there is Landlock");
            assert_eq!(attributes.handled_access_fs, files, "version {version}");
            assert_eq!(attributes.handled_access_net, net, "version {version}");
            assert_eq!(attributes.scoped, scoped, "version {version}");
            assert_eq!(length, size, "version {version}");
        }
        assert!(everything(0).is_none());
        assert!(everything(-1).is_none());
    }
}
