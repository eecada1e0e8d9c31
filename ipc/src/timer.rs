//! The end of an asynchronous wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::Deadline;

/// Drives `future` until it is ready or the deadline has passed (`None`).
///
/// The timer is started only when the first poll was not ready, so an answer that is there at once
/// needs none.
pub(crate) async fn until<F: Future>(deadline: Deadline, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = pin!(executor::sleep(deadline.remaining().unwrap_or_default()));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}
