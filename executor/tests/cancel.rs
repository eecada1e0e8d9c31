//! Futures dropped at every point of their life: the kernel never uses memory that was given back,
//! and nothing leaks.

mod common;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use common::{
    Tracked, assert_graves_untouched, completed, on_each_driver, pipe, poll_once, submitted,
    turn_until, turn_until_completed, write_now,
};
use executor::{
    DriverKind, Fd, Op, OpSet, PollFlags, RecvFlags, SendFlags, TaskGroup, select, timeout,
    yield_now,
};

on_each_driver! {
    fn dropped_before_the_first_poll(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let (buffer, dropped) = Tracked::new(64);
            drop(reader.read(buffer));
            assert!(dropped.get(), "nobody else has the buffer");
            assert_eq!(submitted(), 0);
            write_now(&writer, b"later");
            let (result, bytes) = reader.read(Vec::with_capacity(16)).await;
            assert_eq!((result.unwrap(), &bytes[..]), (5, &b"later"[..]));
            assert_graves_untouched();
        });
    }

    fn dropped_after_the_submission_in_the_same_turn(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let (buffer, dropped) = Tracked::new(64);
            {
                let mut read = pin!(reader.read(buffer));
                assert!(poll_once(read.as_mut()).is_pending());
            }
            assert!(!dropped.get(), "the kernel has not let go of it");
            turn_until(|| dropped.get()).await;
            write_now(&writer, &[7; 64]);
            drop(reader);
            for _ in 0..1000 {
                yield_now().await;
            }
            assert_graves_untouched();
        });
    }

    fn dropped_while_the_kernel_waits(executor) {
        executor.block_on(async {
            for _ in 0..100 {
                let (reader, writer) = pipe();
                let (buffer, dropped) = Tracked::new(64);
                let mut read = Box::pin(reader.read(buffer));
                assert!(poll_once(read.as_mut()).is_pending());
                executor::flush();
                // The data and the cancellation race.
                write_now(&writer, &[7; 64]);
                assert!(!dropped.get());
                drop(read);
                assert!(!dropped.get(), "the kernel may be writing to it");
                turn_until(|| dropped.get()).await;
                assert_graves_untouched();
            }
        });
    }

    fn dropped_after_the_completion_before_the_poll(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            write_now(&writer, &[7; 64]);
            let (buffer, dropped) = Tracked::new(64);
            let mut read = Box::pin(reader.read(buffer));
            assert!(poll_once(read.as_mut()).is_pending());
            turn_until_completed(completed() + 1).await;
            assert!(!dropped.get(), "the future has it");
            drop(read);
            assert!(dropped.get(), "nobody else has it");
            assert_graves_untouched();
        });
    }

    fn a_result_is_there_after_the_poll_was_late(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            write_now(&writer, b"data");
            let mut read = Box::pin(reader.read(vec![0; 8]));
            assert!(poll_once(read.as_mut()).is_pending());
            turn_until_completed(completed() + 1).await;
            let Poll::Ready((result, bytes)) = poll_once(read.as_mut()) else {
                panic!("it has completed");
            };
            assert_eq!(result.unwrap(), 4);
            assert_eq!(&bytes[..4], b"data");
        });
    }

    fn writes_are_cancelled_too(executor) {
        executor.block_on(async {
            let (left, mut right) = UnixStream::pair().unwrap();
            let left = Fd::new(left).unwrap();
            let mut writes = Vec::new();
            let mut flags = Vec::new();
            // More than the socket holds.
            for _ in 0..64 {
                let (mut buffer, dropped) = Tracked::new(1 << 16);
                buffer.fill(1);
                let mut write = Box::pin(left.send(buffer, SendFlags::empty()));
                assert!(poll_once(write.as_mut()).is_pending());
                writes.push(write);
                flags.push(dropped);
            }
            executor::flush();
            drop(writes);
            turn_until(|| flags.iter().all(|dropped| dropped.get())).await;
            drop(left);
            // What had been sent is from live memory.
            let received = executor::spawn(async move {
                let mut bytes = Vec::new();
                right.read_to_end(&mut bytes).unwrap();
                bytes
            })
            .await;
            assert!(received.iter().all(|&byte| byte == 1));
            assert_graves_untouched();
        });
    }

    fn an_accepted_connection_that_nobody_wants_is_closed(executor) {
        executor.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let listener = Fd::new(UnixListener::bind(&path).unwrap()).unwrap();
            // Dropped before the completion is seen, and after.
            for turns in [false, true] {
                let mut accept = Box::pin(listener.accept());
                assert!(poll_once(accept.as_mut()).is_pending());
                executor::flush();
                let before = completed();
                let mut client = UnixStream::connect(&path).unwrap();
                if turns {
                    turn_until_completed(before + 1).await;
                }
                drop(accept);
                turn_until_completed(before + 1).await;
                if !turns {
                    // The cancellation may have been faster than the connection.
                    let second = timeout(Duration::from_millis(1), listener.accept()).await;
                    drop(second);
                }
                client.set_nonblocking(false).unwrap();
                assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the other end is closed");
            }
        });
    }

    fn the_loser_of_a_select_keeps_its_buffer_until_it_is_over(executor) {
        executor.block_on(async {
            let (reader, _writer) = pipe();
            for _ in 0..100 {
                let (buffer, dropped) = Tracked::new(32);
                let _ = select(reader.read(buffer), yield_now()).await;
                turn_until(|| dropped.get()).await;
            }
            assert_graves_untouched();
        });
    }

    fn cancelling_a_task_cancels_its_operations(executor) {
        executor.block_on(async {
            let (reader, _writer) = pipe();
            let (buffer, dropped) = Tracked::new(32);
            let task = executor::spawn(async move { reader.read(buffer).await });
            yield_now().await;
            yield_now().await;
            assert_eq!(submitted(), 1);
            task.cancel();
            turn_until(|| dropped.get()).await;
            assert_graves_untouched();
        });
    }

    fn a_group_waits_for_what_it_abandoned(executor) {
        executor.block_on(async {
            let group = TaskGroup::new();
            let mut flags = Vec::new();
            let mut writers = Vec::new();
            for _ in 0..20 {
                let (reader, writer) = pipe();
                let (buffer, dropped) = Tracked::new(32);
                let (other, other_dropped) = Tracked::new(32);
                let (set_buffer, set_dropped) = Tracked::new(32);
                writers.push(writer);
                flags.extend([dropped, other_dropped, set_dropped]);
                group.spawn(async move {
                    // One operation abandoned while the task lives on, one by its end, one in a
                    // set.
                    let _ = select(reader.read(buffer), yield_now()).await;
                    let mut set = OpSet::with_capacity(1);
                    submit_read(&mut set, &reader, set_buffer);
                    let _ = reader.read(other).await;
                });
            }
            for _ in 0..5 {
                yield_now().await;
            }
            assert_eq!(group.len(), 20);
            group.cancel_all().await;
            assert!(group.is_empty());
            assert!(flags.iter().all(|dropped| dropped.get()), "everything is drained");
            assert_graves_untouched();
        });
    }

    fn a_group_can_be_cancelled_from_inside(executor) {
        executor.block_on(async {
            let group = Rc::new(TaskGroup::new());
            let inner = Rc::clone(&group);
            let (reader, _writer) = pipe();
            group.spawn(async move {
                inner.cancel_now();
                let _ = reader.read(vec![0; 8]).await;
                unreachable!("cancelled after this poll");
            });
            group.wait().await;
        });
    }

    fn dropping_the_executor_waits_for_operations(executor) {
        let (future, dropped, writer) = executor.block_on(async {
            let (reader, writer) = pipe();
            let (buffer, dropped) = Tracked::new(64);
            let mut read = Box::pin(reader.read(buffer));
            assert!(poll_once(read.as_mut()).is_pending());
            let (task_buffer, task_dropped) = Tracked::new(64);
            executor::spawn(async move { reader.read(task_buffer).await }).detach();
            yield_now().await;
            (read, [dropped, task_dropped], writer)
        });
        drop(executor);
        assert!(!dropped[0].get(), "the future that was kept has it");
        assert!(dropped[1].get(), "the task and its operation are over");
        // Nobody reads any more: the write stays in the pipe, or finds no reader.
        drop(future);
        assert!(dropped[0].get());
        drop(writer);
        assert_graves_untouched();
    }

    fn operations_after_the_executor_fail(executor) {
        let (reader, _writer) = executor.block_on(async { pipe() });
        drop(executor);
        let mut read = pin!(reader.read(vec![0; 8]));
        let mut result = poll_once(read.as_mut());
        if result.is_pending() {
            result = poll_once(read.as_mut());
        }
        let Poll::Ready((result, _)) = result else {
            panic!("nobody would ever complete it");
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    }

    fn a_dropped_poll_stream_ends_its_operation(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let mut stream = reader.poll_stream(PollFlags::IN);
            write_now(&writer, b"x");
            assert!(stream.next().await.unwrap().contains(PollFlags::IN));
            drop(stream);
            let mut unused = reader.poll_stream(PollFlags::IN);
            assert!(unused.try_next().is_none());
        });
        // Would hang if the operation could not be ended.
        drop(executor);
    }

    fn a_file_is_closed_when_its_last_operation_is_over(executor) {
        executor.block_on(async {
            let (left, right) = UnixStream::pair().unwrap();
            let left = Fd::unregistered(left).unwrap();
            let right = Fd::new(right).unwrap();
            let mut read = Box::pin(left.recv(vec![0; 8], RecvFlags::empty()));
            assert!(poll_once(read.as_mut()).is_pending());
            drop(left);
            executor::flush();
            drop(read);
            let (result, _) = right.recv(vec![0; 8], RecvFlags::empty()).await;
            assert_eq!(result.unwrap(), 0, "the other end was closed");
        });
    }

    fn buffers_survive_in_the_order_of_drops(executor) {
        let kind = executor.driver();
        executor.block_on(async {
            let (reader, _writer) = pipe();
            let raw = std::os::fd::AsFd::as_fd(&reader).as_raw_fd();
            assert!(raw >= 0);
            let (buffer, dropped) = Tracked::new(8);
            let task = executor::spawn(async move { reader.read(buffer).await });
            yield_now().await;
            yield_now().await;
            drop(task);
            assert!(!dropped.get(), "a detached task goes on");
            assert!(matches!(kind, DriverKind::Uring | DriverKind::Epoll));
        });
        drop(executor);
        assert_graves_untouched();
    }
}

fn submit_read(set: &mut OpSet<Tracked>, file: &Fd, mut buffer: Tracked) {
    // SAFETY: the payload owns the memory.
    let op = unsafe { Op::read(file, buffer.pointer(), 32, 0) };
    assert!(set.submit(op, buffer).is_ok());
}
