//! Directories that are shared while the driver is there, each by a name of the root.

use fileserver::{Access, Errno, Grant, Name, Tree};

use crate::virtio::control::{Change, Effect, SharedDirectory};

/// The most directories that are shared at a time, and the most that ever were: their numbers are not used
/// twice, and a successor is told all.
const MOST_SHARED: usize = 4096;

/// What came of it is a sentence for whoever asked.
pub(super) fn change(tree: &mut Tree, change: &Change) -> Result<Effect, String> {
    match change {
        Change::Share(shared) => share(tree, shared).map_err(|errno| {
            let name = &shared.name;
            match errno {
                Errno::EXIST => format!("something is shared as `{name}` already"),
                Errno::INVAL => "it shares one directory and nothing else".into(),
                Errno::NOSPC => format!("{MOST_SHARED} directories were shared, which is the most"),
                Errno::NOTDIR => "only directories can be shared".into(),
                errno => format!("`{name}` cannot be shared: {errno}"),
            }
        }),
        Change::Unshare { name } => {
            let known = Name::new(name.as_bytes()).ok().and_then(|name| tree.grant_named(&name));
            let grant = known.ok_or_else(|| format!("nothing is shared as `{name}`"))?;
            tree.revoke(grant);
            Ok(())
        }
        _ => Err("a shared directory has nothing of that kind to change".into()),
    }
    .map(|()| Effect::Unseen)
}

/// Shares a directory.
pub(super) fn share(tree: &mut Tree, shared: &SharedDirectory) -> Result<(), Errno> {
    if tree.grants_ever() >= MOST_SHARED {
        return Err(Errno::NOSPC);
    }
    let name = Name::new(shared.name.as_bytes())?;
    let directory = shared
        .directory
        .try_clone()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let access: Access = shared.access;
    tree.grant(&name, Grant { directory, access }).map(drop)
}
