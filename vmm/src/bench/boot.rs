//! Starts of virtual machines: from exec to the first instruction of the guest.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use loadgen::first_run;

use super::error::BenchError;
use super::trial::{Trial, TrialResults, Way, run_trials};
use crate::folder::Folder;

/// A disk that is never read.
const DISK_BYTES: u64 = 64 << 20;

/// Another VMM: its name, and how it starts a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starter {
    name: String,
    words: Vec<String>,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another VMM is NAME=COMMAND with {{kernel}} in it, and {{disk}} where it gets one")]
pub struct StarterError;

impl FromStr for Starter {
    type Err = StarterError;

    fn from_str(text: &str) -> Result<Self, StarterError> {
        let (name, command) = text.split_once('=').ok_or(StarterError)?;
        let words = command.split_whitespace().map(str::to_owned).collect();
        let is_whole = !name.is_empty() && command.contains("{kernel}");
        is_whole.then(|| Self { name: name.into(), words }).ok_or(StarterError)
    }
}

impl Starter {
    /// `vmm run` of this very program.
    fn ours() -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::host("find this program"))?;
        let program = program.display().to_string();
        let rest = ["run", "{kernel}", "--memory", "512M", "--disk", "path={disk}"];
        let words = std::iter::once(program.as_str()).chain(rest).map(str::to_owned);
        Ok(Self { name: "vmm".into(), words: words.collect() })
    }

    fn command(&self, kernel: &Path, disk: &Path) -> Vec<OsString> {
        let [kernel, disk] = [kernel, disk].map(|path| path.display().to_string());
        let fill = |word: &String| word.replace("{kernel}", &kernel).replace("{disk}", &disk);
        self.words.iter().map(|word| fill(word).into()).collect()
    }
}

/// Measures starts of these kernels; this needs KVM.
pub fn run_boot(
    kernels: &[PathBuf],
    against: &[Starter],
    rounds: u32,
    progress: &dyn Fn(&str),
) -> Result<TrialResults, BenchError> {
    let folder = Folder::create().map_err(BenchError::host("make a folder for disks"))?;
    let starters: Vec<_> =
        std::iter::once(Starter::ours()?).chain(against.iter().cloned()).collect();
    let mut trials = Vec::with_capacity(kernels.len());
    for kernel in kernels {
        File::open(kernel).map_err(|source| BenchError::File { path: kernel.clone(), source })?;
        let way = |starter: &Starter| {
            let (starter, folder, mut number) = (starter.clone(), &folder, 0_u32);
            Way::new(starter.name.clone(), move |_| {
                number += 1;
                // A fresh one each time: the kernel lets go of a killed process's disk a little later.
                let disk = folder.file(&format!("{}-{number}", starter.name.replace('/', "-")));
                File::create(&disk)
                    .and_then(|file| file.set_len(DISK_BYTES))
                    .map_err(BenchError::host("make a disk"))?;
                let time = first_run(&starter.command(kernel, &disk));
                // Only its name: who is being ended may still have it.
                let _ = std::fs::remove_file(&disk);
                time.map_err(|source| BenchError::Load { name: starter.name.clone(), source })
            })
        };
        let what = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ways = starters.iter().map(way).collect();
        trials.push(Trial { what: what.into(), operations: 1, ways });
    }
    run_trials(trials, rounds, progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_vmm_is_a_name_and_a_command() {
        let starter: Starter =
            "other=other-vmm --kernel {kernel} --disk path={disk}".parse().expect("one");
        let command = starter.command(Path::new("/k"), Path::new("/d"));
        assert_eq!(command, ["other-vmm", "--kernel", "/k", "--disk", "path=/d"]);
        for text in ["", "other", "=x {kernel}", "other=no-kernel"] {
            assert_eq!(text.parse::<Starter>(), Err(StarterError), "{text}");
        }
    }
}
