//! The command line of an agent that is an ordinary process.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::crashes::Crashed;
use crate::services;
use crate::transport::Transport;

pub(crate) const USAGE: &str = "\
Usage: vmm-agent [--unix SOCKET --secret-file FILE] [--services DIR]

Serves the host on vsock, with the secret of the SMBIOS tables; or on a Unix socket, with the secret
of a file. Keeps the services running that the files of a folder describe. As process 1 it also sets
the guest up, and the folder is /etc/vmm/services.
";

/// What the agent shall do.
#[derive(Debug)]
pub(crate) enum Wanted {
    Serve(Options),
    /// Of the kernel, for a program that crashed.
    Report(Crashed),
    Text(String),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) transport: Transport,
    pub(crate) secret: SecretSource,
    pub(crate) services: Option<PathBuf>,
}

impl Options {
    /// The kernel hands words of its own command line to process 1.
    pub(crate) fn of_init() -> Self {
        let services = Some(services::FOLDER.into());
        Self { transport: Transport::Vsock, secret: SecretSource::Firmware, services }
    }
}

#[derive(Debug)]
pub(crate) enum SecretSource {
    Firmware,
    File(PathBuf),
}

/// Why a command line means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("`{0}` needs a value")]
    NoValue(&'static str),
    #[error("there is no option `{0}`")]
    Unknown(String),
    #[error("the kernel tells of a crash in other words")]
    Crash,
    #[error("a Unix socket needs a secret from a file")]
    NoSecret,
}

pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Wanted, UsageError> {
    let mut words = words;
    let (mut unix, mut secret, mut services) = (None, None, None);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--unix") => unix = Some(words.next().ok_or(UsageError::NoValue("--unix"))?),
            Some("--secret-file") => {
                secret = Some(words.next().ok_or(UsageError::NoValue("--secret-file"))?);
            }
            Some("--services") => {
                let folder = words.next().ok_or(UsageError::NoValue("--services"))?;
                services = Some(PathBuf::from(folder));
            }
            Some("--crashed") => {
                return Crashed::parse(words).map(Wanted::Report).ok_or(UsageError::Crash);
            }
            Some("--version") => {
                return Ok(Wanted::Text(
                    concat!("vmm-agent ", env!("CARGO_PKG_VERSION"), "\n").into(),
                ));
            }
            Some("--help" | "-h") => return Ok(Wanted::Text(USAGE.into())),
            _ => return Err(UsageError::Unknown(word.to_string_lossy().into_owned())),
        }
    }
    let secret = secret.map(|path| SecretSource::File(path.into()));
    let transport = unix.map_or(Transport::Vsock, |path| Transport::Unix(path.into()));
    match (&transport, secret) {
        (Transport::Unix(_), None) => Err(UsageError::NoSecret),
        (_, secret) => Ok(Wanted::Serve(Options {
            transport,
            secret: secret.unwrap_or(SecretSource::Firmware),
            services,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Wanted, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_socket_comes_with_a_secret() {
        let Ok(Wanted::Serve(options)) = of(&["--unix", "a", "--secret-file", "b"]) else {
            panic!("refused");
        };
        assert!(matches!(options.transport, Transport::Unix(path) if path.as_os_str() == "a"));
        assert!(matches!(options.secret, SecretSource::File(path) if path.as_os_str() == "b"));
        assert_eq!(of(&["--unix", "a"]).unwrap_err(), UsageError::NoSecret);
    }

    #[test]
    fn wrong_words_are_refused() {
        assert_eq!(of(&["--unix"]).unwrap_err(), UsageError::NoValue("--unix"));
        assert_eq!(of(&["quiet"]).unwrap_err(), UsageError::Unknown("quiet".into()));
        assert!(matches!(of(&["--version"]), Ok(Wanted::Text(_))));
    }
}
