//! The end of an asynchronous wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::Deadline;

/// Drives `future` until it is ready or the deadline has passed (`None`).
pub(crate) async fn until<F: Future>(deadline: Deadline, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if deadline.has_passed() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
