//! `vmm device`: devices for virtual machines of other programs.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::config::{
    ConsoleConfig, DeviceOptions, DiskConfig, Error as ConfigError, MachineOptions, NetConfig,
    Placement, RngConfig, ServedDevices, ShareConfig, VsockConfig, check_cpus, check_served,
};
use crate::error::Report;
use crate::machine::{Grouping, Lifetime, ServedDevice, Service, serve};
use crate::outcome::Outcome;

const EXAMPLES: &str = "\
Examples:
  vmm device blk --socket disk.sock path=root.img       a disk; QEMU's options for it:
      -object memory-backend-memfd,id=ram,size=1G,share=on -machine q35,memory-backend=ram
      -chardev socket,id=disk,path=disk.sock,reconnect=1
      -device vhost-user-blk-pci,chardev=disk
  vmm device fs --socket dir.sock path=/srv,tag=srv,ro  a directory
  vmm device net --socket net.sock tap=tap0             a network
  vmm device console --socket hvc.sock stdio            a console on this terminal; in another one:
      vmm run vmlinux --vhost-user type=console,socket=hvc.sock -p console=hvc0
  vmm device serve --device type=blk,socket=a.sock,path=a --device type=blk,socket=b.sock,path=b
                                                        two disks in one process

The device runs in a sandboxed process. A front end that connects again after its death goes on with
what was in flight.";

const CONSOLE_EXAMPLES: &str = "\
Examples:
  vmm device console --socket hvc.sock stdio            hvc0 is this terminal; Ctrl-A x ends it
  vmm device console --socket hvc.sock unix=hvc         hvc0 is for whoever connects to `hvc`
  vmm device console --socket ports.sock unix=a,name=org.example.a unix=b,name=org.example.b
                                                        /dev/virtio-ports/org.example.a and .b

Our machines use it with `vmm run --vhost-user type=console,socket=hvc.sock`, and `-p console=hvc0`
if the kernel is to write there. QEMU 7.2 has no front end for consoles.";

const SERVE_EXAMPLES: &str = "\
Examples:
  vmm device serve --device type=blk,socket=disk.sock,path=root.img \\
                   --device type=rng,socket=rng.sock,rate=64K
  vmm device serve --config devices.toml --once         until a front end of each device has gone

In the file there is a table for each device; relative paths start at the file's folder:
  [[device]]
  type = \"blk\"
  socket = \"disk.sock\"
  path = \"root.img\"

Each device has a thread and a seccomp filter of its own. Those that share a process share its fate:
when it dies, their front ends connect again and go on with what was in flight.";

