//! First roots that were made before: whoever wants the same again need not read, look up and write anew.
//!
//! ```text
//!   ~/.cache/vmm/first-roots/    its owner's alone
//!     HASH.cpio                  an archive
//!     HASH.made                  what was wanted, and the files that it was made of, with their stamps
//! ```
//!
//! An archive is as good as new while what is wanted is the same and every file has its stamp. Entries are
//! put in place by renaming, and the oldest make room.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Archives that are kept,
const MAX_ARCHIVES: usize = 8;
/// and the bytes of all of them.
const MAX_BYTES: u64 = 512 << 20;
/// The longest description: some hundred paths.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// A file that was changed so lately may be changed again without another stamp.
const SETTLED: Duration = Duration::from_secs(2);
/// What separates a wish and the files.
const FILES: &str = "\n-- files:\n";

/// The user's own cache.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// What tells versions of a file apart without reading it.
pub(super) fn stamp(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(it) => format!(
            "{}:{}:{}:{}.{:09}:{}.{:09}",
            it.dev(),
            it.ino(),
            it.size(),
            it.mtime(),
            it.mtime_nsec(),
            it.ctime(),
            it.ctime_nsec()
        ),
        Err(_) => "none".into(),
    }
}

impl Cache {
    /// None if there is no place for it that is the user's alone.
    pub(super) fn of_user() -> Option<Self> {
        let named = |name: &str| env::var_os(name).filter(|path| !path.is_empty());
        let base = named("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")))?;
        Self::in_folder(base.join("vmm/first-roots"))
    }

    fn in_folder(folder: PathBuf) -> Option<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
        let metadata = fs::metadata(&folder).ok()?;
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        (is_own && metadata.mode() & 0o022 == 0).then_some(Self { folder })
    }

    /// The archive for a wish, if it was made before and would come out the same.
    pub(super) fn find(&self, wish: &str) -> Option<PathBuf> {
        let archive = self.file(wish, "cpio");
        let made = self.file(wish, "made");
        if fs::metadata(&made).ok()?.len() > MAX_DESCRIPTION_BYTES {
            return None;
        }
        let text = fs::read_to_string(made).ok()?;
        let (made_for, files) = text.split_once(FILES)?;
        let is_same = |line: &str| {
            line.split_once(' ').is_some_and(|(was, path)| stamp(Path::new(path)) == was)
        };
        if made_for != wish || !files.lines().all(is_same) {
            return None;
        }
        // The one that was used last is the last to go.
        File::open(&archive).ok()?.set_modified(SystemTime::now()).ok()?;
        Some(archive)
    }

    /// Has an archive made, and keeps it. `make` writes it and says which files it has read.
    pub(super) fn add(
        &self,
        wish: &str,
        make: impl FnOnce(&Path) -> io::Result<Vec<PathBuf>>,
    ) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let new = self.folder.join(format!("{:016x}.new", u64::from_ne_bytes(random)));
        let removed = Removed(&new);
        let files = make(&new)?;
        let archive = self.file(wish, "cpio");
        fs::rename(&new, &archive)?;
        match describe(wish, &files) {
            Some(text) => {
                fs::write(&new, text)?;
                fs::rename(&new, self.file(wish, "made"))?;
            }
            // Good for this time.
            None => log::debug!("a first root is made of files that are too new to be told apart"),
        }
        drop(removed);
        self.make_room(&archive)?;
        Ok(archive)
    }

    fn file(&self, wish: &str, ending: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        wish.hash(&mut hasher);
        self.folder.join(format!("{:016x}.{ending}", hasher.finish()))
    }

    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_archive = path.extension().is_some_and(|ending| ending != "made");
            // One that another process has just removed is no longer there.
            if let Ok(metadata) = fs::metadata(&path)
                && is_archive
                && path != newest
            {
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        files.sort();
        let mut bytes = files.iter().map(|(_, size, _)| size).sum::<u64>();
        bytes += fs::metadata(newest).map_or(0, |newest| newest.len());
        let mut count = files.len() + 1;
        for (_, size, path) in files {
            if count <= MAX_ARCHIVES && bytes <= MAX_BYTES {
                break;
            }
            let _ = fs::remove_file(path.with_extension("made"));
            let _ = fs::remove_file(path);
            count -= 1;
            bytes -= size;
        }
        Ok(())
    }
}

/// Files that are stamped before they are read would do as well, but are not known then. None if one may have
/// changed since.
fn describe(wish: &str, files: &[PathBuf]) -> Option<String> {
    let mut text = format!("{wish}{FILES}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    for path in files {
        let changed = Duration::from_secs(u64::try_from(fs::metadata(path).ok()?.ctime()).ok()?);
        let name = path.to_str().filter(|name| !name.contains('\n'))?;
        if changed + SETTLED > now {
            return None;
        }
        let _ = writeln!(text, "{} {name}", stamp(path));
    }
    Some(text)
}

/// Removes what was not put in its place.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache::in_folder(folder.join("cache")).unwrap()
    }

    #[test]
    fn an_archive_is_made_again_when_a_file_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let own = folder.path().join("own");
        fs::write(&own, "1").unwrap();
        let make = |text: &'static str, files: Vec<PathBuf>| {
            move |path: &Path| fs::write(path, text).map(|()| files)
        };
        let archive = cache.add("wish", make("archive", Vec::new())).unwrap();
        assert_eq!(fs::read(&archive).unwrap(), b"archive");
        assert_eq!(cache.find("wish"), Some(archive));
        assert_eq!(cache.find("other"), None);
        cache.add("young", make("archive", vec![own.clone()])).unwrap();
        assert_eq!(cache.find("young"), None);
        let text = format!("stamped{FILES}{} {}\n", stamp(&own), own.display());
        fs::write(cache.file("stamped", "cpio"), "archive").unwrap();
        fs::write(cache.file("stamped", "made"), text).unwrap();
        assert!(cache.find("stamped").is_some());
        fs::write(&own, "22").unwrap();
        assert_eq!(cache.find("stamped"), None);
        let failed = cache.add("fails", |_| Err(io::ErrorKind::NotFound.into()));
        assert!(failed.is_err() && cache.find("fails").is_none());
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        for number in 0..20_u64 {
            let archive = cache
                .add(&number.to_string(), |path| fs::write(path, "x").map(|()| Vec::new()))
                .unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
            File::open(archive).unwrap().set_modified(time).unwrap();
        }
        let kept = |number: u64| cache.find(&number.to_string()).is_some();
        assert!(kept(19) && kept(12) && !kept(11) && !kept(0));
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 2 * MAX_ARCHIVES);
    }

    #[test]
    fn a_folder_of_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::in_folder(folder.path().to_owned()).is_none());
    }
}
