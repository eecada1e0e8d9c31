//! Programs of the host with what they need to run elsewhere: interpreter and shared libraries.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A shebang line is at most this long (`BINPRM_BUF_SIZE`).
const MAX_SHEBANG: usize = 256;
/// Interpreters of interpreters, as deep as the kernel follows them.
const MAX_DEPTH: usize = 4;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Looks a program up as a shell does.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Adds the files that a program needs, itself first, under the names by which they are looked
/// for.
pub(super) fn closure(program: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut next = Some(program.to_path_buf());
    for _ in 0..MAX_DEPTH {
        let Some(path) = next.take() else {
            break;
        };
        if !files.insert(path.clone()) {
            break;
        }
        let mut start = vec![0; MAX_SHEBANG];
        let length = File::open(&path)?.read(&mut start)?;
        start.truncate(length);
        if start.starts_with(ELF_MAGIC) {
            files.extend(libraries(&path)?);
        } else {
            next = shebang(&start);
        }
    }
    Ok(())
}

/// The interpreter of a script. `env` is followed to the program that it looks up.
fn shebang(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let interpreter = words.next()?;
    match words.next() {
        Some(name) if interpreter.ends_with("/env") => find(name),
        _ => Some(interpreter.into()),
    }
}

/// The interpreter and the libraries of a dynamic program, as the interpreter finds them.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(interpreter) = interpreter(&fs::read(program)?) else {
        return Ok(Vec::new());
    };
    let output = Command::new(&interpreter)
        .arg("--list")
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let mut files = listed(&String::from_utf8_lossy(&output.stdout));
    files.push(interpreter);
    Ok(files)
}

/// Paths in lines such as `libc.so.6 => /lib/libc.so.6 (0x7f..)` and `/lib64/ld.so (0x7f..)`.
fn listed(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        place.split_whitespace().next().filter(|word| word.starts_with('/')).map(PathBuf::from)
    };
    text.lines().filter_map(path).collect()
}

/// The program interpreter (`PT_INTERP`) of a 64-bit little-endian ELF file.
fn interpreter(file: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize| Some(u64::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
    if !file.starts_with(ELF_MAGIC) || file.get(4..6)? != [2, 1] {
        return None;
    }
    let table = usize::try_from(word(32)?).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let header = (0..count).find_map(|index| {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let kind = u32::from_le_bytes(*file.get(at..)?.first_chunk()?);
        (kind == PT_INTERP).then_some(at)
    })?;
    let start = usize::try_from(word(header + 8)?).ok()?;
    let end = start.checked_add(usize::try_from(word(header + 32)?).ok()?)?;
    let path = file.get(start..end)?.split(|&byte| byte == 0).next()?;
    Some(PathBuf::from(std::str::from_utf8(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_comes_with_its_interpreter() {
        let mut files = BTreeSet::new();
        closure(&find("sh").unwrap(), &mut files).unwrap();
        assert!(files.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{files:?}");
        assert!(files.iter().any(|path| path.to_string_lossy().contains("ld-linux")), "{files:?}");
    }

    #[test]
    fn scripts_name_their_interpreters() {
        assert_eq!(shebang(b"#!/bin/sh -e\nexit"), Some("/bin/sh".into()));
        assert_eq!(shebang(b"#! /usr/bin/env sh\n"), find("sh"));
        assert_eq!(shebang(b"#!\n"), None);
        assert_eq!(shebang(b"plain"), None);
    }

    #[test]
    fn lists_of_libraries_are_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n\
                    \tlost.so => not found\n";
        assert_eq!(listed(text), ["/lib/libc.so.6", "/lib64/ld.so"].map(PathBuf::from));
    }

    #[test]
    fn broken_programs_have_no_interpreter() {
        let shell = fs::read(find("sh").unwrap()).unwrap();
        assert!(interpreter(&shell).is_some());
        for length in 0..200 {
            let _ = interpreter(&shell[..length]);
        }
    }
}
