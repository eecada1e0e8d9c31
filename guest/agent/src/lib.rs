//! The agent in a guest: starts programs for the host and hands their streams over.
//!
//! ```text
//!                     ┌──────────────── agent (one thread) ────────────────┐
//!  host ──8888─gRPC──▶│ service ──▶ processes ──▶ fork, exec ──▶ programs  │
//!                     │                 │ offers                  ▲ pipes  │
//!  host ──8889─bytes─▶│ streams ────────┴──▶ pumps ───────────────┘        │
//!  host ◀─7777─gRPC───│ ready                                              │
//!  host ◀─9999─gRPC───│ logs ◀── /dev/log, /dev/kmsg                       │
//!                     └────────────────────────────────────────────────────┘
//! ```
//!
//! A program that crashes has the kernel start another instance, which reports it (`crashes`).
//!
//! As process 1 it also makes a system out of the kernel (`init`) and ends it (`shutdown`).
//! docs/agent.md describes the protocol and who is let in.

mod agent;
mod crashes;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod init;
mod latch;
mod listening;
mod logging;
mod logs;
mod mounts;
mod network;
mod options;
mod ports;
mod process;
mod random;
mod secret;
mod service;
mod services;
mod shutdown;
mod signals;
mod statistics;
mod streams;
mod transport;
mod vsock;

use std::io;
use std::process::ExitCode;

use executor::{Config, Executor, KernelFeatures};
use proto::credentials::Secret;

use agent::Role;
use init::Later;
use options::{Options, SecretSource, Wanted};
use signals::Signals;

/// Enough for some dozens of streams in one turn; a ring costs memory all the time.
const RING_ENTRIES: u32 = 64;

/// The whole program.
pub fn main() -> ExitCode {
    logging::start();
    let role = if std::process::id() == 1 { Role::Init } else { Role::Service };
    let options = match role {
        Role::Init => Options::of_init(),
        Role::Service => match options::parse(std::env::args_os().skip(1)) {
            Ok(Wanted::Serve(options)) => options,
            Ok(Wanted::Report(crashed)) => return crashes::report(&crashed),
            Ok(Wanted::Text(text)) => {
                print!("{text}");
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                eprintln!("vmm-agent: {error}\n{}", options::USAGE);
                return ExitCode::from(2);
            }
        },
    };
    if role.is_init()
        && let Some(program) = init::successor()
    {
        log::error!("{}", init::hand_over(&program));
        log::error!("{}", shutdown::end_machine(proto::v1::shutdown_request::Mode::PowerOff));
        return ExitCode::FAILURE;
    }
    match serve(options, role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            if role.is_init() {
                // Process 1 must not return: the kernel would panic, and hide why.
                log::error!(
                    "{}",
                    shutdown::end_machine(proto::v1::shutdown_request::Mode::PowerOff)
                );
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options, role: Role) -> io::Result<()> {
    let signals = Signals::block()?;
    let (problem, later) = match role {
        Role::Init => {
            let (result, later) = init::set_up();
            (result.err(), later)
        }
        Role::Service => (None, Later::default()),
    };
    if let Some(problem) = &problem {
        log::error!("{problem}");
    }
    let secret = read_secret(&options.secret)?;
    // Before Linux 6.2 the ring lets go of a registered file only when all operations that began
    // before have ended. Some of ours wait for ever, and a stream ends by being closed.
    let config =
        Config { entries: RING_ENTRIES, without: KernelFeatures::FIXED_FILES, ..Config::default() };
    let mut executor = Executor::new(&config).map_err(io::Error::other)?;
    let mode = executor.block_on(agent::run(options, secret, role, (problem, later), signals))?;
    if role.is_init() {
        return Err(shutdown::end_machine(mode));
    }
    Ok(())
}

fn read_secret(source: &SecretSource) -> io::Result<Secret> {
    match source {
        SecretSource::Firmware => secret::from_firmware(),
        SecretSource::File(path) => {
            let text = std::fs::read_to_string(path)?;
            Secret::parse(text.trim_end())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}
