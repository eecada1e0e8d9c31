//! Machines by their names.
//!
//! ```text
//!   $XDG_RUNTIME_DIR/vmm/NAME/  lock          held as long as a process of the machine lives
//!                               machine.json  where its sockets are
//!                               vsock  vsock.secret  control      unless the user wants them elsewhere
//! ```
//!
//! Nobody but the user may look into these folders. What a machine that was killed leaves behind, the
//! next one of its name takes away.

mod reach;

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use reach::{ControlOf, VsockOf};

use crate::agent_secret;
use crate::config::{ConnectionLimit, GuestCid, MachineName, MachineOptions, VsockConfig};
use crate::error::Hint;

const LOCK: &str = "lock";
const RECORD: &str = "machine.json";

/// Why a name cannot be used.
#[derive(Debug, Error)]
pub enum NameError {
    /// By another machine.
    #[error("a machine called `{0}` runs already")]
    Taken(MachineName),
    /// Neither a name nor a path.
    #[error("no machine is called `{0}`, and there is no such socket")]
    Unknown(String),
    /// It cannot be made or written to.
    #[error("cannot keep names of machines in `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another user's, or one that others can look into.
    #[error("cannot keep names of machines in `{}`, which is not this user's alone", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
    },
}

impl Hint for NameError {
    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        Some(match self {
            Self::Taken(_) | Self::Unknown(_) => "`vmm list` shows those that run".into(),
            Self::Folder { .. } => "XDG_RUNTIME_DIR says where they are kept".into(),
            Self::Exposed { .. } => "make it this user's, with mode 0700".into(),
        })
    }
}

/// Where a machine can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sockets {
    pub(crate) pid: u32,
    pub(crate) vsock: PathBuf,
    pub(crate) secret: PathBuf,
    pub(crate) control: PathBuf,
}

/// A name that is a machine's as long as this is kept.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes the name of the options, if they have one, and gives the machine the sockets that it has to
    /// have.
    pub(crate) fn of(options: &mut MachineOptions) -> Result<Option<Self>, NameError> {
        let Some(name) = options.name.take() else { return Ok(None) };
        Self::take(&folder(), &name, options).map(Some)
    }

    fn take(
        base: &Path,
        name: &MachineName,
        options: &mut MachineOptions,
    ) -> Result<Self, NameError> {
        make_private(base)?;
        let folder = base.join(name.as_str());
        let lock = lock(&folder)?.ok_or_else(|| NameError::Taken(name.clone()))?;
        let claim = Self { folder, _lock: lock };
        claim.empty().map_err(failed_at(&claim.folder))?;
        let sockets = claim.furnish(options);
        let record = serde_json::to_vec(&sockets).map_err(io::Error::from);
        record
            .and_then(|text| fs::write(claim.folder.join(RECORD), text))
            .map_err(failed_at(&claim.folder))?;
        Ok(claim)
    }

    /// Removes what a predecessor left.
    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn furnish(&self, options: &mut MachineOptions) -> Sockets {
        let vsock = options.vsock.get_or_insert_with(|| VsockConfig {
            path: self.folder.join("vsock"),
            cid: GuestCid::default(),
            connections: ConnectionLimit::default(),
            cpus: None,
        });
        let secret = options.agent_secret.get_or_insert_with(|| agent_secret::beside(&vsock.path));
        let control = options.control.get_or_insert_with(|| self.folder.join("control"));
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Sockets {
            pid: std::process::id(),
            vsock: absolute(&vsock.path),
            secret: absolute(secret),
            control: absolute(control),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock as the last file: a successor that finds none has the folder for itself. If it was as quick as
        // that, the folder is not empty and stays.
        let _ = self.empty();
        let _ = fs::remove_file(self.folder.join(LOCK));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Makes a folder and takes its lock. None if somebody has it.
fn lock(folder: &Path) -> Result<Option<File>, NameError> {
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(false).mode(0o600);
    loop {
        make_private(folder)?;
        let lock = match open.open(folder.join(LOCK)) {
            // A machine that has just ended took the folder away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lock => lock.map_err(failed_at(folder))?,
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Else it was the lock of one that has just ended.
            if lock.metadata().map_err(failed_at(folder))?.nlink() > 0 {
                return Ok(Some(lock));
            }
        } else if flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(None);
        } else {
            // Those who look whether the machine runs share it for a moment.
            std::thread::yield_now();
        }
    }
}

/// All machines that run and have a name, by name.
pub(crate) fn running() -> io::Result<Vec<(String, Sockets)>> {
    running_in(&folder())
}

fn running_in(base: &Path) -> io::Result<Vec<(String, Sockets)>> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(sockets) = find(base, &name) {
            all.push((name, sockets));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// None if no machine of that name runs.
fn find(base: &Path, name: &str) -> Option<Sockets> {
    let name: MachineName = name.parse().ok()?;
    let folder = base.join(name.as_str());
    let lock = File::open(folder.join(LOCK)).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()
}

/// Where the names of this user's machines are.
fn folder() -> PathBuf {
    let user = rustix::process::getuid();
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) => PathBuf::from(folder).join("vmm"),
        None if user.is_root() => "/run/vmm".into(),
        None => env::temp_dir().join(format!("vmm-{}", user.as_raw())),
    }
}

