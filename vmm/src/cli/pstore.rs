//! `vmm pstore`: the last words of a guest's kernel.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::logs::scrubbed_lines;
use crate::outcome::BAD_INPUT;
use crate::pstore::{self, SIZES, Zone};

/// There is no such file.
const MISSING: u8 = 2;

/// Show what a guest's kernel left in the memory that --pstore gave it
#[derive(Debug, Args)]
pub(super) struct PstoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write all zones that have something as text
    Dump {
        /// The file of --pstore
        file: PathBuf,
        /// Write what is there as it is
        #[arg(long)]
        raw: bool,
    },
}

/// Does it and gives the exit status of the process: 2 if there is no such file.
pub(super) fn run(arguments: &PstoreArgs) -> u8 {
    let Command::Dump { file, raw } = &arguments.command;
    match read(file) {
        Ok(memory) => super::print(&text(&pstore::read(&memory), *raw)),
        Err(error) => {
            super::run::say(&format!("error: cannot read `{}`: {error}", file.display()));
            if error.kind() == io::ErrorKind::NotFound { MISSING } else { BAD_INPUT }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut memory = Vec::new();
    File::open(path)?.take(*SIZES.end()).read_to_end(&mut memory)?;
    Ok(memory)
}

fn text(zones: &[Zone], raw: bool) -> Vec<u8> {
    let one = |zone: &Zone| {
        if raw {
            zone.bytes.clone()
        } else {
            format!("--- {}\n{}", zone.kind, scrubbed_lines(&zone.bytes)).into_bytes()
        }
    };
    zones.iter().flat_map(one).collect()
}
