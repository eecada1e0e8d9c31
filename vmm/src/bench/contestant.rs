//! Back ends that are held against each other: commands that serve a disk on a socket.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind::{ConnectionRefused, NotFound};
use std::io::{Read, Seek};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use loadgen::LoadError;
use thiserror::Error;

use super::BenchError;

/// How long a back end may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(2);
/// How often to look whether it does.
const GLANCE: Duration = Duration::from_millis(2);

/// A back end's name and how to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contestant {
    /// What it is called in results.
    pub name: String,
    words: Vec<String>,
}

/// Whether others serve the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// It has the file for itself.
    None,
    /// There are several, and all of them read.
    Readers,
}

/// A value of `--against` that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContestantError {
    /// A name alone that is not known.
    #[error(
        "no peer is called `{0}`; known are qemu-storage-daemon, crosvm, cloud-hypervisor, virtiofsd and \
         qemu-virtiofsd, others are NAME=COMMAND"
    )]
    Unknown(String),
    /// None of those that are known.
    #[error(
        "no peer is installed: neither qemu-storage-daemon nor crosvm nor vhost_user_block is in PATH"
    )]
    NoneInstalled,
    /// Nobody could connect to it.
    #[error(
        "a peer's command says `{{socket}}` where it listens, and `{{file}}` or `{{tap}}` for what it serves"
    )]
    Placeholders,
}

/// Peers that are known by name. All serve the file with what its page cache holds.
const KNOWN: &[(&str, &str)] = &[
    (
        "qemu-storage-daemon",
        "qemu-storage-daemon --object iothread,id=io --blockdev \
         driver=file,node-name=disk,filename={file},aio=threads,locking=off --export \
         type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},\
         writable=on,num-queues={queues},iothread=io",
    ),
    (
        "qemu-storage-daemon-io_uring",
        "qemu-storage-daemon --object iothread,id=io --blockdev \
         driver=file,node-name=disk,filename={file},aio=io_uring,locking=off --export \
         type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},\
         writable=on,num-queues={queues},iothread=io",
    ),
    // Sandboxes of its own want a user and folders that few hosts have.
    ("crosvm", "crosvm devices --disable-sandbox --block vhost={socket},path={file}"),
    (
        "crosvm-io_uring",
        "crosvm devices --disable-sandbox --async-executor uring --block vhost={socket},path={file}",
    ),
    (
        "cloud-hypervisor",
        "vhost_user_block --block-backend \
         path={file},socket={socket},num_queues={queues},queue_size=256,direct=false",
    ),
    (
        "virtiofsd",
        "virtiofsd --socket-path={socket} --shared-dir={file} --cache=auto --log-level=error",
    ),
    // What came with QEMU before 8.0.
    (
        "qemu-virtiofsd",
        "/usr/lib/qemu/virtiofsd --socket-path={socket} -o source={file} -o cache=auto -o log_level=err",
    ),
];

/// Those that serve disks.
const DISK_PEERS: [&str; 3] = ["qemu-storage-daemon", "crosvm", "cloud-hypervisor"];

/// What a known peer's second way is called, beside its first.
const SECOND_WAY: &str = "-io_uring";

/// Disks to hold ours against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskPeers {
    /// All that are known and whose programs are in PATH.
    Installed,
    /// This one; of a known one each way, since which is faster depends on the file.
    One(Contestant),
}

impl DiskPeers {
    /// Each of them.
    pub fn contestants(self) -> Result<Vec<Contestant>, ContestantError> {
        match self {
            Self::Installed => Self::installed(&std::env::var_os("PATH").unwrap_or_default()),
            Self::One(peer) => Ok(peer.ways()),
        }
    }

    fn installed(path: &OsStr) -> Result<Vec<Contestant>, ContestantError> {
        let known = DISK_PEERS.iter().filter_map(|name| name.parse::<Contestant>().ok());
        let installed = known.filter(|peer| {
            std::env::split_paths(path).any(|folder| folder.join(&peer.words[0]).is_file())
        });
        let contestants: Vec<_> = installed.flat_map(Contestant::ways).collect();
        if contestants.is_empty() { Err(ContestantError::NoneInstalled) } else { Ok(contestants) }
    }
}

