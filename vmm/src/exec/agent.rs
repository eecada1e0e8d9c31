//! Where the agent for the guest comes from: out of this program, or from beside it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::{env, fs};

use super::Error;

/// Empty in builds without one; see the build script.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vmm-agent"));

/// Names another agent, for those who work on it.
const VARIABLE: &str = "VMM_AGENT";
const NAME: &str = "vmm-agent";

/// The agent's program.
pub(super) fn program() -> Result<Cow<'static, [u8]>, Error> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    if named.is_none() && !EMBEDDED.is_empty() {
        return Ok(EMBEDDED.into());
    }
    let beside =
        || Some(env::current_exe().ok()?.with_file_name(NAME)).filter(|path| path.exists());
    let path = named.or_else(beside).ok_or(Error::NoAgent)?;
    fs::read(&path).map(Cow::Owned).map_err(|source| Error::Read { path, source })
}
