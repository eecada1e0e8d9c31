//! The end: everybody gets time, then nobody, then the disks are in order.

use std::io;
use std::time::Duration;

use executor::{Either, select, sleep};
use proto::v1::shutdown_request::Mode;
use rustix::process::Signal;
use rustix::system::RebootCommand;

use crate::agent::{Agent, Role};
use crate::process::reaper::{self, Children};
use crate::signals::{Event, Listener};

/// What processes get to end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the kernel gets to take down those that were killed.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// Ends all processes: as process 1 everything, else what the host has started.
pub(crate) async fn end_processes(agent: &Agent, signals: &mut Listener) -> io::Result<()> {
    agent.processes.leave_to_shutdown();
    if agent.role == Role::Service {
        agent.processes.hold_all();
    }
    signal(agent, Signal::TERM);
    // Stopped ones hear nothing until they go on.
    signal(agent, Signal::CONT);
    let patience = select(all_ended(agent, signals), sleep(PATIENCE)).await;
    if agent.role == Role::Service || matches!(patience, Either::Right(())) {
        // Of a service's groups only the leaders are known to have ended.
        signal(agent, Signal::KILL);
        agent.processes.release_all();
        let _ = select(all_ended(agent, signals), sleep(AFTER_KILL)).await;
    }
    Ok(())
}

fn signal(agent: &Agent, signal: Signal) {
    match agent.role {
        Role::Service => agent.processes.signal_all(signal),
        Role::Init => kill_everybody(signal),
    }
}

/// All processes but process 1, which is us.
fn kill_everybody(signal: Signal) {
    // SAFETY: sends a signal; -1 leaves out process 1 and the caller.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

async fn all_ended(agent: &Agent, signals: &mut Listener) {
    loop {
        let children = reaper::reap(&agent.processes).unwrap_or(Children::None);
        let done = match agent.role {
            Role::Init => children == Children::None,
            Role::Service => agent.processes.all_ended(),
        };
        if done {
            return;
        }
        // Other signals ask for what is under way.
        while !matches!(signals.next().await, Ok(Event::ChildEnded) | Err(_)) {}
    }
}

/// Ends the machine. Returns only if the kernel refuses.
pub(crate) fn end_machine(mode: Mode) -> io::Error {
    rustix::fs::sync();
    let flags = rustix::mount::MountFlags::RDONLY;
    // Journals are closed by this; a root in memory refuses, and need not.
    let _ = rustix::mount::mount_remount("/", flags, "");
    let command = match mode {
        Mode::PowerOff => RebootCommand::PowerOff,
        Mode::Reboot => RebootCommand::Restart,
    };
    match rustix::system::reboot(command) {
        Ok(()) => io::Error::other("the kernel did not end the machine"),
        Err(errno) => errno.into(),
    }
}
