//! Sets of operations.

mod common;

use std::io::Write;
use std::time::Duration;

use common::{
    Tracked, assert_graves_untouched, on_each_driver, pipe, turn_until, write_now, yield_turns,
};
use executor::{Either, FallocateFlags, Fd, Full, Op, OpSet, PollFlags, iovec, select, sleep};

fn file_of(bytes: &[u8]) -> Fd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Fd::new(file).unwrap()
}

fn read_op<'a>(file: &'a Fd, buffer: &mut Tracked, offset: u64) -> Op<'a> {
    // SAFETY: every caller submits the buffer as the payload.
    unsafe { Op::read(file, buffer.pointer(), buffer.bytes().len() as u32, offset) }
}

on_each_driver! {
    fn payloads_come_back_with_their_results(executor) {
        executor.block_on(async {
            let bytes: Vec<u8> = (0..=255).collect();
            let file = file_of(&bytes);
            let mut set = OpSet::with_capacity(32);
            let mut seen = [false; 256];
            for round in 0..8u64 {
                for index in 0..32u64 {
                    let offset = round * 32 + index;
                    let (mut buffer, _) = Tracked::new(1);
                    // SAFETY: the payload owns the memory.
                    let op = unsafe { Op::read(&file, buffer.pointer(), 1, offset) };
                    assert!(set.submit(op, (offset, buffer)).is_ok());
                }
                assert_eq!(set.in_flight(), 32);
                while set.in_flight() > 0 {
                    let ((offset, buffer), result) = set.next().await;
                    assert_eq!(result.unwrap(), 1);
                    assert_eq!(buffer.bytes(), &[offset as u8]);
                    assert!(!std::mem::replace(&mut seen[offset as usize], true));
                }
            }
            assert!(seen.iter().all(|&seen| seen));
            assert!(set.try_next().is_none());
        });
    }

    fn a_full_set_returns_the_payload(executor) {
        executor.block_on(async {
            let (reader, _writer) = pipe();
            let mut set = OpSet::with_capacity(1);
            assert!(set.submit(Op::poll(&reader, PollFlags::IN), 1).is_ok());
            assert_eq!(set.submit(Op::poll(&reader, PollFlags::IN), 2), Err(Full(2)));
            assert_eq!((set.in_flight(), set.capacity()), (1, 1));
        });
    }

    fn segments_are_copied_and_read_and_written_in_order(executor) {
        executor.block_on(async {
            let file = file_of(&[]);
            let mut set: OpSet<Vec<Tracked>> = OpSet::with_capacity(4);
            let mut buffers = Vec::new();
            for byte in 1..=3 {
                let (mut buffer, _) = Tracked::new(10);
                buffer.fill(byte);
                buffers.push(buffer);
            }
            {
                let segments = segments(&mut buffers);
                // SAFETY: the payload owns the memory.
                let op = unsafe { Op::writev(&file, &segments, 5) };
                assert!(set.submit(op, buffers).is_ok());
                // The list itself may go at once.
            }
            let (mut buffers, result) = set.next().await;
            assert_eq!(result.unwrap(), 30);
            for buffer in &mut buffers {
                buffer.fill(0);
            }
            let list = segments(&mut buffers);
            // SAFETY: the payload owns the memory.
            let op = unsafe { Op::readv(&file, &list, 5) };
            assert!(set.submit(op, buffers).is_ok());
            let (buffers, result) = set.next().await;
            assert_eq!(result.unwrap(), 30);
            for (buffer, byte) in buffers.iter().zip(1..) {
                assert_eq!(buffer.bytes(), [byte; 10]);
            }
            assert!(set.submit(Op::fdatasync(&file), Vec::new()).is_ok());
            assert!(set.submit(Op::fsync(&file), Vec::new()).is_ok());
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            assert!(set.submit(Op::fallocate(&file, mode, 0, 10), Vec::new()).is_ok());
            for _ in 0..3 {
                assert_eq!(set.next().await.1.unwrap(), 0);
            }
        });
    }

    fn too_many_segments_are_an_error_and_no_panic(executor) {
        executor.block_on(async {
            let file = file_of(&[1; 64]);
            let mut set = OpSet::with_capacity(1);
            let (mut buffer, _) = Tracked::new(8);
            let segment = iovec { iov_base: buffer.pointer().cast(), iov_len: 0 };
            for count in [1025, 5000] {
                let list = vec![segment; count];
                // SAFETY: the segments are empty.
                let op = unsafe { Op::readv(&file, &list, 0) };
                assert!(set.submit(op, ()).is_ok());
                let error = set.next().await.1.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            }
            // SAFETY: there are no segments.
            let op = unsafe { Op::readv(&file, &[], 0) };
            assert!(set.submit(op, ()).is_ok());
            assert_eq!(set.next().await.1.unwrap(), 0);
        });
    }

    fn waiting_on_an_empty_set_does_not_end(executor) {
        executor.block_on(async {
            let mut set: OpSet<()> = OpSet::with_capacity(1);
            let outcome = select(set.next(), sleep(Duration::from_millis(1))).await;
            assert_eq!(outcome_name(&outcome), "timer");
        });
    }

    fn dropping_a_set_in_flight_keeps_the_payloads_until_completion(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let mut set = OpSet::with_capacity(8);
            let mut flags = Vec::new();
            for _ in 0..8 {
                let (mut buffer, dropped) = Tracked::new(16);
                assert!(set.submit(read_op(&reader, &mut buffer, 0), buffer).is_ok());
                flags.push(dropped);
            }
            executor::flush();
            write_now(&writer, &[3; 40]);
            drop(set);
            assert!(
                flags.iter().any(|dropped| !dropped.get()),
                "the kernel still works on some of them"
            );
            turn_until(|| flags.iter().all(|dropped| dropped.get())).await;
            assert_graves_untouched();
        });
    }

    fn dropping_a_set_drops_results_that_nobody_took(executor) {
        executor.block_on(async {
            let file = file_of(&[9; 64]);
            let mut set = OpSet::with_capacity(2);
            let (mut buffer, dropped) = Tracked::new(16);
            assert!(set.submit(read_op(&file, &mut buffer, 0), buffer).is_ok());
            common::turn_until_completed(1).await;
            assert!(!dropped.get());
            drop(set);
            assert!(dropped.get());
        });
    }

    fn a_cancelled_set_drains_and_works_again(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let mut set = OpSet::with_capacity(4);
            for _ in 0..3 {
                let mut flags = Vec::new();
                for _ in 0..4 {
                    let (mut buffer, dropped) = Tracked::new(16);
                    assert!(set.submit(read_op(&reader, &mut buffer, 0), buffer).is_ok());
                    flags.push(dropped);
                }
                yield_turns(2).await;
                set.cancel_and_drain().await;
                assert_eq!(set.in_flight(), 0);
                assert!(flags.iter().all(|dropped| dropped.get()));
            }
            write_now(&writer, &[5; 16]);
            let (mut buffer, _) = Tracked::new(16);
            assert!(set.submit(read_op(&reader, &mut buffer, 0), buffer).is_ok());
            let (buffer, result) = set.next().await;
            assert_eq!(result.unwrap(), 16);
            assert_eq!(buffer.bytes(), [5; 16]);
            assert_graves_untouched();
        });
    }

    fn a_set_outlives_its_executor(executor) {
        let (mut set, dropped, writer) = executor.block_on(async {
            let (reader, writer) = pipe();
            let mut set = OpSet::with_capacity(2);
            let (mut buffer, dropped) = Tracked::new(16);
            assert!(set.submit(read_op(&reader, &mut buffer, 0), buffer).is_ok());
            (set, dropped, writer)
        });
        drop(executor);
        let (_buffer, result) = set.try_next().expect("it was cancelled");
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert!(!dropped.get());
        drop((set, writer));
    }

    fn a_read_costs_a_small_part_of_a_system_call(executor) {
        let uring = executor.driver() == executor::DriverKind::Uring;
        let before = executor.stats();
        executor.block_on(async {
            let file = file_of(&[1; 4096]);
            let mut set = OpSet::with_capacity(32);
            for _ in 0..100 {
                for _ in 0..32 {
                    let (mut buffer, _) = Tracked::new(64);
                    // SAFETY: the payload owns the memory.
                    let op = unsafe { Op::read(&file, buffer.pointer(), 64, 0) };
                    assert!(set.submit(op, buffer).is_ok());
                }
                while set.in_flight() > 0 {
                    assert_eq!(set.next().await.1.unwrap(), 64);
                }
            }
        });
        let after = executor.stats();
        assert_eq!(after.submitted - before.submitted, 3200);
        assert_eq!(after.completed - before.completed, 3200);
        if uring {
            // One per batch, and a few for what the machine does meanwhile.
            assert!(after.system_calls - before.system_calls <= 3200 / 16);
        }
    }
}

fn segments(buffers: &mut [Tracked]) -> Vec<iovec> {
    buffers
        .iter_mut()
        .map(|buffer| iovec { iov_len: buffer.bytes().len(), iov_base: buffer.pointer().cast() })
        .collect()
}

fn outcome_name<A, B>(outcome: &Either<A, B>) -> &'static str {
    match outcome {
        Either::Left(_) => "set",
        Either::Right(_) => "timer",
    }
}
