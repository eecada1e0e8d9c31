//! The vCPU actors: a thread each, entering the guest between messages.
//!
//! ```text
//!             Run                Stop
//!   Paused ─────────► Running ─────────► (thread ends)
//!      ▲                 │
//!      └───── Pause ─────┘     Stop works in both
//! ```
//!
//! A message alone would wait for the next exit of the guest, so each is followed by a kick that
//! ends the guest entry under way.

use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use devices::bus::Bus;
use devices::memory::{FileMapping, GuestMemory};
use ipc::{CallError, Deadline, Receiver, Reply, Sender, TryRecvError};
use serde::{Deserialize, Serialize};

use super::Event;
use super::tracing::Tracer;
use crate::config::CpuList;
use crate::kvm::{Step, Vcpu, VcpuKicker, Vm};

/// A control message never waits behind more than one other: the machine sends them one by one.
const REQUEST_CAPACITY: usize = 2;
/// How long a vCPU may take to leave the guest after a kick. A kick takes microseconds; on a host
/// that is badly overloaded a thread may not be scheduled for seconds.
const KICK_DEADLINE: Duration = Duration::from_secs(10);

/// What the machine asks of a vCPU.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Enter the guest.
    Run,
    /// Leave the guest and stay out until `Run`.
    Pause { reply: Reply<()> },
    /// Leave the guest for good.
    Stop,
}

/// The address spaces that a vCPU's accesses go to; built once, read by all vCPUs.
#[derive(Debug)]
pub(super) struct AddressSpaces {
    pub(super) ports: Bus,
    pub(super) mmio: Bus,
    #[expect(dead_code, reason = "keeps the guest's RAM mapped while any vCPU can touch it")]
    pub(super) memory: GuestMemory,
    #[expect(dead_code, reason = "keeps persistent memory mapped as long")]
    pub(super) files: Arc<[FileMapping]>,
    #[expect(dead_code, reason = "the last handle closes the VM, and with it all interrupts")]
    pub(super) vm: Vm,
}

/// The machine's end of a vCPU actor.
#[derive(Debug)]
pub(super) struct VcpuActor {
    requests: Sender<Request>,
    kicker: VcpuKicker,
    thread: JoinHandle<()>,
}

impl VcpuActor {
    /// Starts the thread, paused.
    pub(super) fn spawn(
        vcpu: Vcpu,
        spaces: Arc<AddressSpaces>,
        events: Sender<Event>,
        tracer: &Tracer,
        cpus: Option<&CpuList>,
    ) -> std::io::Result<Self> {
        let name = format!("vcpu{}", vcpu.id());
        let (requests, receiver) = tracer.channel(REQUEST_CAPACITY, &name, "request");
        let kicker = vcpu.kicker();
        let cpus = cpus.map(|cpus| cpus.numbers().to_vec());
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let put = cpus.map_or(Ok(()), executor::pin_thread);
            let is_put = put.is_ok();
            // Whoever made the thread waits for it.
            let _ = tell.send(put);
            if is_put {
                run(vcpu, &spaces, receiver, &events);
            }
        })?;
        told.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
        Ok(Self { requests, kicker, thread })
    }

    /// Lets the vCPU enter the guest.
    pub(super) fn run(&self) {
        self.send(Request::Run);
    }

    /// Returns when the vCPU is out of the guest and stays out, or its thread has ended.
    pub(super) async fn pause(&self) {
        let answer =
            self.requests.call(|reply| Request::Pause { reply }, Deadline::after(KICK_DEADLINE));
        if self.kick_while(answer).await == Err(CallError::TimedOut) {
            log::error!("a vCPU does not leave the guest");
        }
    }

    async fn kick_while(
        &self,
        answer: impl Future<Output = Result<(), CallError>>,
    ) -> Result<(), CallError> {
        let mut answer = std::pin::pin!(answer);
        // The first poll puts the request into the channel; only then is a kick of use.
        let mut kicked = false;
        std::future::poll_fn(|context| {
            let state = answer.as_mut().poll(context);
            if !kicked {
                kicked = true;
                self.kick();
            }
            state
        })
        .await
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        self.send(Request::Stop);
        self.kick();
        if self.thread.join().is_err() {
            log::error!("a vCPU thread panicked");
        }
    }

    fn send(&self, request: Request) {
        // A vCPU that has ended by itself (a triple fault) has closed its channel, which is fine.
        let _ = self.requests.send_blocking(request, Deadline::after(KICK_DEADLINE));
    }

    fn kick(&self) {
        self.kicker.kick(self.thread.as_pthread_t());
    }
}

fn run(
    mut vcpu: Vcpu,
    spaces: &AddressSpaces,
    mut requests: Receiver<Request>,
    events: &Sender<Event>,
) {
    loop {
        // Paused.
        loop {
            match requests.recv_blocking(Deadline::after(Duration::MAX)) {
                Ok(Request::Run) => break,
                Ok(Request::Pause { reply }) => reply.send(()),
                Ok(Request::Stop) | Err(_) => return,
            }
        }
        // Running.
        match run_until_request(&mut vcpu, spaces, &mut requests) {
            Left::Paused(reply) => {
                vcpu.tell_of_pause();
                reply.send(());
            }
            Left::Stopped => return,
            Left::Crashed(reason) => {
                // Only a machine that is stopping already does not take events any more.
                let _ =
                    events.send_blocking(Event::Crash { reason }, Deadline::after(KICK_DEADLINE));
                return;
            }
        }
    }
}

/// Why a vCPU left the guest.
enum Left {
    Paused(Reply<()>),
    Stopped,
    Crashed(String),
}

fn run_until_request(
    vcpu: &mut Vcpu,
    spaces: &AddressSpaces,
    requests: &mut Receiver<Request>,
) -> Left {
    loop {
        match vcpu.step(&spaces.ports, &spaces.mmio) {
            Step::Continue => {}
            Step::Interrupted => match requests.try_recv() {
                Ok(Request::Pause { reply }) => return Left::Paused(reply),
                Ok(Request::Stop) | Err(TryRecvError::Closed | TryRecvError::PeerDied) => {
                    return Left::Stopped;
                }
                Ok(Request::Run) | Err(TryRecvError::Empty) => {}
            },
            Step::TripleFault => {
                return Left::Crashed(format!("vCPU {}: triple fault", vcpu.id()));
            }
            Step::Failed(reason) => {
                return Left::Crashed(format!("vCPU {}: {reason}", vcpu.id()));
            }
        }
    }
}
