//! Programs that the guest itself names, and that run as long as it does.
//!
//! ```text
//!   /etc/vmm/services/NAME.toml ──▶ start ──▶ runs ──▶ ended ──▶ start ...   at most 10 ends in 30 s
//!                                              │ lines
//!                                              └──▶ logs, as NAME[PID]: LINE
//! ```

mod description;
mod lines;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use executor::{Either, select};

use crate::agent::Agent;
use crate::process::Exit;
use description::{Restart, Service, read_all};
use lines::Lines;

/// Where they are described.
pub(crate) const FOLDER: &str = "/etc/vmm/services";
/// A service that ends so often within [`MOST_DEATHS_TIME`] is not started again.
const MOST_DEATHS: usize = 10;
const MOST_DEATHS_TIME: Duration = Duration::from_secs(30);

/// `daemon.info`, `daemon.notice` and `daemon.err` (RFC 3164 section 4.1.1).
const INFO: u32 = 30;
const NOTICE: u32 = 29;
const ERROR: u32 = 27;

/// Starts what the folder's files describe. One that is wrong keeps none of the others from running.
pub(crate) fn start(agent: &Rc<Agent>, folder: &Path) {
    for found in read_all(folder) {
        match found {
            Ok(service) => executor::spawn(keep_running(Rc::clone(agent), service)).detach(),
            Err(problem) => say(agent, ERROR, &format!("vmm-agent: {problem}")),
        }
    }
}

async fn keep_running(agent: Rc<Agent>, service: Service) {
    let mut deaths = VecDeque::with_capacity(MOST_DEATHS);
    loop {
        let (end, again) = match run(&agent, &service).await {
            Ok(Exit::Code(0)) => ("has ended".into(), service.restart == Restart::Always),
            Ok(Exit::Code(code)) => {
                (format!("has ended with status {code}"), service.restart != Restart::Never)
            }
            Ok(Exit::Signal(number)) => {
                (format!("was ended by signal {number}"), service.restart != Restart::Never)
            }
            Err(reason) => (format!("does not start: {reason}"), service.restart != Restart::Never),
        };
        if agent.shutdown.get().is_some() {
            return;
        }
        let now = Instant::now();
        deaths.push_back(now);
        deaths.retain(|death| now.duration_since(*death) < MOST_DEATHS_TIME);
        let name = &service.name;
        if again && deaths.len() >= MOST_DEATHS {
            let times = format!("{MOST_DEATHS} times within {} s", MOST_DEATHS_TIME.as_secs());
            let text = format!("vmm-agent: {name} {end}, {times}, and is not started again");
            return say(&agent, ERROR, &text);
        }
        say(&agent, NOTICE, &format!("vmm-agent: {name} {end}"));
        if !again {
            return;
        }
    }
}

/// Runs it once, to its end.
async fn run(agent: &Agent, service: &Service) -> Result<Exit, String> {
    let started = agent.processes.start_service(&service.request)?;
    let name = &format!("{}[{}]", service.name, started.pid);
    let follow = |from: Option<OwnedFd>, priority| {
        Lines::new(from, move |line| {
            let mut text = format!("{name}: ").into_bytes();
            text.extend_from_slice(line);
            agent.logs.say(priority, text);
        })
    };
    let (mut out, mut err) = (follow(started.stdout, INFO), follow(started.stderr, NOTICE));
    let exit = loop {
        let some = select(out.some(), err.some());
        match select(started.exit.wait(), some).await {
            Either::Left(exit) => break exit,
            Either::Right(_) => {}
        }
    };
    // What it wrote is there; what its descendants will write is nobody's.
    out.finish();
    err.finish();
    Ok(exit)
}

fn say(agent: &Agent, priority: u32, text: &str) {
    log::warn!("{}", text.strip_prefix("vmm-agent: ").unwrap_or(text));
    agent.logs.say(priority, text.into());
}
