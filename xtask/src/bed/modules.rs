//! Kernel modules: small trees of a few of them, with what they need.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::project;

/// All modules of one kernel, as its package has them.
pub(crate) struct ModuleTree {
    /// The folder that holds `lib/modules/VERSION`.
    base: PathBuf,
    version: String,
    modules: initramfs::Modules,
}

impl ModuleTree {
    /// Reads the modules under `base`, which is an unpacked kernel package.
    pub(crate) fn open(base: &Path) -> Result<Self> {
        let folder = base.join("lib/modules");
        let version = fs::read_dir(&folder)
            .and_then(|mut entries| entries.next().transpose())
            .ok()
            .flatten()
            .with_context(|| format!("{} holds no modules", folder.display()))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        // The package carries no modules.dep.
        project::output(project::program("depmod").arg("-b").arg(base).arg(&version))?;
        let source = folder.join(&version);
        let modules = initramfs::Modules::read(&source)
            .with_context(|| format!("cannot read the lists in {}", source.display()))?;
        Ok(Self { base: base.to_path_buf(), version, modules })
    }

    /// Copies the named modules and what they need to `destination/lib/modules/VERSION`. A name
    /// that is no module of this kernel is an error unless the kernel has it built in.
    pub(crate) fn copy(&self, names: &[&str], destination: &Path) -> Result<()> {
        let source = self.base.join("lib/modules").join(&self.version);
        let target = destination.join("lib/modules").join(&self.version);
        fs::create_dir_all(&target)?;
        for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            fs::copy(source.join(list), target.join(list))
                .with_context(|| format!("cannot copy {list}"))?;
        }
        for name in names {
            anyhow::ensure!(
                self.modules.has(name),
                "the kernel {} has no module {name}",
                self.version
            );
        }
        for file in self.modules.load_order(names) {
            let copy = target.join(file);
            fs::create_dir_all(copy.parent().unwrap_or(&target))?;
            fs::copy(source.join(file), &copy).with_context(|| format!("cannot copy {file}"))?;
        }
        project::output(project::program("depmod").arg("-b").arg(destination).arg(&self.version))
            .map(drop)
    }
}