impl FromStr for DiskPeers {
    type Err = ContestantError;

    fn from_str(text: &str) -> Result<Self, ContestantError> {
        match text {
            "installed" => Ok(Self::Installed),
            _ => text.parse().map(Self::One),
        }
    }
}

impl Contestant {
    /// Our own disk, by the same program; with these options of a disk beside its defaults.
    pub(super) fn ours(sharing: Sharing, options: Option<&str>) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::host("find this program"))?;
        let program = program.display().to_string();
        let rest = ["device", "-q", "blk", "--socket", "{socket}", "--once"];
        let words = std::iter::once(program.as_str()).chain(rest).map(str::to_owned);
        let read_only = match sharing {
            Sharing::None => "",
            Sharing::Readers => ",ro",
        };
        let name = options.map_or("vmm".into(), |options| format!("vmm {options}"));
        let options = options.map_or(String::new(), |options| format!(",{options}"));
        let options = format!("path={{file}},queues={{queues}}{read_only}{options}");
        Ok(Self { name, words: words.chain([options]).collect() })
    }

    /// Our own shared directory, by the same program.
    pub(super) fn our_directory() -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::host("find this program"))?;
        let program = program.display().to_string();
        let options = "path={file},tag=bench,queues={queues}";
        let words = [&program, "device", "-q", "fs", "--socket", "{socket}", "--once", options];
        Ok(Self { name: "vmm".into(), words: words.map(str::to_owned).to_vec() })
    }

    /// Our own network, by the same program.
    pub(super) fn our_network() -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::host("find this program"))?;
        let program = program.display().to_string();
        let rest = ["device", "-q", "net", "--socket", "{socket}", "--once", "tap={tap}"];
        let words = std::iter::once(program.as_str()).chain(rest).map(str::to_owned);
        Ok(Self { name: "vmm".into(), words: words.collect() })
    }

    /// It, and its other way if its command is one of ours to know and there is another.
    fn ways(self) -> Vec<Self> {
        let is_known = self.name.parse::<Self>().is_ok_and(|known| known == self);
        let second = format!("{}{SECOND_WAY}", self.name);
        let second = if is_known { second.parse().ok() } else { None };
        std::iter::once(self).chain(second).collect()
    }

    /// Starts it on a socket, and connects as soon as it listens. What it serves is a file or a tap.
    pub(super) fn start(
        &self,
        what: &str,
        socket: &Path,
        queues: u16,
    ) -> Result<(Service, UnixStream), BenchError> {
        // What a predecessor left.
        let _ = std::fs::remove_file(socket);
        let filled = |word: &String| {
            word.replace("{socket}", &socket.display().to_string())
                .replace("{file}", what)
                .replace("{tap}", what)
                .replace("{queues}", &queues.to_string())
        };
        let mut words = self.words.iter().map(filled);
        let failed = |reason: String| BenchError::NoService { name: self.name.clone(), reason };
        let program = words.next().ok_or_else(|| failed("its command is empty".into()))?;
        // A file: nobody reads while it runs, and a pipe would fill up.
        let errors = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(socket.with_extension("log"))
            .map_err(BenchError::host("keep what it says"))?;
        let mut command = Command::new(&program);
        // SAFETY: one system call between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                // It must not outlive this process, however that ends.
                let signal = rustix::process::Signal::KILL;
                Ok(rustix::process::set_parent_process_death_signal(Some(signal))?)
            });
        }
        let child = command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.try_clone().map_err(BenchError::host("keep what it says"))?)
            .spawn()
            .map_err(|error| failed(format!("{program}: {error}")))?;
        let mut service = Service { child, errors };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(socket) {
                Ok(connection) => return Ok((service, connection)),
                // Not there yet, or there and not listening yet.
                Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {}
                Err(error) => return Err(failed(format!("{}: {error}", socket.display()))),
            }
            let ended = service.child.try_wait().map_err(BenchError::host("wait for a process"))?;
            if let Some(status) = ended {
                return Err(failed(format!("{status}: {}", service.last_words())));
            }
            if Instant::now() > deadline {
                return Err(failed(format!("it does not listen after {} s", PATIENCE.as_secs())));
            }
            thread::sleep(GLANCE);
        }
    }
}

