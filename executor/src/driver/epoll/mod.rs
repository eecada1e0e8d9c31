//! The driver on epoll.
use super::{Driver, FileId, Residence, Target, Wait};
use crate::config::DriverKind;
use crate::error::Error;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};
use crate::remote::Shared;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
pub(crate) struct Epoll;
impl Epoll {
    pub(crate) fn open(_shared: &Arc<Shared>) -> Result<Self, Error> {
        Err(Error::Epoll(std::io::Error::from_raw_os_error(
            libc::ENOSYS,
        )))
    }
}
impl Driver for Epoll {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }
    fn has_multishot_poll(&self) -> bool {
        true
    }
    fn attach(&mut self, _: BorrowedFd<'_>, _: Residence) -> FileId {
        FileId::Plain
    }
    fn detach(&mut self, _: Target) {}
    fn submit(&mut self, _: Token, _: Target, _: Operation) {}
    fn cancel(&mut self, _: Token, _: Target) {}
    fn signal(&mut self, _: Target) {}
    fn message_ring(&mut self, _: &mut dyn FnMut() -> Arc<Shared>) -> bool {
        false
    }
    fn flush(&mut self) {}
    fn turn(&mut self, _: Wait) {}
    fn reap(&mut self, _: &mut Vec<Completion>) {}
    fn has_completions(&mut self) -> bool {
        false
    }
    fn system_calls(&self) -> u64 {
        0
    }
}
