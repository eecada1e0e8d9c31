//! Kernel modules: the order of their dependencies and small trees of a few of them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::project;

/// All modules of one kernel, as its package has them.
pub(crate) struct Modules {
    /// The folder that holds `lib/modules/VERSION`.
    base: PathBuf,
    version: String,
    /// File under `lib/modules/VERSION` and what it depends on, by module name.
    table: HashMap<String, (String, Vec<String>)>,
}

impl Modules {
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
        let dependencies = folder.join(&version).join("modules.dep");
        let text = fs::read_to_string(&dependencies)
            .with_context(|| format!("cannot read {}", dependencies.display()))?;
        let table = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| {
                let needs = needs.split_whitespace().map(module_name).collect();
                (module_name(file), (file.to_owned(), needs))
            })
            .collect();
        Ok(Self { base: base.to_path_buf(), version, table })
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
        let builtin = fs::read_to_string(source.join("modules.builtin"))?;
        let mut pending: Vec<String> = names.iter().map(|name| module_name(name)).collect();
        while let Some(name) = pending.pop() {
            let Some((file, needs)) = self.table.get(&name) else {
                let known = builtin.lines().any(|line| module_name(line) == name);
                anyhow::ensure!(known, "the kernel {} has no module {name}", self.version);
                continue;
            };
            let copy = target.join(file);
            if copy.exists() {
                continue;
            }
            fs::create_dir_all(copy.parent().unwrap_or(&target))?;
            fs::copy(source.join(file), &copy).with_context(|| format!("cannot copy {file}"))?;
            pending.extend(needs.iter().cloned());
        }
        project::output(project::program("depmod").arg("-b").arg(destination).arg(&self.version))
            .map(drop)
    }
}

/// `kernel/drivers/block/virtio-blk.ko` and `virtio_blk` are the same module.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}