impl FromStr for Contestant {
    type Err = ContestantError;

    fn from_str(text: &str) -> Result<Self, ContestantError> {
        let (name, command) = match text.split_once('=') {
            Some(parts) => parts,
            None => *KNOWN
                .iter()
                .find(|(name, _)| *name == text)
                .ok_or_else(|| ContestantError::Unknown(text.into()))?,
        };
        let serves = command.contains("{file}") || command.contains("{tap}");
        if !command.contains("{socket}") || !serves {
            return Err(ContestantError::Placeholders);
        }
        let words = command.split_whitespace().map(str::to_owned).collect();
        Ok(Self { name: name.into(), words })
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A back end that runs; it ends with this.
pub(super) struct Service {
    child: Child,
    errors: File,
}

impl Service {
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What came of a load on back ends of a contestant; where it failed, what they complained about last is in the log.
    pub(super) fn judge<T>(
        services: &mut [Self],
        contestant: &Contestant,
        load: Result<T, LoadError>,
    ) -> Result<T, BenchError> {
        load.map_err(|source| {
            let name = contestant.name.clone();
            for service in services {
                log::debug!("{name}: {}", service.last_words());
            }
            BenchError::Load { name, source }
        })
    }

    /// What it complained about last.
    fn last_words(&mut self) -> String {
        let mut text = String::new();
        // Whatever can be read is what there is to say.
        let _ = self.errors.rewind().and_then(|()| self.errors.read_to_string(&mut text));
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(GLANCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_or_described() {
        let known: Contestant = "qemu-storage-daemon".parse().unwrap();
        assert_eq!(known.words[0], "qemu-storage-daemon");
        let other: Contestant = "mine=serve --on {socket} {file}".parse().unwrap();
        assert_eq!((other.name.as_str(), other.words.len()), ("mine", 4));
        assert!(matches!("x".parse::<Contestant>(), Err(ContestantError::Unknown(_))));
        let nowhere = "mine=serve {file}".parse::<Contestant>();
        assert_eq!(nowhere, Err(ContestantError::Placeholders));
    }

    #[test]
    fn known_disks_have_each_way_and_are_found_where_they_are_installed() {
        let ways = |text: &str| {
            let contestants = text.parse::<DiskPeers>().unwrap().contestants().unwrap();
            contestants.into_iter().map(|contestant| contestant.name).collect::<Vec<_>>()
        };
        assert_eq!(ways("crosvm"), ["crosvm", "crosvm-io_uring"]);
        assert_eq!(ways("cloud-hypervisor"), ["cloud-hypervisor"]);
        assert_eq!(ways("crosvm=mine {socket} {file}"), ["crosvm"], "it is another");

        let folder = tempfile::tempdir().unwrap();
        let installed = || DiskPeers::installed(folder.path().as_os_str());
        assert_eq!(installed(), Err(ContestantError::NoneInstalled));
        for program in ["qemu-storage-daemon", "vhost_user_block"] {
            File::create(folder.path().join(program)).unwrap();
        }
        let names: Vec<_> = installed().unwrap().into_iter().map(|found| found.name).collect();
        let expected = ["qemu-storage-daemon", "qemu-storage-daemon-io_uring", "cloud-hypervisor"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_back_end_that_ends_is_told_with_its_last_words() {
        let peer = Contestant {
            name: "sick".into(),
            words: ["sh", "-c", "echo no luck >&2; exit 3"].map(str::to_owned).to_vec(),
        };
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = peer.start("f", &folder.path().join("s"), 1) else {
            panic!("it serves");
        };
        assert!(error.to_string().contains("no luck"), "{error}");
    }
}
