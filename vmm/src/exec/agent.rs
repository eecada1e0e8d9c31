//! Where the agent for the guest comes from: out of this program, or from beside it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::{env, fs};

use super::{Error, cache};

/// Empty in builds without one; see the build script.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vmm-agent"));

/// Names another agent, for those who work on it.
const VARIABLE: &str = "VMM_AGENT";
const NAME: &str = "vmm-agent";

/// Tells one embedded agent from another.
static EMBEDDED_HASH: &str = include_str!(concat!(env!("OUT_DIR"), "/vmm-agent.hash"));

/// The agent's program.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) bytes: Cow<'static, [u8]>,
    /// Another one has another.
    pub(super) version: String,
}

/// Finds the agent's program.
pub(super) fn program() -> Result<Agent, Error> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    if named.is_none() && !EMBEDDED.is_empty() {
        return Ok(Agent { bytes: EMBEDDED.into(), version: EMBEDDED_HASH.into() });
    }
    let beside =
        || Some(env::current_exe().ok()?.with_file_name(NAME)).filter(|path| path.exists());
    let path = named.or_else(beside).ok_or(Error::NoAgent)?;
    let version = cache::stamp(&path);
    let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
    Ok(Agent { bytes: bytes.into(), version })
}
