//! A back end behind a virtio function, which answers as it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devices::virtio::backend::{BackendRequest, DeviceProfile};
use ipc::{Deadline, Receiver, Sender};

/// Requests that wait: the function makes one at a time.
const CAPACITY: usize = 4;
/// Longer than anything takes.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What the next request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Manner {
    /// It is done.
    Agree,
    /// It gets an answer that says no, or makes no sense.
    Object,
    /// It gets no answer.
    Refuse,
    /// The back end is gone.
    Die,
}

/// One that runs on a thread of its own, until nobody can ask it anything any more.
pub(super) struct BackEnd {
    manner: Arc<AtomicU8>,
    thread: JoinHandle<()>,
}

impl BackEnd {
    /// A new one, and the way to it.
    pub(super) fn start(profile: &DeviceProfile) -> (Self, Sender<BackendRequest>) {
        let (sender, requests) = ipc::channel(CAPACITY);
        let manner = Arc::new(AtomicU8::new(Manner::Agree as u8));
        let (profile, told) = (profile.clone(), Arc::clone(&manner));
        let thread = thread::spawn(move || answer(requests, &profile, &told));
        (Self { manner, thread }, sender)
    }

    /// What the next request will come to.
    pub(super) fn will(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::Release);
    }

    /// It is gone before anybody else asks.
    pub(super) fn die(&self, requests: &Sender<BackendRequest>) {
        self.will(Manner::Die);
        let ask = |reply| BackendRequest::ReadConfig { offset: 0, length: 0, reply };
        let _ = requests.call_blocking(ask, Deadline::after(PATIENCE));
        while !self.thread.is_finished() {
            thread::yield_now();
        }
    }

    pub(super) fn join(self) {
        self.thread.join().expect("the model of a back end ends");
    }
}

fn answer(mut requests: Receiver<BackendRequest>, profile: &DeviceProfile, told: &AtomicU8) {
    let length = profile.config.len();
    while let Ok(request) = requests.recv_blocking(Deadline::after(PATIENCE)) {
        let manner = told.swap(Manner::Agree as u8, Ordering::AcqRel);
        if manner == Manner::Die as u8 {
            return;
        }
        if manner == Manner::Refuse as u8 {
            continue;
        }
        let agrees = manner == Manner::Agree as u8;
        match request {
            BackendRequest::Activate { queues, reply, .. } => {
                let known = |index: u16| profile.queue_sizes.get(usize::from(index));
                assert!(queues.iter().all(|queue| known(queue.index) >= Some(&queue.size)));
                reply.send(if agrees { Ok(()) } else { Err("it does not want to".into()) });
            }
            BackendRequest::Reset { reply }
            | BackendRequest::Resume { reply }
            | BackendRequest::WriteConfig { reply, .. } => reply.send(()),
            BackendRequest::Pause { reply } | BackendRequest::Detach { reply } => {
                reply.send(Vec::new());
            }
            BackendRequest::ReadConfig { length: asked, reply, .. } => {
                let length = if agrees { length } else { length + 1 };
                reply.send(vec![7; length.min(asked as usize + usize::from(!agrees))]);
            }
        }
    }
}
