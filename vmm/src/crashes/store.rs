//! The folder of crashes. It is its owner's alone, and has a limit: the oldest make room.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Crash;

/// Crashes that are kept,
const MAX_CRASHES: usize = 64;
/// and the bytes of all of them.
const MAX_BYTES: u64 = 64 << 20;
/// The longest description: that of a crash whose texts are as long as they can be.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// Where crashes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    folder: PathBuf,
}

/// Why a crash cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing says whose folder it is.
    #[error("there is no folder for crashes: neither XDG_STATE_HOME nor HOME is set")]
    NoFolder,
    /// The folder cannot be read.
    #[error("cannot read the crashes in `{}`", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is none of this name.
    #[error("there is no crash `{0}`")]
    Unknown(String),
    /// The guest could not make one.
    #[error("the crash `{0}` has no minidump")]
    NoMinidump(String),
    /// The beginning fits more than one.
    #[error("several crashes begin with `{0}`")]
    Several(String),
}

impl Store {
    /// The one in a folder, or the user's own.
    pub fn new(folder: Option<&Path>) -> Result<Self, StoreError> {
        let state = || env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty());
        let home = || env::var_os("HOME").filter(|path| !path.is_empty());
        let folder = folder
            .map(Path::to_owned)
            .or_else(|| state().map(|path| Path::new(&path).join("vmm/crashes")))
            .or_else(|| home().map(|path| Path::new(&path).join(".local/state/vmm/crashes")))
            .ok_or(StoreError::NoFolder)?;
        Ok(Self { folder })
    }

    /// Keeps a crash, and says where its minidump, or without one its description, is.
    pub fn add(&self, crash: &Crash) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let description = self.description(&crash.id);
        let minidump = self.minidump(&crash.id);
        if !crash.minidump.is_empty() {
            write(&minidump, &crash.minidump)?;
        }
        // Last: what has a description is complete.
        write(&description, &serde_json::to_vec_pretty(crash)?)?;
        self.make_room()?;
        Ok(if crash.minidump.is_empty() { description } else { minidump })
    }

    /// All crashes, the oldest first. Files that are none are passed over.
    pub fn list(&self) -> Result<Vec<Crash>, StoreError> {
        let names = match self.files() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(|source| self.unreadable(source))?,
        };
        Ok(names.into_keys().filter_map(|id| self.read(&id)).collect())
    }

    /// The one whose name is this, or begins with it.
    pub fn find(&self, id: &str) -> Result<Crash, StoreError> {
        let mut found = self.list()?.into_iter().filter(|crash| crash.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(crash), None) => Ok(crash),
            (None, _) => Err(StoreError::Unknown(id.to_owned())),
            (Some(_), Some(_)) => Err(StoreError::Several(id.to_owned())),
        }
    }

    /// The minidump of a crash, if it has one.
    pub fn minidump_of(&self, crash: &Crash) -> Option<PathBuf> {
        Some(self.minidump(&crash.id)).filter(|path| path.is_file())
    }

    fn unreadable(&self, source: io::Error) -> StoreError {
        StoreError::Read { path: self.folder.clone(), source }
    }

    fn description(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn minidump(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.dmp"))
    }

    fn read(&self, id: &str) -> Option<Crash> {
        let mut text = Vec::new();
        let file = File::open(self.description(id)).ok()?;
        file.take(MAX_DESCRIPTION_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|crash: &Crash| crash.id == id)
    }

    /// Bytes by id. Ids begin with the time.
    fn files(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(".json").or_else(|| name.strip_suffix(".dmp"));
            // One that another process has just removed is no longer there.
            if let (Some(id), Ok(file)) = (id, entry.metadata()) {
                *files.entry(id.to_owned()).or_default() += file.len();
            }
        }
        Ok(files)
    }

    fn make_room(&self) -> io::Result<()> {
        let files = self.files()?;
        let (mut count, mut bytes) = (files.len(), files.values().sum::<u64>());
        for (id, size) in files {
            if count <= MAX_CRASHES && bytes <= MAX_BYTES {
                break;
            }
            for path in [self.description(&id), self.minidump(&id)] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            count -= 1;
            bytes -= size;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proto::v1::CrashReport;

    use super::*;

    fn crash(pid: u32, minidump: &[u8]) -> Crash {
        let report = CrashReport { pid, minidump: minidump.into(), ..CrashReport::default() };
        let mut crash = Crash::new(report, "vm");
        crash.id = format!("20261121-{pid:06}");
        crash
    }

    #[test]
    fn what_is_kept_is_found_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/crashes");
        let store = Store::new(Some(&path)).unwrap();
        assert_eq!(store.list().unwrap(), []);
        let kept = store.add(&crash(7, b"MDMP")).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"MDMP");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&kept)), (0o700, 0o600));
        let without = store.add(&crash(8, b"")).unwrap();
        assert_eq!(without.extension().unwrap(), "json");
        assert_eq!(store.list().unwrap().len(), 2);
        let found = store.find("20261121-000007").unwrap();
        assert_eq!((found.pid, store.minidump_of(&found)), (7, Some(kept)));
        assert!(matches!(store.find("2"), Err(StoreError::Several(_))));
        assert!(matches!(store.find("3"), Err(StoreError::Unknown(_))));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Some(folder.path())).unwrap();
        for pid in 0..70 {
            store.add(&crash(pid, b"MDMP")).unwrap();
        }
        let pids = |store: &Store| -> Vec<u32> {
            store.list().unwrap().iter().map(|crash| crash.pid).collect()
        };
        assert_eq!(pids(&store), (6..70).collect::<Vec<_>>());
        let large = vec![0; 30 << 20];
        for pid in 70..73 {
            store.add(&crash(pid, &large)).unwrap();
        }
        assert_eq!(pids(&store), [71, 72]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn files_that_are_no_crashes_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Some(folder.path())).unwrap();
        fs::write(folder.path().join("x.json"), "{}").unwrap();
        fs::write(folder.path().join("note"), "text").unwrap();
        assert_eq!(store.list().unwrap(), []);
    }
}
