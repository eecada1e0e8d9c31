//! The mounts that the host has asked for, the root among them.
//!
//! ```text
//!   target /        mounted beside the first root, which then goes out of sight under it; the agent
//!                   does not start again, it moves its mounts over and changes its own root
//!   other targets   mounted in that root
//!   overlay         the file system read-only below, a tmpfs above:
//!
//!                   layers (tmpfs) ── lower ◀─ the file system
//!                                  ├─ upper        │  overlayfs has mounts of its own of all these,
//!                                  └─ work         └─ so nothing of them stays in sight
//! ```

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use proto::mounts::{Access, Mount, MountError, TABLE};
use rustix::fs::{XattrFlags, setxattr};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Where the root is put together.
const NEW_ROOT: &str = "/.vmm/newroot";
/// Where an overlay is put together; /run is in memory in both roots.
const LAYERS: &str = "/run/.vmm-layers";
/// What overlayfs calls a folder of the upper layer that hides the lower one's.
const OPAQUE: &str = "trusted.overlay.opaque";
/// What programs of the new root expect to be mounted.
const MOVED: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];
/// A driver finds its devices while it is loaded, on a busy host a little later.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);
const DEVICE_INTERVAL: Duration = Duration::from_millis(5);

/// What could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Table(#[from] MountError),
    #[error("the guest's kernel has no file system `{0}`")]
    NoFileSystem(String),
    #[error("cannot mount {what} at {} as {fstype}: {source}", at.display())]
    Mount { what: String, at: PathBuf, fstype: String, source: io::Error },
    #[error("cannot go over to the root file system: {0}")]
    Root(io::Error),
}

/// Mounts all of the table, if there is one.
pub(super) fn mount() -> Result<(), Problem> {
    let Ok(table) = fs::read_to_string(TABLE) else {
        return Ok(());
    };
    let (roots, others): (Vec<_>, Vec<_>) =
        Mount::parse_table(&table)?.into_iter().partition(|mount| mount.target == b"/");
    let targets: Vec<_> =
        others.iter().map(|mount| Path::new(OsStr::from_bytes(&mount.target))).collect();
    for root in roots {
        let places: Vec<_> = MOVED.map(Path::new).into_iter().chain(targets.clone()).collect();
        mount_one(&root, Path::new(NEW_ROOT), &places)?;
        change_root().map_err(Problem::Root)?;
    }
    for (mount, &target) in others.iter().zip(&targets) {
        let places: Vec<_> =
            targets.iter().filter_map(|place| place.strip_prefix(target).ok()).collect();
        mount_one(mount, target, &places)?;
    }
    Ok(())
}

/// `places` are those in it where something else will be mounted.
fn mount_one(mount: &Mount, at: &Path, places: &[&Path]) -> Result<(), Problem> {
    let problem = |fstype: &str, source: io::Error| match source.raw_os_error() {
        Some(libc::ENODEV) => Problem::NoFileSystem(fstype.to_owned()),
        _ => Problem::Mount {
            what: String::from_utf8_lossy(&mount.source).into_owned(),
            at: at.to_owned(),
            fstype: fstype.to_owned(),
            source,
        },
    };
    fs::create_dir_all(at).map_err(|error| problem(&mount.fstype, error))?;
    let attach = |at: &Path, flags| {
        wait_for_device(&mount.source);
        plain(mount, at, flags).map_err(|error| problem(&mount.fstype, error))
    };
    match mount.access {
        Access::ReadOnly => attach(at, MountFlags::RDONLY),
        Access::ReadWrite => attach(at, MountFlags::empty()),
        Access::Overlay => {
            let layers = Layers::new().map_err(|error| problem("tmpfs", error))?;
            attach(&layers.lower, MountFlags::RDONLY)?;
            for place in places {
                layers.make_place(place).map_err(|error| problem("overlay", error))?;
            }
            layers.mount(at).map_err(|error| problem("overlay", error))
        }
    }
}

