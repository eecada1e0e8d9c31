//! What the machine starts: a kernel with its initrd, or the built-in guest.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arch::x86_64::boot::{self, BootError, BootPlan, BootRequest};
use arch::x86_64::kernel::{KernelError, KernelImage};
use arch::x86_64::layout::Ram;
use arch::{GuestAddress, KernelFile};
use devices::memory::GuestMemory;

use super::loader::{self, LoadError, Source};
use crate::config::MachineConfig;
use crate::error::Hint;

/// The built-in guest, as this crate's build script made it.
static BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/builtin-guest"));

/// A kernel or initrd that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootFailure {
    /// The kernel file cannot be opened.
    #[error("cannot open the kernel `{}`", path.display())]
    OpenKernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel file holds no kernel for this machine.
    #[error("cannot start the kernel `{}`", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// The initrd cannot be opened.
    #[error("cannot open the initrd `{}`", path.display())]
    OpenInitrd {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Kernel, command line and initrd do not fit the machine.
    #[error("cannot place the kernel in the guest's memory")]
    Plan(#[from] BootError),
    /// The copy into guest memory failed.
    #[error("cannot load the kernel")]
    Load(#[from] LoadError),
}

impl Hint for BootFailure {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Plan(BootError::InitrdTooLarge { .. } | BootError::KernelDoesNotFit { .. }) => {
                Some("give the machine more memory: --memory".into())
            }
            Self::OpenKernel { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("without a kernel, `vmm run` starts the built-in guest".into())
            }
            _ => None,
        }
    }
}

/// An opened and recognised kernel, with its initrd.
#[derive(Debug)]
pub(super) struct Kernel {
    source: Source,
    image: KernelImage,
    initrd: Option<(Source, u64)>,
}

impl Kernel {
    /// Opens what `config` names and reads its headers.
    pub(super) fn open(config: &MachineConfig) -> Result<Self, BootFailure> {
        let (source, image) = match &config.kernel {
            Some(path) => open_kernel(path)?,
            None => {
                let image = KernelImage::probe(BUILT_IN).map_err(|source| BootFailure::Kernel {
                    path: "the built-in guest".into(),
                    source,
                })?;
                (Source::Embedded(BUILT_IN), image)
            }
        };
        let initrd = config.initrd.as_deref().map(open_initrd).transpose()?;
        Ok(Self { source, image, initrd })
    }

    /// Decides where everything goes.
    pub(super) fn plan(
        &self,
        ram: Ram,
        command_line: &str,
        rsdp: GuestAddress,
    ) -> Result<BootPlan, BootFailure> {
        let request = BootRequest {
            kernel: &self.image,
            ram,
            command_line,
            initrd_length: self.initrd.as_ref().map(|(_, length)| *length),
            rsdp: Some(rsdp),
        };
        Ok(boot::plan(&request)?)
    }

    /// Copies kernel, initrd and boot structures into guest memory.
    pub(super) fn load(&self, plan: &BootPlan, memory: &GuestMemory) -> Result<(), BootFailure> {
        loader::load_kernel(&self.image, &self.source, memory)?;
        if let (Some((source, length)), Some(range)) = (&self.initrd, plan.initrd) {
            loader::load_initrd(source, *length, range.start().value(), memory)?;
        }
        for blob in &plan.blobs {
            loader::write(memory, blob)?;
        }
        Ok(())
    }
}

fn open_kernel(path: &Path) -> Result<(Source, KernelImage), BootFailure> {
    let file = File::open(path)
        .map_err(|source| BootFailure::OpenKernel { path: path.to_owned(), source })?;
    let image = KernelImage::probe(&file)
        .map_err(|source| BootFailure::Kernel { path: path.to_owned(), source })?;
    Ok((Source::File { file, path: path.to_owned() }, image))
}

fn open_initrd(path: &Path) -> Result<(Source, u64), BootFailure> {
    let failed = |source| BootFailure::OpenInitrd { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.length().map_err(failed)?;
    Ok((Source::File { file, path: path.to_owned() }, length))
}