/// Serve virtio devices to virtual machines of other programs (vhost-user)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeviceArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Serve a disk
    Blk {
        /// What `--disk` of `vmm run` takes: path=FILE[,ro][,direct][,queues=N][,threads=N][,cpus=CPUS]...
        #[arg(value_name = "OPTIONS")]
        disk: DiskConfig,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve a network
    Net {
        /// What `--net` of `vmm run` takes: tap=NAME, fd=N or user, and more
        #[arg(value_name = "OPTIONS")]
        net: NetConfig,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve sockets between guest and host
    Vsock {
        /// What `--vsock` of `vmm run` takes: path=SOCKET[,cid=N]
        #[arg(value_name = "OPTIONS")]
        vsock: VsockConfig,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve entropy
    Rng {
        /// `true`, or how many bytes per second it gives: 65536, 64K, 1M
        #[arg(value_name = "OPTIONS", default_value = "true")]
        rng: RngConfig,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve a directory
    Fs {
        /// What `--share` of `vmm run` takes: path=DIR[,tag=NAME][,ro]...
        #[arg(value_name = "OPTIONS")]
        share: ShareConfig,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve a console, or ports of bytes
    #[command(after_help = CONSOLE_EXAMPLES)]
    Console {
        /// What `--console` of `vmm run` takes: KIND is stdio, file=PATH, pty, unix=PATH or null; with a
        /// name it is a port of bytes, of which there may be several
        #[arg(value_name = "KIND[,name=NAME]", required = true)]
        ports: Vec<ConsoleConfig>,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Serve several devices, from one process or one each
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// File with a `[[device]]` table for each device, whose keys are those of --device
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Device: type=blk|net|vsock|rng|fs|console,socket=SOCKET, then what `vmm device TYPE` takes;
    /// [rate=BYTES][,cpus=CPUS] of rng, ports=[KIND,...][,cpus=CPUS] of console; may be
    /// repeated
    #[arg(long = "device", value_name = "LIST")]
    devices: Vec<DeviceOptions>,
    /// Give each device a process of its own
    #[arg(long)]
    apart: bool,
    #[command(flatten)]
    mode: ModeArgs,
}

#[derive(Debug, Args)]
struct ServiceArgs {
    /// Where front ends connect; made for the owner alone
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    #[command(flatten)]
    mode: ModeArgs,
}

#[derive(Debug, Args)]
struct ModeArgs {
    /// End when the first front end, of each device, has gone
    #[arg(long)]
    once: bool,
    /// Serve without a sandbox, in this process, for debuggers and profilers
    #[arg(long)]
    single_process: bool,
}

/// Serves devices and gives the exit status of the process.
pub(super) fn run(arguments: DeviceArgs) -> u8 {
    let mut machine = MachineOptions::default();
    let ServiceArgs { socket, mode } = match arguments.kind {
        Kind::Serve(several) => return serve_several(several),
        Kind::Blk { disk, service } => {
            machine.serve_disk(disk);
            service
        }
        Kind::Net { net, service } => {
            machine.nets.push(net);
            service
        }
        Kind::Vsock { vsock, service } => {
            machine.vsock = Some(vsock);
            service
        }
        Kind::Rng { rng, service } => {
            machine.rng = Some(rng);
            service
        }
        Kind::Fs { share, service } => {
            machine.shares.push(share);
            service
        }
        Kind::Console { ports, service } => {
            machine.consoles = ports;
            service
        }
    };
    match machine.check() {
        Ok(device) => {
            serve_all(vec![ServedDevice { device, socket, cpus: None }], &mode, Grouping::Together)
        }
        Err(error) => failed(&Report::new(&error)),
    }
}

fn serve_several(arguments: ServeArgs) -> u8 {
    let ServeArgs { config, devices, apart, mode } = arguments;
    let devices = match checked(config.as_deref(), devices) {
        Ok(devices) => devices,
        Err(error) => return failed(&Report::new(&error)),
    };
    serve_all(devices, &mode, if apart { Grouping::Apart } else { Grouping::Together })
}

/// What a file and the command line say, each device checked.
fn checked(
    file: Option<&Path>,
    devices: Vec<DeviceOptions>,
) -> Result<Vec<ServedDevice>, ConfigError> {
    let mut all = match file {
        Some(file) => ServedDevices::from_file(file)?.devices,
        None => Vec::new(),
    };
    all.extend(devices);
    check_served(&all, Service::MAX_DEVICES)?;
    let several = all.len() > 1;
    let checked = all.into_iter().map(|DeviceOptions { socket, machine, cpus }| {
        let put = cpus.as_ref().map_or(Ok(()), |cpus| check_cpus("the device", cpus));
        match put.and_then(|()| machine.check()) {
            Ok(device) => Ok(ServedDevice { device, socket, cpus }),
            Err(error) if several => Err(ConfigError::Served { socket, source: Box::new(error) }),
            Err(error) => Err(error),
        }
    });
    checked.collect()
}

fn serve_all(devices: Vec<ServedDevice>, mode: &ModeArgs, grouping: Grouping) -> u8 {
    let lifetime = if mode.once { Lifetime::OneFrontEnd } else { Lifetime::UntilSignal };
    let placement =
        if mode.single_process { Placement::SingleProcess } else { Placement::Processes };
    match serve(&Service { devices, lifetime, placement, grouping }) {
        Ok(None) => 0,
        Ok(Some(signal)) => Outcome::Signal(signal).exit_code(),
        Err(error) => failed(&Report::new(&error)),
    }
}

fn failed(report: &Report) -> u8 {
    eprintln!("{report}");
    report.exit_code()
}