fn plain(mount: &Mount, at: &Path, flags: MountFlags) -> io::Result<()> {
    let source = OsStr::from_bytes(&mount.source);
    let with = |data: Option<&str>| -> Result<(), io::Error> {
        let data = data.map(CString::new).transpose()?;
        Ok(rustix::mount::mount(source, at, mount.fstype.as_str(), flags, data.as_deref())?)
    };
    match with(None) {
        // Nobody unmounted it in order, and its journal cannot be replayed on a disk that is read-only.
        Err(error)
            if flags.contains(MountFlags::RDONLY)
                && without_journal(&mount.fstype).is_some()
                && matches!(Errno::from_io_error(&error), Some(Errno::ROFS | Errno::ACCESS)) =>
        {
            log::warn!("the file system on {} was not unmounted in order", source.display());
            with(without_journal(&mount.fstype))
        }
        result => result,
    }
}

/// The option that leaves the journal alone.
fn without_journal(fstype: &str) -> Option<&'static str> {
    match fstype {
        "ext3" | "ext4" => Some("noload"),
        "xfs" => Some("norecovery"),
        "btrfs" => Some("rescue=nologreplay"),
        _ => None,
    }
}

/// Waits until a device is there. What is no device is there already.
fn wait_for_device(source: &[u8]) {
    let path = Path::new(OsStr::from_bytes(source));
    let mut waited = Duration::ZERO;
    while source.starts_with(b"/dev/") && !path.exists() && waited < DEVICE_PATIENCE {
        std::thread::sleep(DEVICE_INTERVAL);
        waited += DEVICE_INTERVAL;
    }
}

/// The parts of an overlay that is being put together. Dropped, they go out of sight.
struct Layers {
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn new() -> io::Result<Self> {
        let folder = Path::new(LAYERS);
        fs::create_dir_all(folder)?;
        rustix::mount::mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))?;
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.join(name));
        let layers = Layers { lower, upper, work };
        for part in [&layers.lower, &layers.upper, &layers.work] {
            fs::create_dir(part)?;
        }
        Ok(layers)
    }

    /// Sees to it that something can be mounted at a path. A shared directory ends where the host has
    /// mounted something else: such a place gets an empty folder that hides it.
    fn make_place(&self, path: &Path) -> io::Result<()> {
        let mut above = Vec::new();
        let mut place = PathBuf::new();
        for part in path.components() {
            match part {
                Component::RootDir => continue,
                Component::Normal(name) => place.push(name),
                _ => return Ok(()),
            }
            match fs::symlink_metadata(self.lower.join(&place)) {
                Ok(folder) if folder.is_dir() => above.push((place.clone(), folder.permissions())),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    for (folder, permissions) in above {
                        fs::create_dir_all(self.upper.join(&folder))?;
                        fs::set_permissions(self.upper.join(folder), permissions)?;
                    }
                    let place = self.upper.join(place);
                    fs::create_dir_all(&place)?;
                    return Ok(setxattr(place, OPAQUE, b"y", XattrFlags::empty())?);
                }
                // What is missing can be made later; a link leads to another place.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Makes the upper layer's top look like the lower's, and mounts both.
    fn mount(&self, at: &Path) -> io::Result<()> {
        let Self { lower, upper, work } = self;
        fs::set_permissions(upper, fs::metadata(lower)?.permissions())?;
        let data = CString::new(format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        ))?;
        let flags = MountFlags::empty();
        Ok(rustix::mount::mount("overlay", at, "overlay", flags, Some(data.as_c_str()))?)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // Whether there is a lower one depends on how far it came.
        let _ = rustix::mount::unmount(&self.lower, UnmountFlags::DETACH);
        let _ = rustix::mount::unmount(LAYERS, UnmountFlags::DETACH);
        let _ = fs::remove_dir(LAYERS);
    }
}

fn change_root() -> io::Result<()> {
    for mount in MOVED {
        let target = format!("{NEW_ROOT}{mount}");
        // A root that is read-only and lacks one does without.
        let _ = fs::create_dir(&target);
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => rustix::mount::mount_move(mount, &target)?,
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Err(error),
            _ => {}
        }
    }
    rustix::process::chdir(NEW_ROOT)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}
