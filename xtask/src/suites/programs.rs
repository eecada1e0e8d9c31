//! Programs that cases run in guests and on hosts. Most need no libraries, so that they run in an initrd.

use anyhow::{Context, Result};

use crate::{bed, project};

/// A program and its sources by name, the main one first.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) sources: &'static [(&'static str, &'static str)],
    /// How it is compiled.
    pub(super) arguments: &'static [&'static str],
}

/// As a program that needs no libraries.
pub(super) const STATIC: &[&str] = &["-O", "-C", "target-feature=+crt-static"];

/// Moves bytes between guests and hosts, through all kinds of sockets.
pub(super) const LOAD: Program = Program {
    name: "load",
    sources: &[
        ("main.rs", include_str!("load/main.rs")),
        ("messages.rs", include_str!("load/messages.rs")),
        ("sockets.rs", include_str!("load/sockets.rs")),
        ("streams.rs", include_str!("load/streams.rs")),
        ("sum.rs", include_str!("load/sum.rs")),
    ],
    arguments: STATIC,
};

impl Program {
    /// Builds it into the folder that the bed sees as `$VMM_BED_SCRATCH`. A case finds out for itself
    /// whether it is there.
    pub(super) fn build(&self) {
        if let Err(error) = self.try_build() {
            eprintln!("cannot build {}: {error:#}", self.name);
        }
    }

    fn try_build(&self) -> Result<()> {
        let program = bed::scratch().join(self.name);
        let folder = bed::scratch().join(format!("{}.src", self.name));
        std::fs::create_dir_all(&folder)?;
        let is_there = |(name, text): &(&str, &str)| {
            std::fs::read_to_string(folder.join(name)).is_ok_and(|old| old == *text)
        };
        if program.exists() && self.sources.iter().all(is_there) {
            return Ok(());
        }
        for (name, text) in self.sources {
            std::fs::write(folder.join(name), text)?;
        }
        let mut rustc = project::program("rustc");
        rustc.args(["--edition", "2024"]).args(self.arguments).arg("-o");
        rustc.arg(program).arg(folder.join(self.sources[0].0));
        project::output(&mut rustc).context("rustc").map(drop)
    }
}
