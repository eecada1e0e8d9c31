//! Which kernel a guest gets, and which of the kernel's modules it needs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use initramfs::Modules;
use memchr::memmem;

use super::Error;

/// Where distributions put their kernels.
pub(super) const BOOT: &str = "/boot";
const MODULES: &str = "/lib/modules";

/// The setup header's pointer to the version string, and what it counts from (Linux boot
/// protocol, `kernel_version`).
const VERSION_POINTER: usize = 0x20e;
const VERSION_BASE: usize = 0x200;
/// How a kernel that is not packed names itself.
const BANNER: &[u8] = b"Linux version ";
/// How much of it is looked at at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// A name longer than this is none (`__NEW_UTS_LEN`).
const MAX_RELEASE: usize = 64;
/// How far into the file a pointer of 16 bits leads, with the string there.
const VERSION_REACH: u64 = (VERSION_BASE + u16::MAX as usize + MAX_RELEASE) as u64;

/// The newest kernel of a folder that can be read.
pub(super) fn newest(boot: &Path) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(boot).into_iter().flatten().flatten();
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    entries
        .map(|entry| entry.path())
        .filter(named)
        .filter_map(|path| {
            let modified = File::open(&path).ok()?.metadata().ok()?.modified().ok()?;
            Some((modified, path))
        })
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| Error::NoKernel(boot.into()))
}

/// What `uname -r` will say under a kernel. A `bzImage` says it near its beginning; in a `vmlinux` it can be
/// anywhere.
fn release(image: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(image)?;
    let mut bytes = Vec::new();
    (&mut file).take(VERSION_REACH).read_to_end(&mut bytes)?;
    if let Some(release) = packed_release(&bytes) {
        return Ok(Some(release));
    }
    // Read on until it is there: the rest of a kernel is much, and most of it is behind.
    let mut searched = 0;
    loop {
        let count = (&mut file).take(PIECE_BYTES).read_to_end(&mut bytes)?;
        // A banner may have begun in what was read before.
        if banner_release(&bytes[searched..]).is_some() {
            // Its end may not have been read yet.
            (&mut file).take(MAX_RELEASE as u64).read_to_end(&mut bytes)?;
            return Ok(banner_release(&bytes[searched..]));
        }
        if count == 0 {
            return Ok(None);
        }
        searched = bytes.len().saturating_sub(BANNER.len() + MAX_RELEASE);
    }
}

fn packed_release(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes(*image.get(VERSION_POINTER..)?.first_chunk()?);
    first_word(image.get(usize::from(pointer) + VERSION_BASE..)?)
}

fn banner_release(image: &[u8]) -> Option<String> {
    let mut rest = image;
    loop {
        let at = memmem::find(rest, BANNER)?;
        rest = &rest[at + BANNER.len()..];
        // The same words are part of a format string.
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return first_word(rest);
        }
    }
}

fn first_word(bytes: &[u8]) -> Option<String> {
    let word = bytes.iter().take(MAX_RELEASE).take_while(|byte| byte.is_ascii_graphic());
    let word: String = word.map(|&byte| byte as char).collect();
    // It becomes part of a path.
    (!word.is_empty() && !word.contains('/')).then_some(word)
}

/// The folder with the modules of a kernel: the one that was named, or the host's. Of a folder for one kernel
/// nobody has to know what that is called, which is much to read.
fn module_folder(named: Option<&Path>, kernel: &Path) -> io::Result<Option<PathBuf>> {
    let has_modules = |folder: &PathBuf| folder.join("modules.dep").is_file();
    let base = named.unwrap_or(Path::new(MODULES)).to_path_buf();
    if has_modules(&base) {
        return Ok(Some(base));
    }
    let Some(release) = release(kernel)? else { return Ok(None) };
    let folders = [base.join(&release), base.join("lib/modules").join(&release)];
    Ok(folders.into_iter().find(has_modules))
}

/// The modules of the guest's kernel, if there are any to be found.
pub(super) struct KernelModules(Option<(PathBuf, Modules)>);

impl KernelModules {
    /// Finds those of a kernel: under the folder that was named, or the host's.
    pub(super) fn find(named: Option<&Path>, kernel: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { path: kernel.to_owned(), source };
        let Some(folder) = module_folder(named, kernel).map_err(unreadable)? else {
            log::info!("no modules were found for {}; it may need none", kernel.display());
            return Ok(Self(None));
        };
        match Modules::read(&folder) {
            Ok(modules) => Ok(Self(Some((folder, modules)))),
            Err(source) => Err(Error::Read { path: folder.join("modules.dep"), source }),
        }
    }

    /// What the kernel has; None if nobody knows.
    pub(super) fn list(&self) -> Option<&Modules> {
        self.0.as_ref().map(|(_, modules)| modules)
    }

    /// Files of the wanted modules and of those that they need, in the order in which they are
    /// loaded. Modules that this kernel does not have as files are taken to be built in.
    pub(super) fn files(&self, wanted: &[&str]) -> Vec<PathBuf> {
        let Some((folder, modules)) = &self.0 else {
            return Vec::new();
        };
        modules.load_order(wanted).into_iter().map(|file| folder.join(file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_say_what_they_are() {
        let mut packed = vec![0; 0x400];
        packed[0x202..0x206].copy_from_slice(b"HdrS");
        packed[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        packed[0x300..0x310].copy_from_slice(b"6.1.0-1-amd64 (d");
        assert_eq!(packed_release(&packed).as_deref(), Some("6.1.0-1-amd64"));
        assert_eq!(packed_release(&packed[..0x2ff]), None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernel");
        // Neither needs what is behind the header, nor stops there.
        packed.resize(1 << 20, 0);
        fs::write(&file, &packed).unwrap();
        assert_eq!(release(&file).unwrap().as_deref(), Some("6.1.0-1-amd64"));
        let mut plain = vec![0; VERSION_REACH as usize - 5];
        plain.extend_from_slice(b"Linux version 6.12.3 (gcc)");
        fs::write(&file, plain).unwrap();
        assert_eq!(release(&file).unwrap().as_deref(), Some("6.12.3"));
        let plain = b"x Linux version %s y Linux version 6.12.3 (gcc)";
        assert_eq!(banner_release(plain).as_deref(), Some("6.12.3"));
        assert_eq!(banner_release(b"Linux version ../x"), None);
    }
}
