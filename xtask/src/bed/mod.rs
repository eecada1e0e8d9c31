//! The test bed: a host whose KVM runs stock Linux, on any machine.
//!
//! ```text
//!   this machine                    emulated host (QEMU's TCG with SVM)           guest
//!   xtask ── virtio-serial ───────▶ agent ── runs ──▶ vmm ── /dev/kvm ──────────▶ stock Linux
//!     project ── 9p, read-only ───▶ same path
//!     target/bed/scratch ── 9p ───▶ same path
//! ```
//!
//! Where /dev/kvm runs guests natively the first two columns are one.

pub(crate) mod agent;
mod assets;
pub(crate) mod command;
mod console;
pub(crate) mod counts;
pub(crate) mod crates;
pub(crate) mod host;
mod images;
mod kernel;
pub(crate) mod later;
mod modules;
pub(crate) mod native;
mod packages;
pub(crate) mod protocol;
mod qemu;
mod qmp;
pub(crate) mod session;
mod snapshot;
mod stdin;
pub(crate) mod systems;
mod terminal;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::assets::Assets;
use self::console::Echo;
use self::protocol::{Access, Exec, Mount, Size};
use self::qemu::Share;
use self::session::{CONSOLE_LOG, Session};
use self::snapshot::Snapshot;
use crate::project;

pub(crate) use self::command::BedArguments;
pub(crate) use self::packages::Missing;

/// Enough for a guest of 6 GiB beside the host itself.
const MEMORY_MIB: u64 = 8192;
/// What the emulator itself and the files that are served to it take.
const HOST_OVERHEAD_MIB: u64 = 2048;

/// Variables of ours that a command on the emulated host gets too.
const PASSED: &[&str] = &["TERM", "LANG", "RUST_LOG", "RUST_BACKTRACE"];
const PASSED_PREFIX: &str = "VMM_";

/// The folder of a session ends in its process and a number.
const RUN_PREFIX: &str = "run-";
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// How an emulated host is set up.
pub(crate) struct Options {
    pub(crate) memory_mib: Option<u64>,
    /// Folders beside the project, as on the command line.
    pub(crate) shares: Vec<String>,
    pub(crate) echo: Echo,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory_mib: None, shares: Vec::new(), echo: Echo::Silent }
    }
}

/// What a command finds in its environment, and where it starts.
pub(crate) struct Environment {
    pub(crate) variables: Vec<(String, String)>,
    directory: PathBuf,
}

impl Environment {
    /// The environment of a command on this machine.
    pub(crate) fn native() -> Result<Self> {
        let assets = Assets::ensure()?;
        let release = project::vmm_binary();
        let release = release.parent().unwrap_or(Path::new("/"));
        let path = env::var("PATH").unwrap_or_default();
        let mut variables = variables(&assets, &assets.folder());
        variables.push(("VMM_BED".into(), "native".into()));
        let myself = env::current_exe().context("cannot find this program")?;
        variables.push(("VMM_BED_XTASK".into(), myself.display().to_string()));
        variables.push(("PATH".into(), format!("{}:{path}:/usr/sbin:/sbin", release.display())));
        Ok(Self { variables, directory: env::current_dir()? })
    }

    fn emulated(assets: &Assets, mounts: &[Mount]) -> Result<Self> {
        let mut variables = variables(assets, Path::new("/bed"));
        variables.push(("VMM_BED".into(), "emulated".into()));
        variables.push(("VMM_BED_XTASK".into(), "/run/bed/bin/agent".into()));
        variables.push((
            "PATH".into(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/busybox".into(),
        ));
        variables.push(("HOME".into(), "/root".into()));
        for (name, value) in env::vars() {
            let set = variables.iter().any(|(other, _)| *other == name);
            if !set && (PASSED.contains(&&*name) || name.starts_with(PASSED_PREFIX)) {
                variables.push((name, value));
            }
        }
        let here = env::current_dir().context("cannot tell the working directory")?;
        let visible = mounts.iter().any(|mount| here.starts_with(&mount.path));
        let directory = if visible { here } else { project::root() };
        Ok(Self { variables, directory })
    }

    /// A command in this environment.
    pub(crate) fn exec(&self, command: Vec<String>, terminal: Option<Size>) -> Exec {
        Exec {
            command,
            environment: self.variables.clone(),
            directory: self.directory.clone(),
            terminal,
        }
    }
}

/// The variables that say where things are; `images` is the folder of the guest's images.
fn variables(assets: &Assets, images: &Path) -> Vec<(String, String)> {
    let in_images = |path: PathBuf| images.join(path.file_name().unwrap_or_default());
    [
        ("VMM_BED_KERNEL", in_images(assets.vmlinux())),
        ("VMM_BED_BZIMAGE", in_images(assets.bzimage())),
        ("VMM_BED_INITRD", in_images(assets.initrd())),
        ("VMM_BED_DISK", in_images(assets.disk())),
        ("VMM_BED_TOOLS_DISK", assets.tools_disk()),
        ("VMM_BED_MODULES", assets.guest_modules()),
        ("VMM_BED_HOST_MODULES", assets.host_modules()),
        ("VMM_BED_SCRATCH", scratch()),
        ("VMM_BED_CRATES", crates::folder()),
        ("VMM_BED_LATER", later::folder()),
        ("VMM_BED_SYSTEMS", systems::folder()),
    ]
    .into_iter()
    .map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned()))
    .collect()
}

