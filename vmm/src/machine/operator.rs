//! Does what those ask for who control the machine: one request after the other.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use devices::legacy::acpi_pm::{AcpiPm, PowerButton};
use devices::rate_limit::{RateLimit, RateLimits};
use devices::virtio::console::WindowSize;
use devices::virtio::control::{Change, LimitedTraffic};
use devices::virtio::net::LinkState;
use devices::virtio::parts::DeviceParts;
use devices::virtio::pci::VirtioPciDevice;
use fileserver::Access;
use ipc::Receiver;

use super::directory::{Device, Directory};
use super::lifecycle::Machine;
use super::{metrics_text, resize, shares};
use crate::control::{
    Answer, Command, EventHub, EventKind, LinkTo, MachineState, Refusal, Request, Status, Traffic,
};
use crate::outcome::Outcome;

/// What the machine is, for its status.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) vcpus: u32,
    pub(super) memory: u64,
}

/// Who carries out what is asked.
pub(super) struct Operator<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) directory: &'a Directory,
    pub(super) hub: &'a Rc<EventHub>,
    pub(super) power: &'a AcpiPm,
    pub(super) size: Size,
}

/// What follows from a request.
enum Next {
    Answer(Answer),
    /// The machine ends.
    End(Outcome),
}

impl Operator<'_> {
    /// Works until somebody asks for the end.
    pub(super) async fn run(&mut self, commands: &mut Receiver<Command>) -> Outcome {
        loop {
            let Ok(Command { request, reply }) = commands.recv().await else {
                return std::future::pending().await;
            };
            log::info!("asked by a client: {request:?}");
            match self.obey(request).await {
                Ok(Next::Answer(answer)) => reply.send(Ok(answer)),
                Ok(Next::End(outcome)) => {
                    reply.send(Ok(Answer::Done));
                    return outcome;
                }
                Err(refusal) => reply.send(Err(refusal)),
            }
        }
    }

    async fn obey(&mut self, request: Request) -> Result<Next, Refusal> {
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Metrics => {
                let state = self.state();
                Answer::Metrics(metrics_text::write(self.directory, self.hub.uptime(), state))
            }
            Request::Stop => return Ok(Next::End(Outcome::Stopped)),
            Request::Reset => return Ok(Next::End(Outcome::Reset)),
            // The server's own affair.
            Request::Events => Answer::Done,
            Request::Pause => self.pause().await?,
            Request::Resume => self.resume().await?,
            Request::PowerButton => self.press_power_button()?,
            Request::Balloon { bytes } => self.balloon(bytes).await?,
            Request::DiskResize { id, bytes } => self.resize(&id, bytes).await?,
            Request::NetLink { id, link } => {
                let (state, word) = match link {
                    LinkTo::Up => (LinkState::Up, "link up"),
                    LinkTo::Down => (LinkState::Down, "link down"),
                };
                self.change(&id, Change::Link(state), word.into()).await?
            }
            Request::ConsoleResize { id, columns, rows } => {
                let words = format!("a window of {columns} by {rows} characters");
                self.change(&id, Change::Window(WindowSize { columns, rows }), words).await?
            }
            Request::Share { id, path, name, read_only } => {
                let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
                let words = format!("{} as `{name}`", path.display());
                let change = shares::grant(&path, name, access).map_err(|error| {
                    Refusal::new(format!("cannot share `{}`: {error}", path.display()))
                        .hint("check the path")
                })?;
                self.change_device(self.shared(id.as_deref())?, change, words).await?
            }
            Request::Unshare { id, name } => {
                let words = format!("`{name}` is not shared any more");
                self.change_device(self.shared(id.as_deref())?, Change::Unshare { name }, words)
                    .await?
            }
            Request::RateLimit { id, bytes, ops, traffic } => {
                let limits = RateLimits {
                    bytes: bytes.map(RateLimit::per_second),
                    operations: ops.map(RateLimit::per_second),
                };
                let traffic = match traffic {
                    Traffic::Both => LimitedTraffic::Both,
                    Traffic::Rx => LimitedTraffic::Receive,
                    Traffic::Tx => LimitedTraffic::Transmit,
                };
                let change = Change::RateLimits { traffic, limits };
                self.change(&id, change, "other rate limits".into()).await?
            }
        };
        Ok(Next::Answer(answer))
    }

    fn state(&self) -> MachineState {
        if self.machine.is_paused() { MachineState::Paused } else { MachineState::Running }
    }

    fn status(&self) -> Status {
        Status {
            state: self.state(),
            uptime: self.hub.uptime(),
            pid: std::process::id(),
            vmm: env!("CARGO_PKG_VERSION").to_owned(),
            vcpus: self.size.vcpus,
            memory: self.size.memory,
            devices: self.directory.devices.iter().map(|device| device.status()).collect(),
        }
    }

    /// First the vCPUs, so that no driver waits for a device that stands still; then the devices.
    async fn pause(&mut self) -> Result<Answer, Refusal> {
        if self.machine.is_paused() {
            return Ok(Answer::Done);
        }
        self.machine.pause().await;
        if let Err(refusal) = self.each_transport(VirtioPciDevice::pause).await {
            // All or nothing.
            let _ = self.each_transport(VirtioPciDevice::resume).await;
            self.machine.run();
            return Err(refusal.hint("the machine goes on; try again"));
        }
        self.hub.say(EventKind::Paused);
        Ok(Answer::Done)
    }

    async fn resume(&mut self) -> Result<Answer, Refusal> {
        if !self.machine.is_paused() {
            return Ok(Answer::Done);
        }
        let resumed = self.each_transport(VirtioPciDevice::resume).await;
        // A device that hangs is the supervisor's affair; the others and the guest go on.
        self.machine.run();
        self.hub.say(EventKind::Resumed);
        resumed.map(|()| Answer::Done)
    }

    /// Does something with all transports. On a thread of its own, because they wait for answers
    /// that this one carries. All are tried; the first error counts.
    async fn each_transport(
        &self,
        call: fn(&VirtioPciDevice) -> Result<(), String>,
    ) -> Result<(), Refusal> {
        let devices = self.directory.devices.iter();
        let work: Vec<(String, Arc<VirtioPciDevice>)> =
            devices.map(|device| (device.id.clone(), Arc::clone(device.transport()))).collect();
        if work.is_empty() {
            return Ok(());
        }
        let (done, mut result) = ipc::channel::<Result<(), String>>(1);
        let thread = move || {
            let mut first = Ok(());
            for (id, transport) in work {
                let called = call(&transport).map_err(|reason| format!("{id}: {reason}"));
                first = first.and(called);
            }
            // Nobody listens if the machine has ended.
            let _ = done.try_send(first);
        };
        std::thread::Builder::new()
            .name("pause".into())
            .spawn(thread)
            .map_err(|error| Refusal::new(format!("no thread to reach the devices: {error}")))?;
        let result = pin!(result.recv()).await;
        result.unwrap_or_else(|_| Err("the devices were not reached".into())).map_err(Refusal::new)
    }

    fn press_power_button(&self) -> Result<Answer, Refusal> {
        self.hub.say(EventKind::PowerButton);
        match self.power.press_power_button() {
            PowerButton::Delivered => Ok(Answer::Done),
            PowerButton::NotListening => {
                Err(Refusal::new("the guest does not listen to its power button yet")
                    .hint("a kernel with ACPI does once it is up; `stop` ends any machine"))
            }
        }
    }

    async fn balloon(&self, bytes: u64) -> Result<Answer, Refusal> {
        let device = self.directory.find("balloon0").map_err(|_| {
            Refusal::new("this machine has no balloon")
                .hint("it has to be there from the start: --balloon size=0")
        })?;
        self.change_device(device, Change::Balloon { bytes }, format!("{bytes} bytes")).await
    }

    async fn resize(&self, id: &str, bytes: u64) -> Result<Answer, Refusal> {
        let device = self.directory.find(id)?;
        match &*device.parts().lock() {
            DeviceParts::Blk(image) => resize::prepare(image, bytes)?,
            _ => {
                return Err(Refusal::new(format!("{} is no disk", device.id))
                    .hint("`vmm ctl SOCK status` lists the devices"));
            }
        }
        self.change_device(device, Change::Size { bytes }, format!("{bytes} bytes")).await
    }

    /// The device that directories are shared in.
    fn shared(&self, id: Option<&str>) -> Result<&Device, Refusal> {
        if let Some(id) = id {
            return Ok(self.directory.find(id)?);
        }
        let mut all = self.directory.devices.iter().filter(
            |device| matches!(&*device.parts().lock(), DeviceParts::Fs(parts) if parts.takes_grants()),
        );
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Refusal::new("this machine has no place for directories")
                .hint("start it with --share tag=NAME, without a path")),
            _ => Err(Refusal::new("this machine has several places for directories")
                .hint("name one: --tag TAG")),
        }
    }

    async fn change(&self, id: &str, change: Change, words: String) -> Result<Answer, Refusal> {
        self.change_device(self.directory.find(id)?, change, words).await
    }

    async fn change_device(
        &self,
        device: &Device,
        change: Change,
        words: String,
    ) -> Result<Answer, Refusal> {
        device.change(change).await?;
        self.hub.say(EventKind::Changed { device: device.id.clone(), change: words });
        Ok(Answer::Done)
    }
}
