//! `sim`: tries seeds. `cargo xtask sim` builds and runs it.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use devices::simulation::{Bug, ENABLED};
use sim::hunt::{Failure, Quest, hunt, on_a_thread, try_plan};
use sim::minimise::minimise;
use sim::models::Device;
use sim::planted::look_for;
use sim::world::Plan;

/// Notes of a log that are shown when it is longer.
const SHOWN: usize = 400;

/// Runs back ends in simulated worlds, each of which a seed decides
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Only this device
    #[arg(long, value_name = "NAME", value_parser = device)]
    device: Option<Device>,
    /// Live through this seed and show what happens
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many seeds of each device
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Go on for so long with each device, instead of a number of seeds
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// Threads
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    threads: usize,
    /// Show the whole log of a seed, not as little as still fails
    #[arg(long)]
    whole: bool,
    /// Plant known bugs and see whether each is found
    #[arg(long)]
    planted: bool,
    /// The result as a last line of JSON
    #[arg(long)]
    json: bool,
}

fn device(name: &str) -> Result<Device, String> {
    let names = || Device::ALL.map(Device::name).join(", ");
    Device::by_name(name).ok_or_else(|| format!("there are {}", names()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.planted {
        return plant_all(&arguments);
    }
    let devices = match arguments.device {
        Some(device) => vec![device],
        None => Device::ALL.to_vec(),
    };
    match arguments.seed {
        Some(seed) => replay(&arguments, &devices, seed),
        None => search(&arguments, &devices),
    }
}

/// Plants each bug and looks for it.
fn plant_all(arguments: &Arguments) -> ExitCode {
    if !ENABLED {
        eprintln!("error: this build has no bugs to plant");
        return ExitCode::FAILURE;
    }
    let mut found = 0;
    for bug in Bug::ALL {
        let verdict = look_for(bug, arguments.threads);
        let seconds = verdict.time.as_secs_f64();
        let device = verdict.device.name();
        match verdict.failure {
            Some(Failure { seed, message, .. }) => {
                found += 1;
                println!("{:<18} {device} seed {seed}, {seconds:.2} s: {message}", bug.name());
            }
            None => println!(
                "{:<18} {device} NOT found in {} seeds, {seconds:.2} s",
                bug.name(),
                verdict.seeds
            ),
        }
    }
    let planted = Bug::ALL.len();
    if arguments.json {
        println!("{{\"planted\":{planted},\"found\":{found}}}");
    }
    if found == planted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One seed, twice: what it does, and that it does it again.
fn replay(arguments: &Arguments, devices: &[Device], seed: u64) -> ExitCode {
    let mut failures = 0;
    for device in devices {
        let (first, second) = on_a_thread(|| {
            (try_plan(*device, &Plan::of(seed)), try_plan(*device, &Plan::of(seed)))
        });
        let same = first.log.hash() == second.log.hash();
        println!(
            "{} {seed}: {} notes, hash {:016x}, {}",
            device.name(),
            first.log.notes().len(),
            first.log.hash(),
            if same { "the same twice" } else { "NOT the same twice" }
        );
        match &first.failure {
            Some(message) if !arguments.whole => {
                failures += 1;
                show(&Failure { device: *device, seed, message: message.clone() });
            }
            failure => {
                for note in first.log.notes() {
                    println!("{note}");
                }
                if let Some(message) = failure {
                    failures += 1;
                    println!("failed: {message}");
                }
            }
        }
        failures += u64::from(!same);
    }
    finish(arguments, devices.len() as u64, failures)
}

/// Many seeds.
fn search(arguments: &Arguments, devices: &[Device]) -> ExitCode {
    let (mut seeds, mut failures) = (0, 0);
    for device in devices {
        let time = arguments.minutes.map(Duration::from_mins);
        let quest = Quest {
            first: arguments.first,
            seeds: if time.is_some() { u64::MAX - arguments.first } else { arguments.seeds },
            time,
            enough: 10,
        };
        let start = Instant::now();
        let bag = hunt(*device, quest, arguments.threads, || {});
        println!(
            "{}: {} seeds in {:.1} s, {} failed",
            device.name(),
            bag.seeds,
            start.elapsed().as_secs_f64(),
            bag.failures.len()
        );
        for failure in &bag.failures {
            println!("  seed {}: {}", failure.seed, failure.message);
        }
        if let Some(first) = bag.failures.first() {
            show(first);
        }
        seeds += bag.seeds;
        failures += bag.failures.len() as u64;
    }
    finish(arguments, seeds, failures)
}

/// A failure with as little as is needed for it.
fn show(failure: &Failure) {
    let Failure { device, seed, message } = failure;
    let (plan, found) = on_a_thread(|| minimise(*device, *seed));
    println!("{} {seed} failed: {message}", device.name());
    let notes = found.log.notes();
    let without: Vec<_> = plan.without.iter().map(|kind| kind.name()).collect();
    println!("what is left of it, without [{}]:", without.join(", "));
    if notes.len() > SHOWN {
        println!("  ... {} notes before", notes.len() - SHOWN);
    }
    for note in &notes[notes.len().saturating_sub(SHOWN)..] {
        println!("  {note}");
    }
    println!("  failed: {}", found.failure.as_deref().unwrap_or("not any more"));
    println!("again: cargo xtask sim --device {} --seed {seed}", device.name());
}

fn finish(arguments: &Arguments, seeds: u64, failures: u64) -> ExitCode {
    if arguments.json {
        println!("{{\"seeds\":{seeds},\"failures\":{failures}}}");
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
