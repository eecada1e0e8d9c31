//! What users give to say which machine they mean: its name, or a socket of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{NameError, Sockets, find, folder};
use crate::agent_secret;

/// How a machine's agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VsockOf {
    pub(crate) socket: PathBuf,
    /// Where its secret is, unless somebody says otherwise.
    pub(crate) secret: PathBuf,
    /// What to call it: its name, or that of its socket without the ending.
    pub(crate) name: String,
}

impl VsockOf {
    pub(crate) fn parse(text: &OsStr) -> Result<Self, NameError> {
        let path = Path::new(text);
        Ok(match named(path)? {
            Some((name, sockets)) => Self { socket: sockets.vsock, secret: sockets.secret, name },
            None => Self {
                socket: path.into(),
                secret: agent_secret::beside(path),
                name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            },
        })
    }
}

/// How a machine is controlled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlOf(pub(crate) PathBuf);

impl ControlOf {
    pub(crate) fn parse(text: &OsStr) -> Result<Self, NameError> {
        let path = Path::new(text);
        Ok(Self(match named(path)? {
            Some((_, sockets)) => sockets.control,
            None => path.into(),
        }))
    }
}

/// What has a slash or is there is a path.
fn named(path: &Path) -> Result<Option<(String, Sockets)>, NameError> {
    if path.as_os_str().as_encoded_bytes().contains(&b'/') || path.exists() {
        return Ok(None);
    }
    let name = path.to_string_lossy().into_owned();
    match find(&folder(), &name) {
        Some(sockets) => Ok(Some((name, sockets))),
        None => Err(NameError::Unknown(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        let reached = VsockOf::parse(OsStr::new("run/vm.sock")).unwrap();
        assert_eq!(reached.socket, Path::new("run/vm.sock"));
        assert_eq!(reached.secret, Path::new("run/vm.sock.secret"));
        assert_eq!(reached.name, "vm");
        assert_eq!(ControlOf::parse(OsStr::new("./ctl")).unwrap().0, Path::new("./ctl"));
        let unknown = VsockOf::parse(OsStr::new("nobody-is-called-so"));
        assert!(matches!(unknown, Err(NameError::Unknown(_))));
    }
}
