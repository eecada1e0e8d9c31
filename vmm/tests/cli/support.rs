//! Runs the binary and looks at what it leaves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary under test.
pub(crate) const VMM: &str = env!("CARGO_BIN_EXE_vmm");

/// Runs it with arguments in a folder, with an empty standard input.
pub(crate) fn vmm(folder: &Path, arguments: &[&str]) -> Output {
    command(VMM.as_ref(), folder, arguments).output().expect("the binary starts")
}

/// The command for a copy of the binary.
pub(crate) fn command(binary: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_remove("VMM_LOG");
    command
}

/// What a process has written, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names, sizes and contents of all files in a folder.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is readable")
        .map(|entry| entry.expect("the entry is readable").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(&path).expect("the file is readable")))
        .collect();
    files.sort();
    files
}
