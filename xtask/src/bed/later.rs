//! Programs of a later Debian than the bed's, kept under `target/bed`: each with the libraries and the dynamic linker of
//! that release, and a script of its name that runs it with these.
//!
//! They come from the archive that this machine's apt knows, with package lists of their own: nothing of what is installed
//! here changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::{self, Missing};
use super::tree;
use crate::project;

const RELEASE: &str = "trixie";

/// Debian's keys, where its package has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program in `/usr/bin` of a package, and the packages that have its libraries.
#[derive(Debug)]
pub(crate) struct Later {
    pub(crate) program: &'static str,
    pub(crate) packages: &'static [&'static str],
}

/// The folder of the scripts.
pub(crate) fn folder() -> PathBuf {
    place().join("bin")
}

fn place() -> PathBuf {
    project::bed().join("later")
}

/// Fetches the programs that are not there yet.
pub(crate) fn ensure(programs: &[Later]) -> Result<()> {
    for later in programs {
        let script = folder().join(later.program);
        if script.exists() {
            continue;
        }
        let Later { program, packages } = later;
        eprintln!("bed: fetching {program} of Debian {RELEASE}");
        let files = download(packages)
            .with_context(|| format!("cannot fetch {program} of Debian {RELEASE}"))?;
        let root = place().join(program);
        tree::clear(&root)?;
        for file in files {
            packages::unpack(&file, &root)?;
        }
        fs::create_dir_all(folder())?;
        let part = script.with_extension("part");
        fs::write(&part, text(program))?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::rename(part, script)?;
    }
    Ok(())
}

/// The script of a program, which finds it from where it lies itself.
fn text(program: &str) -> String {
    format!(
        "#!/bin/sh\nroot=${{0%/*}}/../{program}\nlibraries=$root/usr/lib/x86_64-linux-gnu\n\
         exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \
         \"$root/usr/bin/{program}\" \"$@\"\n"
    )
}

fn download(names: &[&str]) -> Result<Vec<PathBuf>> {
    let apt = place().join("apt");
    tree::clear(&apt)?;
    for folder in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let archive = archive()?;
    let keys = Path::new(KEYRING).exists().then(|| format!("[signed-by={KEYRING}] "));
    let source = format!("deb {}{archive} {RELEASE} main\n", keys.unwrap_or_default());
    fs::write(apt.join("sources.list"), source)?;
    let command = || {
        let mut command = packages::apt_get();
        for (option, file) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", apt.join(file).display()));
        }
        // apt's own user cannot write here; without a sandbox user it does not try to.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    };
    project::output(command().arg("update"))?;
    let folder = apt.join("packages");
    project::output(command().arg("download").args(names).current_dir(&folder))?;
    let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
    files.collect()
}

/// Where this machine's apt has Debian from.
fn archive() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Identifier: Packages"]);
    let targets = project::output(&mut command)
        .map_err(|_| Missing::new("there is no apt-get that knows an archive of Debian"))?;
    find_archive(&String::from_utf8_lossy(&targets))
        .ok_or_else(|| Missing::new("apt knows no archive of Debian").into())
}

fn find_archive(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_s_own_archive_is_found_among_others() {
        let targets = "Tools https://tools.example/apt/\n\
                       Debian-Security http://security.example/debian-security/\n\
                       Debian http://archive.example/debian/\n\
                       Debian http://other.example/debian/\n";
        assert_eq!(find_archive(targets).as_deref(), Some("http://archive.example/debian/"));
        assert_eq!(find_archive("Ubuntu http://archive.example/ubuntu/\n"), None);
    }

    #[test]
    fn a_program_is_run_with_the_libraries_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        let linker = folder.path().join("echo/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(linker.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/bin/echo", linker).unwrap();
        fs::write(bin.join("echo"), text("echo")).unwrap();
        let mut command = Command::new("sh");
        let output = command.arg(bin.join("echo")).args(["a b", "c"]).output().unwrap();
        let root = format!("{}/../echo", bin.display());
        let expected =
            format!("--library-path {root}/usr/lib/x86_64-linux-gnu {root}/usr/bin/echo a b c\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
