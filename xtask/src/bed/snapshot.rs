//! Boots the emulated host once, saves it at its ready mark, and wakes copies of it up.
//!
//! RAM lives in a file: shared while booting, private to each restored copy, so that restoring
//! copies nothing. What QEMU writes beside it is the state of the devices, a few hundred KiB.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::assets::Assets;
use super::console::Echo;
use super::protocol::Access;
use super::qemu::{self, Launch, Machine, Share, Start};
use super::qmp::Qmp;
use super::{counts, tree};
use crate::project;

/// A boot takes 5 to 10 s; a machine that is busy with builds needs more.
const BOOT_TIMEOUT: Duration = Duration::from_mins(3);
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(1);

/// What a booted host has touched of its RAM file, with room to spare. A full disk ends QEMU by
/// SIGBUS, without a word.
const RAM_ON_DISK: u64 = 2 << 30;

/// Snapshots that stay: one for each memory size in use.
const KEPT: usize = 3;

/// A saved host.
pub(crate) struct Snapshot {
    folder: PathBuf,
    memory_mib: u64,
}

impl Snapshot {
    /// Finds the snapshot of these assets and this memory size, or boots and saves one.
    pub(crate) fn ensure(assets: &Assets, memory_mib: u64, echo: Echo) -> Result<Self> {
        let base = project::bed().join("snapshots");
        fs::create_dir_all(&base)?;
        let mut hasher = DefaultHasher::new();
        qemu::version()?.hash(&mut hasher);
        qemu::machine_arguments(memory_mib).hash(&mut hasher);
        assets.identity().hash(&mut hasher);
        let snapshot = Self { folder: base.join(format!("{:016x}", hasher.finish())), memory_mib };

        let lock = File::create(base.join("lock"))?;
        lock.lock().context("cannot lock the snapshots")?;
        if snapshot.folder.join("state").exists() {
            // Says which ones are in use.
            File::open(snapshot.folder.join("state"))?.set_modified(SystemTime::now())?;
        } else {
            snapshot.create(assets, echo)?;
            evict(&base)?;
        }
        Ok(snapshot)
    }

    /// Forgets a snapshot that does not come up.
    pub(crate) fn discard(self) -> Result<()> {
        tree::remove(&self.folder)
    }

    fn create(&self, assets: &Assets, echo: Echo) -> Result<()> {
        eprintln!(
            "bed: booting the emulated host with {} MiB (once, its state is kept)",
            self.memory_mib
        );
        let start = Instant::now();
        let building = self.folder.with_extension("new");
        tree::clear(&building)?;
        fs::create_dir_all(&building)?;
        need_space(&building, RAM_ON_DISK)?;
        let ram = building.join("ram");
        let none = building.join("none");
        fs::create_dir_all(&none)?;
        let shares: Vec<Share> = qemu::tags()
            .into_iter()
            .map(|tag| Share { tag, folder: none.clone(), access: Access::ReadOnly })
            .collect();
        let launch = Launch {
            assets,
            memory_mib: self.memory_mib,
            start: Start::Boot { ram: &ram },
            shares: &shares,
            log: &building.join("console.log"),
            echo,
        };
        let mut machine = Machine::start(&launch)?;
        counts::add(counts::Event::ColdBoot)?;
        if let Err(error) = machine.console.wait_for("bed: READY", BOOT_TIMEOUT) {
            counts::add(counts::Event::Timeout)?;
            let state = machine.state();
            return Err(error.context(format!("the emulated host did not boot ({state})")));
        }
        let booted = start.elapsed();
        let mut qmp = Qmp::connect(machine.qmp.try_clone()?)?;
        qmp.execute("stop", &json!({}))?;
        ignore_shared(&mut qmp)?;
        qmp.execute("migrate", &json!({ "uri": save_uri(&building.join("state")) }))?;
        qmp.wait_migration(TRANSFER_TIMEOUT).context("cannot save the emulated host")?;
        drop(machine);
        tree::remove(&self.folder)?;
        fs::rename(&building, &self.folder)?;
        eprintln!(
            "bed: booted in {:.1} s, saved after {:.1} s",
            booted.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Starts a copy of the saved host; it runs when this returns.
    pub(crate) fn restore(
        &self,
        assets: &Assets,
        shares: &[Share],
        log: &Path,
        echo: Echo,
    ) -> Result<Machine> {
        let ram = self.folder.join("ram");
        let machine = Machine::start(&Launch {
            assets,
            memory_mib: self.memory_mib,
            start: Start::Restore { ram: &ram },
            shares,
            log,
            echo,
        })?;
        let wake = || -> Result<()> {
            let mut qmp = Qmp::connect(machine.qmp.try_clone()?)?;
            ignore_shared(&mut qmp)?;
            let uri = load_uri(&self.folder.join("state"));
            qmp.execute("migrate-incoming", &json!({ "uri": uri }))?;
            qmp.wait_migration(TRANSFER_TIMEOUT)?;
            qmp.execute("cont", &json!({})).map(drop)
        };
        wake()
            .with_context(|| format!("cannot wake the saved host\n{}", machine.console.tail()))?;
        counts::add(counts::Event::Restore)?;
        Ok(machine)
    }
}

/// An error when the file system of `folder` has less than `bytes` left.
fn need_space(folder: &Path, bytes: u64) -> Result<()> {
    let system = rustix::fs::statvfs(folder)?;
    let free = system.f_bavail * system.f_frsize;
    ensure!(
        free >= bytes,
        "{} MiB are free in {}, and the emulated host needs {}; hint: free disk space",
        free >> 20,
        folder.display(),
        bytes >> 20
    );
    Ok(())
}

/// RAM stays in its file and is not part of the state.
fn ignore_shared(qmp: &mut Qmp) -> Result<()> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.execute("migrate-set-capabilities", &json!({ "capabilities": [capability] })).map(drop)
}

fn save_uri(state: &Path) -> String {
    format!("exec:cat > {}", quote(state))
}

fn load_uri(state: &Path) -> String {
    format!("exec:cat {}", quote(state))
}

/// Quotes a path for the shell that QEMU starts.
fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Removes all but the snapshots that were used last.
fn evict(base: &Path) -> Result<()> {
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(base)? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        // One without a state was abandoned halfway.
        let used = fs::metadata(folder.join("state")).and_then(|metadata| metadata.modified());
        snapshots.push((used.unwrap_or(SystemTime::UNIX_EPOCH), folder));
    }
    snapshots.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    for (_, folder) in snapshots.into_iter().skip(KEPT) {
        tree::remove(&folder)?;
    }
    Ok(())
}
