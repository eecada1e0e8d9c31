//! Files that go in and out over raw streams.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use executor::{Fd, RecvFlags};
use proto::v1;
use tonic::Status;

use crate::latch::Latch;
use crate::process::Owner;
use crate::process::pump::{BUFFER_BYTES, send_all, write_all};
use crate::streams::{Offer, Streams};

/// Transfers of all hosts together.
const MAX_TRANSFERS: usize = 256;
/// Opening a pipe or a terminal by mistake must neither wait nor become our terminal.
const CAREFUL: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// How many bytes were written, or why not all.
type Written = Result<u64, (i32, String)>;

struct Transfer {
    owner: Owner,
    done: Latch<Written>,
    _offer: Offer,
}

/// The transfers that are under way.
#[derive(Default)]
pub(crate) struct Files {
    table: RefCell<BTreeMap<u64, Transfer>>,
    last: Cell<u64>,
}

impl Files {
    /// Offers a file's bytes.
    pub(crate) fn read(
        &self,
        request: &v1::ReadFileRequest,
        owner: Owner,
        streams: &Streams,
    ) -> Result<v1::ReadFileReply, Status> {
        let path = OsStr::from_bytes(&request.path);
        let file =
            OpenOptions::new().read(true).custom_flags(CAREFUL).open(path).map_err(refuse)?;
        let metadata = regular(&file)?;
        let file = Fd::unregistered(file).map_err(refuse)?;
        let (id, stream) = self.enter(owner, streams, |socket, done| {
            executor::spawn(async move { done.set(send_file(&file, &socket).await) }).detach();
        })?;
        Ok(v1::ReadFileReply { stream, size: metadata.size(), mode: metadata.mode() & 0o7777, id })
    }

    /// Makes a file and takes its bytes.
    pub(crate) fn write(
        &self,
        request: &v1::WriteFileRequest,
        owner: Owner,
        streams: &Streams,
    ) -> Result<v1::WriteFileReply, Status> {
        let mut path = PathBuf::from(OsStr::from_bytes(&request.path));
        if !request.name.is_empty() && path.is_dir() {
            path.push(OsStr::from_bytes(&request.name));
        }
        let mode = request.mode & 0o7777;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(CAREFUL)
            .open(path)
            .map_err(refuse)?;
        regular(&file)?;
        // Whatever the mask says, and also if it was there.
        file.set_permissions(PermissionsExt::from_mode(mode)).map_err(refuse)?;
        let file = Fd::unregistered(file).map_err(refuse)?;
        let (id, stream) = self.enter(owner, streams, |socket, done| {
            executor::spawn(async move { done.set(receive_file(&socket, &file).await) }).detach();
        })?;
        Ok(v1::WriteFileReply { stream, id })
    }

    /// Waits until all bytes of a file went through.
    pub(crate) async fn finish(&self, id: u64) -> Result<v1::FinishFileReply, Status> {
        let done = self.table.borrow().get(&id).map(|transfer| transfer.done.clone());
        let done = done.ok_or_else(|| Status::not_found(format!("there is no transfer {id}")))?;
        let result = done.wait().await;
        let forgotten = self.table.borrow_mut().remove(&id);
        drop(forgotten);
        match result {
            Ok(size) => Ok(v1::FinishFileReply { size }),
            Err((errno, _)) => Err(refuse(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Forgets the transfers of a connection that is gone; those under way go on.
    pub(crate) fn abandon(&self, owner: Owner) {
        let mut forgotten = Vec::new();
        let mut table = self.table.borrow_mut();
        let gone: Vec<u64> = table
            .iter()
            .filter(|(_, transfer)| transfer.owner == owner)
            .map(|(&id, _)| id)
            .collect();
        forgotten.extend(gone.iter().filter_map(|id| table.remove(id)));
        drop(table);
        drop(forgotten);
    }

    fn enter(
        &self,
        owner: Owner,
        streams: &Streams,
        start: impl FnOnce(Fd, Latch<Written>) + 'static,
    ) -> Result<(u64, Vec<u8>), Status> {
        if self.table.borrow().len() >= MAX_TRANSFERS {
            // Those that nobody asks after make room.
            self.table.borrow_mut().retain(|_, transfer| transfer.done.get().is_none());
        }
        if self.table.borrow().len() >= MAX_TRANSFERS {
            return Err(Status::resource_exhausted("too many files are on their way"));
        }
        let done = Latch::new();
        let told = done.clone();
        let offer = streams.offer(move |socket| start(socket, told)).map_err(refuse)?;
        let ticket = offer.ticket.to_vec();
        let id = self.last.get() + 1;
        self.last.set(id);
        self.table.borrow_mut().insert(id, Transfer { owner, done, _offer: offer });
        Ok((id, ticket))
    }
}

fn regular(file: &File) -> Result<std::fs::Metadata, Status> {
    let metadata = file.metadata().map_err(refuse)?;
    if metadata.is_file() {
        Ok(metadata)
    } else {
        Err(Status::failed_precondition("it is not a regular file"))
    }
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn refuse(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(error.to_string()),
        io::ErrorKind::PermissionDenied => Status::permission_denied(error.to_string()),
        io::ErrorKind::StorageFull => Status::resource_exhausted(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn note(error: io::Error) -> (i32, String) {
    (error.raw_os_error().unwrap_or(libc::EIO), error.to_string())
}

async fn send_file(file: &Fd, socket: &Fd) -> Written {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut size = 0;
    loop {
        buffer.clear();
        let (read, filled) = file.read_at(buffer, size).await;
        let count = read.map_err(note)?;
        if count == 0 {
            return Ok(size);
        }
        buffer = send_all(socket, filled, count).await.map_err(note)?;
        size += count as u64;
    }
}

async fn receive_file(socket: &Fd, file: &Fd) -> Written {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut size = 0;
    loop {
        buffer.clear();
        let (received, filled) = socket.recv(buffer, RecvFlags::empty()).await;
        let count = received.map_err(note)?;
        if count == 0 {
            return Ok(size);
        }
        buffer = write_all(file, filled).await.map_err(note)?;
        size += count as u64;
    }
}
