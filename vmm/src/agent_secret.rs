//! The file with the secret that host and guest agent share.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use proto::credentials::{SECRET_BYTES, Secret};
use rustix::rand::{GetRandomFlags, getrandom};

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
    match create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        result => result,
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
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let secret = random()?;
    writeln!(file, "{}", secret.to_hex())?;
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
}
