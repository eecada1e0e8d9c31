//! Back ends that are held against each other: commands that serve a disk on a socket.

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
        "no peer is called `{0}`; known are qemu-storage-daemon, cloud-hypervisor, virtiofsd and qemu-virtiofsd, \
         others are NAME=COMMAND"
    )]
    Unknown(String),
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

    /// Whether its command is one of ours to know.
    pub fn is_known(&self) -> bool {
        self.name.parse::<Self>().is_ok_and(|known| known == *self)
    }

    /// Both ways of QEMU's: which is better depends on the file.
    pub fn qemu_storage_daemon() -> Vec<Self> {
        let known = ["qemu-storage-daemon", "qemu-storage-daemon-io_uring"];
        known.iter().filter_map(|name| name.parse().ok()).collect()
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
        assert_eq!(Contestant::qemu_storage_daemon().len(), 2);
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
