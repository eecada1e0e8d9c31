//! The modules of a kernel, as depmod(8) lists them: which there are, and what each needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// Modules that are files, with what they need, and those that the kernel has built in.
#[derive(Debug, Default)]
pub struct Modules {
    /// File and the names of what it needs, by name.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads the lists in a folder such as `/lib/modules/VERSION`. Nothing is built in if the kernel does
    /// not say so.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let dependencies = fs::read_to_string(folder.join("modules.dep"))?;
        let builtin = match fs::read_to_string(folder.join("modules.builtin")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            result => result?,
        };
        Ok(Self::parse(&dependencies, &builtin))
    }

    /// Reads the text of `modules.dep` and `modules.builtin`.
    pub fn parse(dependencies: &str, builtin: &str) -> Self {
        let files = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| {
                let needs = needs.split_whitespace().map(module_name).collect();
                (module_name(file), (file.to_owned(), needs))
            })
            .collect();
        let builtin = builtin.lines().map(module_name).collect();
        Self { files, builtin }
    }

    /// Whether the kernel has a module, as a file or built in.
    pub fn has(&self, name: &str) -> bool {
        let name = module_name(name);
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    /// The files of the wanted modules and of those that they need, each after what it needs, relative to
    /// the folder. What this kernel does not have as a file is passed over.
    pub fn load_order(&self, wanted: &[&str]) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(&module_name(name), &mut seen, &mut order);
        }
        order
    }

    /// Each is visited once, so circles end.
    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<&'a str>) {
        let Some((file, needs)) = self.files.get(name) else {
            return;
        };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for needed in needs {
            self.visit(needed, seen, order);
        }
        order.push(file);
    }
}

/// `kernel/drivers/block/virtio-blk.ko.xz` and `virtio_blk` are the same module.
pub fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn needed_modules_come_first_and_once() {
        let table = "k/virtio-blk.ko.xz: k/virtio_ring.ko k/virtio.ko\nk/virtio_ring.ko: k/virtio.ko\n\
                     k/virtio.ko:\nk/a.ko: k/b.ko\nk/b.ko: k/a.ko\n";
        let modules = Modules::parse(table, "kernel/fs/fuse/fuse.ko\n");
        assert_eq!(
            modules.load_order(&["virtio_blk", "virtio", "unknown", "fuse"]),
            ["k/virtio.ko", "k/virtio_ring.ko", "k/virtio-blk.ko.xz"]
        );
        assert_eq!(modules.load_order(&["a"]), ["k/b.ko", "k/a.ko"]);
        assert!(modules.has("virtio-blk") && modules.has("fuse") && !modules.has("unknown"));
    }

    #[test]
    fn nothing_need_be_built_in() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Modules::read(folder.path()).is_err());
        fs::write(folder.path().join("modules.dep"), "k/a.ko:\n").unwrap();
        assert!(Modules::read(folder.path()).unwrap().has("a"));
    }

    proptest! {
        #[test]
        fn any_lists_are_read(dependencies: String, builtin: String, wanted: String) {
            let modules = Modules::parse(&dependencies, &builtin);
            modules.load_order(&[&wanted]);
        }
    }
}
