//! Requests that make, move and remove names.
//!
//! A predecessor may have died with one of these under way. Whether it had made its change then is
//! not known, so what says that it was made is taken for success: a name that is there, or gone.

use fileserver::{Caller, Creation, Entry, Errno, InodeId, OpenMode, Result};

use super::protocol::{InHeader, OpenOut};
use super::request::Request;
use super::session::{Session, exchange, special};

impl Session {
    pub(super) fn name(
        &mut self,
        header: &InHeader,
        request: &Request<'_>,
        begun: bool,
    ) -> Result<()> {
        let node = InodeId(header.node);
        let caller = Caller { uid: header.uid, gid: header.gid };
        let creation = |mode, umask| Creation { mode, umask, caller };
        match request {
            Request::Symlink { name, text } => {
                let made = self.tree.make_link(node, name, text, &creation(0o777, 0));
                self.made(node, name, made, begun)
            }
            Request::Mknod { arguments, name } => {
                let special = special(arguments.mode)?;
                let creation = creation(arguments.mode, arguments.umask);
                let made = self.tree.make_special(node, name, special, &creation);
                self.made(node, name, made, begun)
            }
            Request::Mkdir { arguments, name } => {
                let creation = creation(arguments.mode, arguments.umask);
                let made = self.tree.make_directory(node, name, &creation);
                self.made(node, name, made, begun)
            }
            Request::Link { node: old, name } => {
                let made = self.tree.link(*old, node, name);
                self.made(node, name, made, begun)
            }
            Request::Unlink { name } => gone(self.tree.remove(node, name), begun),
            Request::Rmdir { name } => gone(self.tree.remove_directory(node, name), begun),
            Request::Rename { from, to_node, to, flags } => {
                let exchange = exchange(*flags, begun)?;
                match self.tree.rename((node, from), (*to_node, to), exchange) {
                    Err(Errno::NOENT | Errno::EXIST) if begun => {
                        let moved = self.tree.look_up(*to_node, to)?;
                        self.tree.forget(moved.inode, 1);
                        Ok(())
                    }
                    result => result,
                }
            }
            Request::Create { arguments, name } => {
                let flags = arguments.flags;
                let flags = if begun { flags & !(libc::O_EXCL as u32) } else { flags };
                let creation = creation(arguments.mode, arguments.umask);
                let mode = self.open_mode(flags);
                let (entry, handle) = self.tree.create(node, name, mode, &creation)?;
                self.opened(&entry, handle.0);
                Ok(())
            }
            Request::Tmpfile { arguments } => {
                let creation = creation(arguments.mode, arguments.umask);
                let mode: OpenMode = self.open_mode(arguments.flags);
                let (entry, handle) = self.tree.create_nameless(node, mode, &creation)?;
                self.opened(&entry, handle.0);
                Ok(())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn made(
        &mut self,
        parent: InodeId,
        name: &fileserver::Name,
        made: Result<Entry>,
        begun: bool,
    ) -> Result<()> {
        let entry = match made {
            Err(Errno::EXIST) if begun => self.tree.look_up(parent, name)?,
            made => made?,
        };
        self.answer_entry(&entry);
        Ok(())
    }

    fn opened(&mut self, entry: &Entry, handle: u64) {
        self.answer_entry(entry);
        let open_flags = self.open_flags();
        self.answer(&OpenOut { handle, open_flags, padding: 0 });
    }
}

fn gone(result: Result<()>, begun: bool) -> Result<()> {
    match result {
        Err(Errno::NOENT) if begun => Ok(()),
        result => result,
    }
}
