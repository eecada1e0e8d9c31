//! Files between this host and a guest that runs.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use agent_client::{Activity, CopyError, Guest, Place, Session, fetch, store};
use executor::{Either, Fd, select};

use super::{Error, Wanted, executor};
use crate::agent_secret;
use crate::terminal;

/// How often the progress is shown.
const INTERVAL: Duration = Duration::from_millis(500);
/// What a file gets that comes from standard input.
const PLAIN_MODE: u32 = 0o644;

/// What to copy.
#[derive(Debug)]
pub struct Transfer {
    /// The socket of the guest's vsock device.
    pub socket: PathBuf,
    /// The file with its agent's secret.
    pub secret: PathBuf,
    /// Which way, and what.
    pub files: Files,
    /// Whether to say how far it is.
    pub progress: Progress,
}

/// Files, and where they go.
#[derive(Debug, PartialEq, Eq)]
pub enum Files {
    /// Into the guest: a file, or into a folder.
    In(Vec<Local>, PathBuf),
    /// Out of the guest.
    Out(Vec<PathBuf>, Local),
}

/// A file of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Standard input or output.
    Standard,
    /// A file or a folder.
    Path(PathBuf),
}

/// When the progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// If that is a terminal.
    OnTerminal,
    /// As lines, whatever it is.
    Always,
    /// Not at all.
    Never,
}

/// Copies all of them. The first that fails ends it.
pub fn copy(transfer: Transfer) -> Result<(), Error> {
    let Transfer { socket, secret, files, progress } = transfer;
    let secret =
        agent_secret::read(&secret).map_err(|source| Error::Read { path: secret, source })?;
    executor()?.block_on(async {
        let session = Session::open(&Guest::new(socket), &secret).await?;
        match files {
            Files::In(sources, target) => {
                for source in &sources {
                    copy_in(&session, source, &target, progress).await?;
                }
            }
            Files::Out(sources, target) => {
                for source in &sources {
                    copy_out(&session, source, &target, progress).await?;
                }
            }
        }
        Ok(())
    })
}

async fn copy_in(
    session: &Session,
    source: &Local,
    target: &Path,
    progress: Progress,
) -> Result<(), Error> {
    let activity = Activity::default();
    let (from, shown, mode, size) = match source {
        Local::Standard => {
            let from =
                Fd::new(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(|errno| {
                    Error::Host { doing: "use standard input", source: errno.into() }
                })?);
            (from, Path::new("stdin"), PLAIN_MODE, None)
        }
        Local::Path(path) => {
            let cannot = |source| Error::Read { path: path.clone(), source };
            let file = File::open(path).map_err(cannot)?;
            let metadata = file.metadata().map_err(cannot)?;
            if metadata.is_dir() {
                return Err(cannot(io::ErrorKind::IsADirectory.into()));
            }
            let mode = metadata.permissions().mode() & 0o7777;
            (Fd::unregistered(file), path.as_path(), mode, Some(metadata.len()))
        }
    };
    let from = from.map_err(Error::host("read a file"))?;
    let name = shown.file_name().unwrap_or(OsStr::new("")).as_bytes().to_vec();
    let place = Place { path: target.as_os_str().as_bytes().to_vec(), name, mode };
    let copy = store(session, &from, place, &activity);
    with_progress(copy, shown, size, &activity, progress).await
}

async fn copy_out(
    session: &Session,
    source: &Path,
    target: &Local,
    progress: Progress,
) -> Result<(), Error> {
    let activity = Activity::default();
    let incoming = fetch(session, source.as_os_str().as_bytes()).await?;
    let to = match target {
        Local::Standard => {
            rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3).map_err(io::Error::from)
        }
        Local::Path(path) => create(path, source, incoming.mode).map(Into::into),
    };
    let to = to.and_then(Fd::unregistered).map_err(Error::host("make a file"))?;
    let size = Some(incoming.size);
    let copy = incoming.copy_to(session, &to, &activity);
    with_progress(copy, source, size, &activity, progress).await
}

/// Makes a file, in the folder if the target is one.
fn create(target: &Path, source: &Path, mode: u32) -> io::Result<File> {
    let path = match source.file_name() {
        Some(name) if target.is_dir() => target.join(name),
        _ => target.to_owned(),
    };
    // A guest must not make files here that change who runs them.
    let mode = mode & 0o777;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

async fn with_progress(
    copy: impl Future<Output = Result<u64, CopyError>>,
    path: &Path,
    size: Option<u64>,
    activity: &Activity,
    progress: Progress,
) -> Result<(), Error> {
    let (shown, end) = match progress {
        Progress::Always => (Wanted::Yes, "\n"),
        Progress::OnTerminal if io::stderr().is_terminal() => (Wanted::Yes, "\r"),
        Progress::Never | Progress::OnTerminal => (Wanted::No, ""),
    };
    let start = Instant::now();
    let name = path.to_string_lossy().into_owned();
    let say = |end: &str| {
        if shown == Wanted::Yes {
            let mut line = terminal::cleaned(&name);
            line.push_str(&describe(activity.bytes(), size, start.elapsed()));
            // Nobody need see it.
            let _ = write!(io::stderr(), "{line}{end}");
        }
    };
    let mut copy = pin!(copy);
    let result = loop {
        match select(copy.as_mut(), executor::sleep(INTERVAL)).await {
            Either::Left(result) => break result,
            Either::Right(()) => say(end),
        }
    };
    say("\n");
    result?;
    Ok(())
}

/// `: 12.0 of 48.0 MiB, 25 %, 6.0 MiB/s`.
fn describe(done: u64, size: Option<u64>, time: Duration) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rate = mib(done) / time.as_secs_f64().max(0.001);
    match size {
        Some(size) => {
            let percent = done.saturating_mul(100).checked_div(size).unwrap_or(100);
            format!(": {:.1} of {:.1} MiB, {percent} %, {rate:.1} MiB/s", mib(done), mib(size))
        }
        None => format!(": {:.1} MiB, {rate:.1} MiB/s", mib(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_a_part_and_a_rate() {
        let time = Duration::from_secs(2);
        assert_eq!(describe(12 << 20, Some(48 << 20), time), ": 12.0 of 48.0 MiB, 25 %, 6.0 MiB/s");
        assert_eq!(describe(0, Some(0), time), ": 0.0 of 0.0 MiB, 100 %, 0.0 MiB/s");
        assert_eq!(describe(1 << 20, None, time), ": 1.0 MiB, 0.5 MiB/s");
    }

    #[test]
    fn files_go_into_folders_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), Path::new("/etc/motd"), 0o6755).unwrap();
        let made = fs::metadata(folder.path().join("motd")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o755);
        create(&folder.path().join("other"), Path::new("/etc/motd"), 0o600).unwrap();
        assert!(folder.path().join("other").exists());
    }
}
