//! What is done when `block_on` returns.

mod common;

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use common::on_each_driver;
use executor::{Fd, spawn, yield_now};
use rustix::event::EventfdFlags;

/// An eventfd and a second descriptor of it for an executor.
fn counter() -> (OwnedFd, OwnedFd) {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let counter = rustix::event::eventfd(0, flags).unwrap();
    (counter.try_clone().unwrap(), counter)
}

fn is_signalled(counter: &OwnedFd) -> bool {
    rustix::io::read(counter, &mut [0; 8]).is_ok()
}

struct SignalWhenDropped(Rc<Fd>);

impl Drop for SignalWhenDropped {
    fn drop(&mut self) {
        self.0.signal();
    }
}

on_each_driver! {
    fn what_is_queued_last_is_under_way_when_block_on_returns(executor) {
        let (theirs, counter) = counter();
        let kept = executor.block_on(async {
            let fd = Fd::new(theirs).unwrap();
            fd.signal();
            fd
        });
        assert!(is_signalled(&counter));
        drop(kept);
    }

    fn what_the_end_of_its_future_queues_is_under_way_when_block_on_returns(executor) {
        let (theirs, counter) = counter();
        let kept = executor.block_on(async { Rc::new(Fd::new(theirs).unwrap()) });
        let late = SignalWhenDropped(Rc::clone(&kept));
        // Its state lives until it is dropped, after it was ready.
        executor.block_on(poll_fn(move |_| {
            let _ = &late;
            Poll::Ready(())
        }));
        assert!(is_signalled(&counter));
    }

    fn what_tasks_queue_when_they_end_with_the_executor_is_under_way(executor) {
        let (theirs, counter) = counter();
        let kept = executor.block_on(async {
            let kept = Rc::new(Fd::new(theirs).unwrap());
            let late = SignalWhenDropped(Rc::clone(&kept));
            spawn(async move {
                std::future::pending::<()>().await;
                drop(late);
            })
            .detach();
            yield_now().await;
            kept
        });
        assert!(!is_signalled(&counter));
        drop(executor);
        assert!(is_signalled(&counter));
        drop(kept);
    }
}