/// The folder that both sides may write to.
pub(crate) fn scratch() -> PathBuf {
    project::bed().join("scratch")
}

/// Brings an emulated host up: from the saved state, and when that does not work, visibly, from
/// a new one.
pub(crate) fn open_session(options: &Options) -> Result<(Session, Environment)> {
    packages::ensure_programs(packages::EMULATOR)?;
    let assets = Assets::ensure()?;
    let memory_mib = match options.memory_mib {
        Some(memory) => memory,
        None => MEMORY_MIB.min(machine_memory_mib()? / 2),
    };
    let folders = shared_folders(&options.shares)?;
    let first = restore(&assets, memory_mib, &folders, options.echo);
    first.or_else(|error| {
        counts::add(counts::Event::FailedRestore)?;
        eprintln!("bed: {error:#}\nbed: booting the emulated host anew");
        Snapshot::ensure(&assets, memory_mib, options.echo)?.discard()?;
        restore(&assets, memory_mib, &folders, options.echo)
    })
}

fn restore(
    assets: &Assets,
    memory_mib: u64,
    folders: &[(PathBuf, Access)],
    echo: Echo,
) -> Result<(Session, Environment)> {
    let snapshot = Snapshot::ensure(assets, memory_mib, echo)?;
    let start = Instant::now();
    let run_folder = make_run_folder()?;
    let (shares, mounts) = assign(folders, &run_folder);
    let machine = snapshot.restore(assets, &shares, &run_folder.join(CONSOLE_LOG), echo)?;
    let restored = start.elapsed();
    let environment = Environment::emulated(assets, &mounts)?;
    let modules = assets.host_modules().join("lib/modules");
    let session = Session::open(machine, mounts, modules, run_folder)?;
    if echo == Echo::StandardError {
        eprintln!(
            "bed: restored in {} ms, ready after {} ms",
            restored.as_millis(),
            start.elapsed().as_millis()
        );
    }
    Ok((session, environment))
}

/// The folder with the programs of one session: links, so that a build meanwhile changes nothing.
fn make_run_folder() -> Result<PathBuf> {
    remove_stale_run_folders()?;
    let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let folder = project::bed().join(format!("{RUN_PREFIX}{}-{number}", std::process::id()));
    tree::clear(&folder)?;
    fs::create_dir(folder.join("bin"))?;
    link(&env::current_exe()?, &folder.join("bin/agent"))?;
    let vmm = project::vmm_binary();
    if vmm.exists() {
        link(&vmm, &folder.join("bin/vmm"))?;
    }
    Ok(folder)
}

/// Removes the folders of sessions that were killed.
fn remove_stale_run_folders() -> Result<()> {
    for entry in fs::read_dir(project::bed())? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(RUN_PREFIX));
        let process = rest.and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            tree::remove(&entry.path())?;
        }
    }
    Ok(())
}

fn link(file: &Path, name: &Path) -> Result<()> {
    fs::hard_link(file, name)
        .or_else(|_| fs::copy(file, name).map(drop))
        .with_context(|| format!("cannot link {}", file.display()))
}

/// The folders that the emulated host sees, beside that of the session.
fn shared_folders(shares: &[String]) -> Result<Vec<(PathBuf, Access)>> {
    fs::create_dir_all(scratch())?;
    let root = project::root();
    let mut folders = vec![(root.clone(), Access::ReadOnly), (scratch(), Access::ReadWrite)];
    if !project::target().starts_with(&root) {
        folders.push((project::bed(), Access::ReadOnly));
    }
    for share in shares {
        let (folder, access) = command::parse_share(share);
        let folder = fs::canonicalize(&folder)
            .with_context(|| format!("cannot share {}", folder.display()))?;
        ensure!(folder.is_dir(), "cannot share {}: it is no folder", folder.display());
        folders.push((folder, access));
    }
    // One device is the session's own.
    ensure!(folders.len() < qemu::tags().len(), "at most {} folders", qemu::SHARE_SLOTS);
    Ok(folders)
}

/// Gives each folder a 9p device, and says where the emulated host mounts them. The first device is
/// the session's own, which the init script mounts.
fn assign(folders: &[(PathBuf, Access)], run_folder: &Path) -> (Vec<Share>, Vec<Mount>) {
    let tags = qemu::tags();
    let mut mounts: Vec<Mount> = tags
        .iter()
        .skip(1)
        .zip(folders)
        .map(|(tag, (path, access))| Mount {
            tag: tag.clone(),
            path: path.clone(),
            access: *access,
        })
        .collect();
    // A folder inside of another is mounted after it.
    mounts.sort_by(|one, other| one.path.cmp(&other.path));
    let own = (run_folder.to_path_buf(), Access::ReadOnly);
    let unused = (run_folder.join("bin"), Access::ReadOnly);
    let all = std::iter::once(&own).chain(folders).chain(std::iter::repeat(&unused));
    let shares = tags
        .into_iter()
        .zip(all)
        .map(|(tag, (folder, access))| Share { tag, folder: folder.clone(), access: *access })
        .collect();
    (shares, mounts)
}

/// How many emulated hosts fit into this machine's memory.
pub(crate) fn hosts_in_memory() -> usize {
    let hosts = machine_memory_mib().unwrap_or_default() / (MEMORY_MIB + HOST_OVERHEAD_MIB);
    usize::try_from(hosts).unwrap_or(usize::MAX)
}

fn machine_memory_mib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .context("/proc/meminfo has no MemTotal")?;
    Ok(kib >> 10)
}
