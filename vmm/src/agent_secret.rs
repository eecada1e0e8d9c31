//! The file with the secret that host and guest agent share.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use proto::credentials::{SECRET_BYTES, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use tempfile::NamedTempFile;

/// Its digits and an end of line.
const MAX_BYTES: u64 = SECRET_BYTES as u64 * 2 + 1;

/// Where the secret is when nobody says: beside the socket of the machine's vsock device.
pub fn beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".secret");
    name.into()
}

/// Reads the secret of a file; one that is not there is made, for its owner alone.
pub fn open(path: &Path) -> io::Result<Secret> {
    let secret = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        found => return found,
    };
    match secret {
        // Another machine was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        made => made,
    }
}

/// Reads the secret of a file.
pub fn read(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Secret::parse(text.trim_end())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Makes a file with a new secret.
pub fn create(path: &Path) -> io::Result<Secret> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Another machine may look for the file now: it is whole before it has its name. Only its owner may read it.
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    let secret = random()?;
    writeln!(file, "{}", secret.to_hex())?;
    file.persist_noclobber(path)?;
    Ok(secret)
}

fn random() -> io::Result<Secret> {
    let mut bytes = [0; SECRET_BYTES];
    // Up to 256 bytes come at once or not at all (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = open(&path).unwrap();
        let found = open(&path).unwrap();
        assert!(found.authorizes(&made.to_authorization()));
        assert!(create(&path).is_err());
        std::fs::write(&path, "short\n").unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn those_who_want_one_at_the_same_time_get_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for turn in 0..200 {
            let path = folder.path().join(turn.to_string());
            let all: Vec<Secret> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&path))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
            });
            let kept = read(&path).unwrap().to_authorization();
            assert!(all.iter().all(|secret| secret.authorizes(&kept)));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 200);
    }
}
