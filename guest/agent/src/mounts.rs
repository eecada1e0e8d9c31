//! Mounts with options as mount(8) has them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use proto::v1;
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::Status;

/// Mounts what the request says.
pub(crate) fn mount(request: &v1::MountRequest) -> Result<(), Status> {
    let target = OsStr::from_bytes(&request.target);
    if request.create_target {
        std::fs::create_dir_all(target)
            .map_err(|error| Status::failed_precondition(format!("cannot make it: {error}")))?;
    }
    let Options { flags, data } = Options::parse(&request.options);
    let data =
        CString::new(data).map_err(|_| Status::invalid_argument("the options have a zero byte"))?;
    rustix::mount::mount(
        OsStr::from_bytes(&request.source),
        target,
        request.fstype.as_str(),
        flags,
        Some(data.as_c_str()),
    )
    .map_err(|errno| Status::failed_precondition(format!("cannot mount it: {errno}")))
}

/// Unmounts what the request says.
pub(crate) fn unmount(request: &v1::UnmountRequest) -> Result<(), Status> {
    let flags = if request.lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(OsStr::from_bytes(&request.target), flags)
        .map_err(|errno| Status::failed_precondition(format!("cannot unmount it: {errno}")))
}

/// Options apart: what the kernel knows for all file systems, and what one file system reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    flags: MountFlags,
    data: String,
}

impl Options {
    pub(crate) fn parse(text: &str) -> Self {
        let mut flags = MountFlags::empty();
        let mut data = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "defaults" | "rw" => {}
                "ro" => flags |= MountFlags::RDONLY,
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                "sync" => flags |= MountFlags::SYNCHRONOUS,
                "dirsync" => flags |= MountFlags::DIRSYNC,
                "bind" => flags |= MountFlags::BIND,
                "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
                word => data.push(word),
            }
        }
        Options { flags, data: data.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        assert_eq!(
            Options::parse("ro,nosuid,,size=64M,mode=0755"),
            Options {
                flags: MountFlags::RDONLY | MountFlags::NOSUID,
                data: "size=64M,mode=0755".into()
            }
        );
        assert_eq!(Options::parse(""), Options { flags: MountFlags::empty(), data: String::new() });
    }

    proptest! {
        #[test]
        fn any_options_are_read(text: String) {
            let _ = Options::parse(&text);
        }
    }
}
