//! `vmm device`: one device for virtual machines of other programs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{
    ConsoleConfig, DiskConfig, MachineOptions, NetConfig, QueueCount, RngConfig, ShareConfig,
    VsockConfig,
};
use crate::error::Report;
use crate::machine::{Lifetime, Service, serve};
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

/// Serve one virtio device to virtual machines of other programs (vhost-user)
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
        /// What `--disk` of `vmm run` takes: path=FILE[,ro][,direct][,queues=N]...
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
}

#[derive(Debug, Args)]
struct ServiceArgs {
    /// Where front ends connect; made for the owner alone
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    /// End when the first front end has gone
    #[arg(long)]
    once: bool,
    /// Serve without a sandbox, in this process, for debuggers and profilers
    #[arg(long)]
    single_process: bool,
}

/// Serves the device and gives the exit status of the process.
pub(super) fn run(arguments: DeviceArgs) -> u8 {
    let mut options = MachineOptions::default();
    let mut entropy = RngConfig::Absent;
    let service = match arguments.kind {
        Kind::Blk { mut disk, service } => {
            // Front ends take as many as they like, and refuse a device with fewer.
            disk.queues.get_or_insert(QueueCount::MOST);
            options.disks.push(disk);
            service
        }
        Kind::Net { net, service } => {
            options.nets.push(net);
            service
        }
        Kind::Vsock { vsock, service } => {
            options.vsock = Some(vsock);
            service
        }
        Kind::Rng { rng, service } => {
            entropy = rng;
            service
        }
        Kind::Fs { share, service } => {
            options.shares.push(share);
            service
        }
        Kind::Console { ports, service } => {
            options.consoles = ports;
            service
        }
    };
    let ServiceArgs { socket, once, single_process } = service;
    options.single_process = Some(single_process);
    let mut device = match options.check() {
        Ok(device) => device,
        Err(error) => return failed(&Report::new(&error)),
    };
    device.rng = entropy;
    let lifetime = if once { Lifetime::OneFrontEnd } else { Lifetime::UntilSignal };
    match serve(&Service { device, socket, lifetime }) {
        Ok(None) => 0,
        Ok(Some(signal)) => Outcome::Signal(signal).exit_code(),
        Err(error) => failed(&Report::new(&error)),
    }
}

fn failed(report: &Report) -> u8 {
    eprintln!("{report}");
    report.exit_code()
}