/// A folder that is this user's alone, made if it is not there.
fn make_private(path: &Path) -> Result<(), NameError> {
    let found = loop {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed_at(path)(error));
            }
            _ => {}
        }
        // The link itself: another user's could lead to a folder of ours.
        match fs::symlink_metadata(path) {
            // A machine that has just ended took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => break found.map_err(failed_at(path))?,
        }
    };
    let ours = found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
    let for_others = found.mode() % 0o100;
    if ours && for_others == 0 { Ok(()) } else { Err(NameError::Exposed { path: path.into() }) }
}

fn failed_at(path: &Path) -> impl FnOnce(io::Error) -> NameError {
    let path = path.to_owned();
    move |source| NameError::Folder { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{self, TryRecvError};
    use std::thread;

    use super::*;

    fn name() -> MachineName {
        "web".parse().unwrap()
    }

    /// What a machine that was killed leaves.
    fn leave_dead(base: &Path) {
        make_private(base).unwrap();
        make_private(&base.join("web")).unwrap();
        fs::write(base.join("web").join(LOCK), "").unwrap();
        fs::write(base.join("web/vsock_7777"), "").unwrap();
    }

    #[test]
    fn a_name_is_one_machines_and_free_again_after_it() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("vmm");
        assert_eq!(running_in(&base).unwrap(), []);
        let mut options = MachineOptions::default();
        let claim = Claim::take(&base, &name(), &mut options).unwrap();
        let sockets = find(&base, "web").unwrap();
        assert_eq!(options.control, Some(sockets.control.clone()));
        assert_eq!(options.vsock.unwrap().path, sockets.vsock);
        assert_eq!(running_in(&base).unwrap(), [("web".to_owned(), sockets)]);
        let second = Claim::take(&base, &name(), &mut MachineOptions::default());
        assert!(matches!(second, Err(NameError::Taken(_))));
        drop(claim);
        assert_eq!(find(&base, "web"), None);
        Claim::take(&base, &name(), &mut MachineOptions::default()).unwrap();
    }

    #[test]
    fn what_the_user_named_stays_where_it_is() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("vmm");
        let mut options =
            MachineOptions { control: Some("/run/ctl".into()), ..MachineOptions::default() };
        let _claim = Claim::take(&base, &name(), &mut options).unwrap();
        assert_eq!(find(&base, "web").unwrap().control, Path::new("/run/ctl"));
    }

    #[test]
    fn what_the_dead_left_is_taken_away() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("vmm");
        leave_dead(&base);
        assert_eq!(running_in(&base).unwrap(), []);
        let _claim = Claim::take(&base, &name(), &mut MachineOptions::default()).unwrap();
        assert!(!base.join("web/vsock_7777").exists());
    }

    #[test]
    fn names_go_from_machine_to_machine_while_others_look_at_them() {
        let base = tempfile::tempdir().unwrap();
        let base = &base.path().join("vmm");
        let (going, over) = mpsc::channel::<()>();
        let take = || Claim::take(base, &name(), &mut MachineOptions::default());
        thread::scope(|scope| {
            // Goes away also with a failure.
            let _going = going;
            scope.spawn(move || {
                while over.try_recv() == Err(TryRecvError::Empty) {
                    running_in(base).unwrap();
                }
            });
            for _ in 0..1000 {
                let claim = take().unwrap();
                assert!(find(base, "web").is_some());
                drop(claim);
                leave_dead(base);
            }
            let one_of_two = || {
                for _ in 0..1000 {
                    match take() {
                        Ok(_claim) => assert!(find(base, "web").is_some()),
                        Err(error) => assert!(matches!(error, NameError::Taken(_)), "{error:?}"),
                    }
                }
            };
            let other = scope.spawn(one_of_two);
            one_of_two();
            other.join().unwrap();
        });
    }

    #[test]
    fn a_folder_that_others_may_change_is_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let claim = Claim::take(base.path(), &name(), &mut MachineOptions::default());
        assert!(matches!(claim, Err(NameError::Exposed { .. })));
    }
}
