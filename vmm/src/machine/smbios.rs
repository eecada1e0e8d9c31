//! What the guest's agent has to know and nobody else in the guest: the secret of this boot.

use std::path::Path;

use arch::Blob;
use arch::x86_64::smbios::{self, SmbiosConfig};

use super::Error;
use crate::agent_secret;
use crate::config::MachineConfig;

/// The tables, if there is anything to say in them.
pub(super) fn tables(config: &MachineConfig) -> Result<Option<Blob>, Error> {
    config.agent_secret.as_deref().map(with_secret).transpose()
}

fn with_secret(path: &Path) -> Result<Blob, Error> {
    let secret = agent_secret::open(path)
        .map_err(|source| Error::AgentSecret { path: path.to_owned(), source })?;
    let config = SmbiosConfig {
        manufacturer: "vmm".into(),
        product: "vmm".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        oem_strings: vec![secret.to_oem_string()],
        ..SmbiosConfig::default()
    };
    Ok(smbios::build(&config)?)
}
