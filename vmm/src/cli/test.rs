//! `vmm test`: cases out of a file, each in a machine of its own.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;

use crate::cases::{self, Suite, Tap, Verdict};
use crate::error::Report;
use crate::outcome::BAD_INPUT;

/// Some case did not pass.
const FAILED: u8 = 1;

const EXAMPLES: &str = "\
Example of a file:
  timeout = \"60s\"
  options = [\"-m\", \"512M\"]          # of vmm exec, for all cases

  [[case]]
  name = \"the clock runs\"
  run = \"date +%Y\"                  # or: command = [\"date\", \"+%Y\"]
  stdout-has = [\"20\"]

docs/test.md has all keys. Results are written as TAP; the exit status is 0 if every case passed or was
skipped, and 1 if one failed.";

/// Run the cases of a file, each in a virtual machine of its own
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TestArgs {
    /// The cases, as TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Only the cases whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,

    /// How many machines may run at the same time [default: one for every two processors]
    #[arg(long, value_name = "COUNT")]
    parallel: Option<usize>,

    /// Also write the results as XML, in the form of junit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Runs them and gives the exit status of the process.
pub(super) fn run(arguments: &TestArgs) -> u8 {
    let suite = match Suite::read(&arguments.file, &arguments.only) {
        Ok(suite) => suite,
        Err(error) => {
            super::run::say(&Report::new(&error).to_string());
            return BAD_INPUT;
        }
    };
    execute(arguments, &suite).unwrap_or_else(|error| {
        super::run::say(&Report::of(&error).to_string());
        BAD_INPUT
    })
}

fn execute(arguments: &TestArgs, suite: &Suite) -> io::Result<u8> {
    // Before anything has run: a file that cannot be made would cost all results.
    let junit = arguments.junit.as_ref().map(File::create).transpose()?;
    let processors = available_parallelism().map_or(1, usize::from);
    let parallel = arguments.parallel.or(suite.parallel).unwrap_or(processors.div_ceil(2));
    let mut tap = Tap::begin(io::stdout().lock(), suite.cases.len())?;
    let outcomes = cases::run(suite, parallel, |number, outcome| tap.tell(number, outcome))?;
    if let Some(file) = junit {
        cases::write_junit(BufWriter::new(file), &suite.name, &outcomes)?;
    }
    let failed = outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    Ok(if failed { FAILED } else { 0 })
}
