//! One file, opened more often than a back end has descriptors.

use std::cell::Cell;

use devices::virtio::fs::protocol::{Opcode, OpenIn, OpenOut};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::client::{Ask, Client};
use super::{VirtioFs, alone};
use crate::LoadError;

const ROOT: u64 = 1;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedMany {
    /// Files that were open at the same time.
    pub opened: u32,
    /// Those for which there were too few descriptors: `EMFILE`, and nothing else.
    pub refused: u32,
}

impl VirtioFs {
    /// Opens a file of the root so often without closing it, then looks whether others can be looked for all
    /// the same, and whether it can be opened again once all are closed.
    pub fn open_many(&self, name: &str, times: u32) -> Result<OpenedMany, LoadError> {
        let client = self.client(1)?;
        let result = Cell::new(OpenedMany { opened: 0, refused: 0 });
        client.run(alone(async {
            client.init().await?;
            let node = client.find(ROOT, name).await?.node;
            let mut handles = Vec::new();
            for _ in 0..times {
                handles.extend(try_open(&client, node).await?);
            }
            let opened = handles.len() as u32;
            result.set(OpenedMany { opened, refused: times - opened });
            if client.look_up(ROOT, "none").await?.is_some() {
                return Err(LoadError::Wrong("a file is there that is not".into()));
            }
            client.find(ROOT, name).await?;
            client.getattr(node).await?;
            for handle in handles {
                client.release(Opcode::Release, node, handle).await?;
            }
            let handle = client.open(Opcode::Open, node, libc::O_RDONLY as u32).await?;
            client.release(Opcode::Release, node, handle).await
        }))?;
        Ok(result.into_inner())
    }
}

/// A handle, or none if there are too many.
async fn try_open(client: &Client<'_>, node: u64) -> Result<Option<u64>, LoadError> {
    let arguments = OpenIn { flags: libc::O_RDONLY as u32, open_flags: 0 };
    let arguments = arguments.as_bytes();
    let (opcode, body) = (Opcode::Open as u32, size_of::<OpenOut>() as u32);
    let answer = client.ask(&Ask { opcode, node, arguments, body, ..Ask::default() }).await?;
    if answer.error == Errno::MFILE.raw_os_error() {
        return Ok(None);
    }
    Ok(Some(answer.done()?.body::<OpenOut>()?.handle))
}
