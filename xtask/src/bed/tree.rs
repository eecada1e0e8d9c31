//! A lean Debian user space: the files of chosen packages, and of the packages that they depend on
//! only the shared libraries that some program really links to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};

use super::packages;

/// The packages whose programs are in the tree.
pub(crate) const PACKAGES: &[&str] = &[
    "attr",
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "diffutils",
    "e2fsprogs",
    "ethtool",
    "findutils",
    "fio",
    "git",
    "grep",
    "gzip",
    "hostname",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libc-bin",
    "libc6",
    "libcap2-bin",
    "libgcc-s1",
    "mawk",
    "mount",
    "ncurses-base",
    "nftables",
    "passt",
    "procps",
    "sed",
    "socat",
    "strace",
    "tar",
    "util-linux",
    "util-linux-extra",
];

/// Folders of packages that nobody reads in a test bed.
const PRUNED: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/doc-base",
    "usr/share/fio",
    "usr/share/bug",
    "usr/lib/git-core",
    "usr/share/git-core",
    "usr/share/gitweb",
    "usr/share/perl5",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/share/terminfo",
    "usr/lib/systemd",
    "var",
];

/// Where Debian keeps shared libraries, under a tree's root.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Folders that a running system mounts over or writes to.
const EMPTY: &[&str] = &[
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "mnt",
    "home",
    "opt/busybox",
    "usr/local/bin",
    "var/tmp",
    "bed",
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000:user:/home:/bin/bash\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nkvm:x:106:\nuser:x:1000:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost bed\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Builds the tree in `tree` from package files; `spare` is a folder for what is only looked up.
pub(crate) fn build(debs: &BTreeMap<String, PathBuf>, tree: &Path, spare: &Path) -> Result<()> {
    for folder in [tree, spare] {
        clear(folder)?;
        for name in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(folder.join("usr").join(name))?;
            symlink(format!("usr/{name}"), folder.join(name))?;
        }
    }
    for (name, deb) in debs {
        let destination = if PACKAGES.contains(&name.as_str()) { tree } else { spare };
        packages::unpack(deb, destination)?;
    }
    for folder in PRUNED {
        remove(&tree.join(folder))?;
    }
    for folder in EMPTY {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::create_dir_all(tree.join("etc"))?;
    for (name, text) in FILES {
        fs::write(tree.join(name), text)?;
    }
    // The package leaves this link to its installation script.
    if !tree.join("usr/bin/sh").exists() {
        symlink("dash", tree.join("usr/bin/sh"))?;
    }
    if !tree.join("usr/bin/awk").exists() {
        symlink("mawk", tree.join("usr/bin/awk"))?;
    }
    add_libraries(tree, spare).context("cannot collect shared libraries")?;
    remove(spare)
}

/// Copies libraries from `spare` until no program of the tree misses one that is to be had.
fn add_libraries(tree: &Path, spare: &Path) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/libexec"] {
        collect_needed(&tree.join(folder), &mut wanted)?;
    }
    let mut done = BTreeSet::new();
    while let Some(name) = wanted.pop_first() {
        if !done.insert(name.clone()) {
            continue;
        }
        let library = tree.join(LIBRARIES).join(&name);
        if !library.exists() {
            let Ok(source) = fs::canonicalize(spare.join(LIBRARIES).join(&name)) else {
                // The dynamic linker itself has another folder.
                continue;
            };
            fs::copy(&source, &library).with_context(|| format!("cannot copy {name}"))?;
        }
        wanted.extend(needed(&library)?.into_iter().filter(|name| !done.contains(name)));
        add_private_libraries(&name, tree, spare, &mut wanted)?;
    }
    Ok(())
}

/// Some packages keep libraries of their own in a folder that only their public library names.
fn add_private_libraries(
    library: &str,
    tree: &Path,
    spare: &Path,
    wanted: &mut BTreeSet<String>,
) -> Result<()> {
    const PRIVATE: &[(&str, &str)] = &[("librados.so", "ceph")];
    for (prefix, folder) in PRIVATE {
        let source = spare.join(LIBRARIES).join(folder);
        if !library.starts_with(prefix) || !source.is_dir() {
            continue;
        }
        let destination = tree.join(LIBRARIES).join(folder);
        fs::create_dir_all(&destination)?;
        for entry in fs::read_dir(source)? {
            let path = fs::canonicalize(entry?.path())?;
            let copy = destination.join(path.file_name().unwrap_or_default());
            if path.is_file() {
                fs::copy(&path, &copy)?;
                wanted.extend(needed(&copy)?);
            }
        }
    }
    Ok(())
}

fn collect_needed(folder: &Path, wanted: &mut BTreeSet<String>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect_needed(&entry.path(), wanted)?;
        } else if kind.is_file() {
            wanted.extend(needed(&entry.path())?);
        }
    }
    Ok(())
}

/// The shared libraries that an ELF file names; none for any other file.
fn needed(path: &Path) -> Result<Vec<String>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !data.starts_with(b"\x7fELF\x02") {
        return Ok(Vec::new());
    }
    parse_needed(&data).with_context(|| format!("cannot parse {}", path.display()))
}

fn parse_needed(data: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let Some((entries, strings)) = sections.dynamic(endian, data)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, data, strings)?;
    let mut names = Vec::new();
    for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
        let name = entry.string(endian, strings)?;
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(names)
}

/// Removes a folder and everything in it, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a folder that is there and empty.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
