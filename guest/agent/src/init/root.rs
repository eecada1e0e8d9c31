//! From the initial RAM disk to a root file system on a disk, if the host has named one.
//!
//! The agent does not start again: it moves the mounts over and changes its own root.

use std::fs;
use std::io;

use rustix::mount::MountFlags;

/// One line: source, file system type and `ro` or `rw`.
const WISH: &str = "/.vmm/root";
const PLACE: &str = "/.vmm/newroot";
/// What programs of the new root expect to be mounted.
const MOVED: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// Changes the root if there is a wish.
pub(super) fn change() -> io::Result<()> {
    let Ok(wish) = fs::read_to_string(WISH) else {
        return Ok(());
    };
    let Some(Wish { source, fstype, flags }) = Wish::parse(&wish) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its description is unreadable"));
    };
    fs::create_dir_all(PLACE)?;
    rustix::mount::mount(source, PLACE, fstype, flags, None)?;
    for mount in MOVED {
        let target = format!("{PLACE}{mount}");
        // A root without such a folder does without.
        if fs::metadata(&target).is_ok_and(|metadata| metadata.is_dir()) {
            rustix::mount::mount_move(mount, &target)?;
        }
    }
    rustix::process::chdir(PLACE)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

#[derive(Debug, PartialEq, Eq)]
struct Wish<'a> {
    source: &'a str,
    fstype: &'a str,
    flags: MountFlags,
}

impl<'a> Wish<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (source, fstype, access) = (words.next()?, words.next()?, words.next()?);
        let flags = match access {
            "ro" => MountFlags::RDONLY,
            "rw" => MountFlags::empty(),
            _ => return None,
        };
        Some(Wish { source, fstype, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let wish = Wish::parse("/dev/vda ext4 ro\n").unwrap();
        assert_eq!((wish.source, wish.fstype), ("/dev/vda", "ext4"));
        assert_eq!(wish.flags, MountFlags::RDONLY);
        assert_eq!(Wish::parse("/dev/vda ext4 perhaps"), None);
        assert_eq!(Wish::parse(""), None);
    }
}
