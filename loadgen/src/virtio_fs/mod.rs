//! The driver of a virtio file system, without a guest: what Linux' driver asks for when programs look at,
//! read and change many files. Virtio 1.3 section 5.11.

mod calls;
mod client;
mod opening;
mod programs;
mod tree;

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Instant;

use devices::memory::GuestMemory;
use devices::virtio::vhost_user::front_end::FrontEnd;

pub use self::opening::OpenedMany;
pub use self::tree::FsTree;

use self::client::{Client, Program};
use self::programs::Run;
use crate::ring::{self, EVENT_IDX, INDIRECT_DESC, Ring, VERSION_1};
use crate::{Figures, LoadError, Placement, Polling, Processes, SystemCalls};

/// Of the queue for what is forgotten and the one for all else. Where there are no indirect descriptors, a
/// request of a mebibyte takes 260.
const QUEUE_SIZE: u16 = 1024;

/// Which way data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Read,
    /// From it.
    Write,
}

/// A program of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsProgram {
    /// `git status`; counted by file.
    Status,
    /// `git diff` where one file of 20 has changed; counted by file.
    Diff,
    /// `tar c`; counted by file.
    Tar,
    /// All of the large file, in a row; counted by request.
    Sequential(Direction),
    /// 4 KiB of it anywhere, so many at a time; counted by request.
    Random(Direction, u32),
    /// Making files; counted by file.
    Create,
    /// Removing them again; counted by file.
    Remove,
}

/// How much programs do.
#[derive(Debug, Clone, Copy)]
pub struct FsAmounts {
    /// Files that are made and removed.
    pub new: u32,
    /// Reads or writes of 4 KiB.
    pub random: u32,
    /// What the driver does while it waits.
    pub polling: Polling,
    /// Where driver and back end run.
    pub placement: Placement,
}

/// A file system behind a socket.
pub struct VirtioFs {
    front_end: Mutex<FrontEnd>,
    memory: GuestMemory,
    features: u64,
    amounts: FsAmounts,
}

impl VirtioFs {
    /// Sets all up but the rings, over a connection with a back end.
    pub fn new(connection: UnixStream, amounts: FsAmounts) -> Result<Self, LoadError> {
        let mut front_end = FrontEnd::new(connection)?;
        let features = ring::agree(&mut front_end, VERSION_1 | EVENT_IDX | INDIRECT_DESC)?;
        let memory = ring::share_memory(&mut front_end, 2 * client::bytes(QUEUE_SIZE))?;
        Ok(Self { front_end: Mutex::new(front_end), memory, features, amounts })
    }

    /// Runs programs one after the other in one session. The cost is that of the family of a process.
    pub fn run(
        &self,
        tree: &FsTree,
        programs: &[FsProgram],
        process: u32,
        calls: SystemCalls,
    ) -> Result<Vec<Figures>, LoadError> {
        let mut run = Run {
            forgets: self.client(0)?,
            client: self.client(1)?,
            tree,
            figures: RefCell::new(Figures::default()),
            new: self.amounts.new,
            folder: tree.prepare_new().map_err(LoadError::system("make a folder"))?,
            most_written: 0,
        };
        let written = RefCell::new(0);
        run.client.run(vec![Box::pin(async {
            written.replace(run.client.init().await?);
            Ok(())
        })])?;
        run.most_written = written.into_inner();
        let known = RefCell::new((Vec::new(), (0, 0)));
        run.client.run(vec![Box::pin(async {
            known.replace((run.directories().await?, run.large().await?));
            Ok(())
        })])?;
        let (directories, large) = known.into_inner();
        let _placed = self.amounts.placement.put([process], 1)?;
        let nodes = RefCell::new(Vec::new());
        programs
            .iter()
            .map(|program| {
                let processes = Processes::watch(process, calls);
                let processes = processes.map_err(LoadError::system("look at processes"))?;
                let begin = Instant::now();
                match *program {
                    FsProgram::Status => {
                        run.client.run(run.status(&directories))?;
                        run.client.run(alone(run.untracked(&directories)))
                    }
                    FsProgram::Diff => run.client.run(run.diff(&directories)),
                    FsProgram::Tar => run.client.run(alone(run.tar(&directories))),
                    FsProgram::Sequential(Direction::Read) => run.client.run(run.read_all(large)),
                    FsProgram::Sequential(Direction::Write) => {
                        run.client.run(alone(run.write_all(large)))
                    }
                    FsProgram::Random(direction, depth) => {
                        run.client.run(run.random(large, self.amounts.random, depth, direction))
                    }
                    FsProgram::Create => run.client.run(alone(run.create(&nodes))),
                    FsProgram::Remove => run.client.run(alone(run.remove(&nodes))),
                }?;
                let elapsed = begin.elapsed();
                let figures = run.figures.replace(Figures::default());
                let cost = processes.cost();
                check(tree, *program, self.amounts, &run.folder)?;
                Ok(Figures { elapsed, cost, ..figures })
            })
            .collect()
    }

    fn client(&self, index: u16) -> Result<Client<'_>, LoadError> {
        let base = u64::from(index) * client::bytes(QUEUE_SIZE);
        let polling = self.amounts.polling;
        let place = (base, QUEUE_SIZE);
        let ring =
            Ring::start(&self.front_end, &self.memory, index, place, self.features, polling)?;
        let indirect = self.features & INDIRECT_DESC != 0;
        Ok(Client::new(ring, &self.memory, base, QUEUE_SIZE, indirect))
    }
}

fn alone<'a>(program: impl Future<Output = Result<(), LoadError>> + 'a) -> Vec<Program<'a>> {
    vec![Box::pin(program)]
}

/// Whether the host's files are what the program made of them.
fn check(
    tree: &FsTree,
    program: FsProgram,
    amounts: FsAmounts,
    folder: &str,
) -> Result<(), LoadError> {
    let failed = LoadError::system("look at the files");
    let files = match program {
        FsProgram::Create => amounts.new as usize,
        FsProgram::Remove => 0,
        FsProgram::Sequential(Direction::Write) | FsProgram::Random(Direction::Write, _) => {
            let last = tree.large / 4096 - 1;
            for page in [0, last / 2, last] {
                let found = tree.page(page).map_err(&failed)?;
                if found != page {
                    return Err(LoadError::Wrong(format!("page {page} of the host is {found}")));
                }
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    match tree.made(folder).map_err(failed)? {
        made if made == files => Ok(()),
        made => Err(LoadError::Wrong(format!("{made} files are there instead of {files}"))),
    }
}
