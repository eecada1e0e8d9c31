//! Operations on files, pipes and sockets.

mod common;

use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::rc::Rc;

use common::{eventfd, on_each_driver, pipe, poll_once, write_now, yield_turns};
use executor::{
    Config, DriverChoice, Executor, FallocateFlags, Fd, IoBuf, KernelFeatures, PollFlags,
    RecvFlags, SendFlags, SocketAddress, Vectored,
};
use rustix::fs::OFlags;

fn file_of(bytes: &[u8]) -> (Fd, std::fs::File) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    (Fd::new(file.try_clone().unwrap()).unwrap(), file)
}

fn socket(family: rustix::net::AddressFamily) -> Fd {
    use rustix::net::{SocketFlags, SocketType, socket_with};
    Fd::new(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()).unwrap()
}

on_each_driver! {
    fn reads_and_writes_at_offsets(executor) {
        executor.block_on(async {
            let (file, _) = file_of(b"0123456789");
            let (result, bytes) = file.read_at(Vec::with_capacity(4), 3).await;
            assert_eq!((result.unwrap(), &bytes[..]), (4, &b"3456"[..]));
            let (result, _) = file.write_at(&b"abc"[..], 8).await;
            assert_eq!(result.unwrap(), 3);
            let (result, bytes) = file.read_at(vec![b'-'; 16], 0).await;
            assert_eq!(result.unwrap(), 11);
            assert_eq!(&bytes, b"01234567abc-----", "what was there before stays behind it");
            let (result, bytes) = file.read_at(vec![1; 4], 100).await;
            assert_eq!((result.unwrap(), bytes), (0, vec![1; 4]));
        });
    }

    fn reads_at_the_current_position(executor) {
        executor.block_on(async {
            let (file, mut other) = file_of(b"abcdef");
            let (_, bytes) = file.read(vec![0; 2]).await;
            assert_eq!(bytes, b"ab");
            let (_, bytes) = file.read(vec![0; 2]).await;
            assert_eq!(bytes, b"cd");
            assert_eq!(other.stream_position().unwrap(), 4);
            file.write("XY").await.0.unwrap();
            other.rewind().unwrap();
            let mut text = String::new();
            other.read_to_string(&mut text).unwrap();
            assert_eq!(text, "abcdXY");
        });
    }

    fn slices_take_a_part_of_a_buffer(executor) {
        executor.block_on(async {
            let (file, _) = file_of(b"0123456789");
            let (result, slice) = file.read_at(vec![b'.'; 10].slice(2..5), 0).await;
            assert_eq!(result.unwrap(), 3);
            assert_eq!(slice.into_inner(), b"..012.....");
            let (result, _) = file.write_at("hello".slice(1..=2), 0).await;
            assert_eq!(result.unwrap(), 2);
            // Past the initialised part, past the end, and the wrong way round.
            let (result, slice) = file.read_at(Vec::with_capacity(8).slice(4..), 0).await;
            assert_eq!((result.unwrap(), slice.into_inner().len()), (0, 0));
            #[allow(clippy::reversed_empty_ranges)]
            let (result, _) = file.write_at("hello".slice(9..3), 0).await;
            assert_eq!(result.unwrap(), 0);
            let (_, bytes) = file.read_at(vec![0; 3], 0).await;
            assert_eq!(bytes, b"el2");
        });
    }

    fn vectored_reads_and_writes(executor) {
        executor.block_on(async {
            let (file, _) = file_of(b"");
            let parts = vec![b"one".to_vec(), Vec::new(), b"three".to_vec()];
            let (result, parts) = file.writev_at(Vectored::for_write(parts), 1).await;
            assert_eq!((result.unwrap(), parts.into_inner().len()), (8, 3));
            let parts = Vectored::for_read(vec![vec![9; 2], vec![9; 20]]);
            let (result, parts) = file.readv_at(parts, 0).await;
            assert_eq!(result.unwrap(), 9);
            let parts = parts.into_inner();
            assert_eq!((&parts[0][..], &parts[1][..7]), (&b"\0o"[..], &b"nethree"[..]));
        });
    }

    fn syncs_and_allocates(executor) {
        executor.block_on(async {
            let (file, other) = file_of(&[1; 8192]);
            file.fsync().await.unwrap();
            file.fdatasync().await.unwrap();
            file.fallocate(FallocateFlags::empty(), 0, 16384).await.unwrap();
            assert_eq!(other.metadata().unwrap().len(), 16384);
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            file.fallocate(punch, 0, 4096).await.unwrap();
            let (_, bytes) = file.read_at(vec![9; 4097], 0).await;
            assert_eq!((bytes[4095], bytes[4096]), (0, 1));
            let error = file.fallocate(punch, 0, 0).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        });
    }

    fn errors_are_the_kernels(executor) {
        executor.block_on(async {
            let read_only = Fd::new(std::fs::File::open("/proc/self/status").unwrap()).unwrap();
            let (result, back) = read_only.write_at(vec![1, 2], 0).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            assert_eq!(back, [1, 2], "the buffer comes back all the same");
            let directory = Fd::new(std::fs::File::open("/").unwrap()).unwrap();
            let (result, _) = directory.read_at(vec![0; 8], 0).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EISDIR));
        });
    }

    fn pipes_wait_for_data_and_for_room(executor) {
        executor.block_on(async {
            for nonblocking in [false, true] {
                let (reader, writer) = std::io::pipe().unwrap();
                if nonblocking {
                    set_nonblocking(&reader);
                    set_nonblocking(&writer);
                }
                let (reader, writer) = (Fd::new(reader).unwrap(), Fd::new(writer).unwrap());
                let total = 1 << 20;
                let sender = executor::spawn(async move {
                    let mut left = total;
                    while left > 0 {
                        let (result, _) = writer.write(vec![7; left.min(100_000)]).await;
                        left -= result.unwrap();
                    }
                });
                let mut received = 0;
                loop {
                    let (result, bytes) = reader.read(vec![0; 30_000]).await;
                    let count = result.unwrap();
                    if count == 0 {
                        break;
                    }
                    assert!(bytes[..count].iter().all(|&byte| byte == 7));
                    received += count;
                }
                sender.await;
                assert_eq!(received, total);
            }
        });
    }

    fn sockets_wait_although_non_blocking(executor) {
        executor.block_on(async {
            for nonblocking in [false, true] {
                let (left, right) = UnixStream::pair().unwrap();
                left.set_nonblocking(nonblocking).unwrap();
                let (left, right) = (Fd::new(left).unwrap(), Fd::new(right).unwrap());
                let reader = executor::spawn({
                    let left = left.clone();
                    async move {
                        let first = left.recv(vec![0; 8], RecvFlags::empty()).await;
                        let second = left.read(vec![0; 8]).await;
                        (first.0.unwrap(), second.0.unwrap())
                    }
                });
                yield_turns(2).await;
                assert!(!reader.is_finished());
                right.send("abc", SendFlags::empty()).await.0.unwrap();
                yield_turns(2).await;
                right.write("de").await.0.unwrap();
                assert_eq!(reader.await, (3, 2));
                let (result, _) = left.recv(vec![0; 1], RecvFlags::DONTWAIT).await;
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EAGAIN));
                drop(left);
                let (result, _) = right.send("x", SendFlags::empty()).await;
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
            }
        });
    }

    fn tcp_connects_and_accepts(executor) {
        executor.block_on(async {
            for address in [(Ipv4Addr::LOCALHOST).into(), std::net::IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                let Ok(listener) = TcpListener::bind((address, 0)) else {
                    assert!(address.is_ipv6(), "IPv4 is everywhere");
                    eprintln!("skipped: no IPv6 on this host");
                    continue;
                };
                let target = listener.local_addr().unwrap();
                let listener = Fd::new(listener).unwrap();
                let server = executor::spawn(async move {
                    let connection = Fd::unregistered(listener.accept().await.unwrap()).unwrap();
                    let (result, bytes) = connection.read(vec![0; 16]).await;
                    let received = bytes.slice(..result.unwrap());
                    connection.write(received).await.0.unwrap();
                });
                let family = if address.is_ipv6() {
                    rustix::net::AddressFamily::INET6
                } else {
                    rustix::net::AddressFamily::INET
                };
                let client = socket(family);
                client.connect(target).await.unwrap();
                client.write("ping").await.0.unwrap();
                let (result, bytes) = client.read(vec![0; 16]).await;
                assert_eq!(&bytes[..result.unwrap()], b"ping");
                server.await;
                // Nobody listens there any more.
                let error = socket(family).connect(target).await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            }
        });
    }

    fn unix_sockets_connect_by_path(executor) {
        executor.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let listener = Fd::new(UnixListener::bind(&path).unwrap()).unwrap();
            let client = socket(rustix::net::AddressFamily::UNIX);
            let address = SocketAddress::unix(&path).unwrap();
            let accept = executor::spawn(listener.accept());
            client.connect(address).await.unwrap();
            let server: OwnedFd = accept.await.unwrap();
            write_now(&server, b"hi");
            let (result, bytes) = client.read(vec![0; 2]).await;
            assert_eq!((result.unwrap(), &bytes[..]), (2, &b"hi"[..]));
            let nobody = SocketAddress::unix(directory.path().join("nobody")).unwrap();
            let socket = socket(rustix::net::AddressFamily::UNIX);
            let error = socket.connect(nobody).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            assert!(SocketAddress::unix("x".repeat(108)).is_err());
            assert!(SocketAddress::unix("a\0b").is_err());
        });
    }

    fn connecting_waits_for_room_in_the_backlog(executor) {
        executor.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            // SAFETY: a system call on a descriptor that is open.
            assert_eq!(unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) }, 0);
            let listener = Fd::new(listener).unwrap();
            let address = SocketAddress::unix(&path).unwrap();
            let mut connects = Vec::new();
            for _ in 0..5 {
                let client = socket(rustix::net::AddressFamily::UNIX);
                let address = address.clone();
                connects.push(executor::spawn(async move { client.connect(address).await }));
            }
            let mut accepted = Vec::new();
            for _ in 0..5 {
                accepted.push(listener.accept().await.unwrap());
            }
            for connect in connects {
                connect.await.unwrap();
            }
        });
    }

    fn poll_tells_what_holds(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let mut poll = pin!(reader.poll(PollFlags::IN));
            assert!(poll_once(poll.as_mut()).is_pending());
            yield_turns(2).await;
            write_now(&writer, b"x");
            assert_eq!(poll.await.unwrap(), PollFlags::IN);
            assert_eq!(reader.poll(PollFlags::IN).await.unwrap(), PollFlags::IN);
            drop(writer);
            assert!(reader.poll(PollFlags::OUT).await.unwrap().contains(PollFlags::HUP));
        });
    }

    fn a_poll_stream_reports_again_and_again(executor) {
        executor.block_on(async {
            let (reader, writer) = pipe();
            let mut stream = reader.poll_stream(PollFlags::IN);
            for _ in 0..50 {
                let writer = writer.try_clone().unwrap();
                executor::spawn(async move { write_now(writer, b"x") }).detach();
                assert!(stream.next().await.unwrap().contains(PollFlags::IN));
                assert_eq!(rustix::io::read(&reader, &mut [0u8; 8]).unwrap(), 1);
            }
            drop(writer);
            assert!(stream.next().await.unwrap().contains(PollFlags::HUP));
        });
    }

    fn every_write_to_an_eventfd_notifies(executor) {
        executor.block_on(async {
            let descriptor = eventfd();
            let other = descriptor.try_clone().unwrap();
            let mut notifications = Fd::new(descriptor).unwrap().notifications();
            for _ in 0..100 {
                let other = other.try_clone().unwrap();
                executor::spawn(async move { write_now(other, &1u64.to_ne_bytes()) }).detach();
                notifications.next().await.unwrap();
            }
        });
    }

    fn notifications_do_not_come_without_a_write(executor) {
        executor.block_on(async {
            let descriptor = eventfd();
            write_now(&descriptor, &5u64.to_ne_bytes());
            let other = descriptor.try_clone().unwrap();
            let mut notifications = Fd::new(descriptor).unwrap().notifications();
            // The one at the beginning, for the counter that was not zero.
            notifications.next().await.unwrap();
            {
                let mut next = pin!(notifications.next());
                for _ in 0..10 {
                    assert!(poll_once(next.as_mut()).is_pending());
                    yield_turns(1).await;
                }
            }
            write_now(&other, &1u64.to_ne_bytes());
            notifications.next().await.unwrap();
        });
    }

    fn signals_arrive_without_being_awaited(executor) {
        let descriptor = eventfd();
        let other = descriptor.try_clone().unwrap();
        let read = || {
            let mut counter = [0; 8];
            rustix::io::read(&other, &mut counter).map(|_| u64::from_ne_bytes(counter))
        };
        executor.block_on(async {
            let eventfd = Fd::new(descriptor).unwrap().keep_flags();
            for _ in 0..3 {
                eventfd.signal();
            }
            executor::flush();
            // This blocks until they are there; a thread of the kernel may bring them one by one.
            let mut signals = 0;
            while signals < 3 {
                signals += read().unwrap();
            }
            assert_eq!(signals, 3);
            eventfd.signal();
            yield_turns(2).await;
            assert_eq!(read().unwrap(), 1);
            // Closing takes along what is queued.
            eventfd.signal();
            drop(eventfd);
            set_nonblocking(&other);
            assert_eq!(read().unwrap(), 1);
        });
    }

    fn an_eventfd_of_others_keeps_its_flags_and_nobody_waits_for_it(executor) {
        let descriptor = eventfd();
        let other = descriptor.try_clone().unwrap();
        executor.block_on(async {
            let eventfd = Fd::new(descriptor).unwrap().keep_flags();
            // One less than it can hold: the next one rings already.
            rustix::io::write(&other, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            eventfd.signal();
            let mut counter = [0; 8];
            rustix::io::read(&other, &mut counter).unwrap();
            assert_eq!(u64::from_ne_bytes(counter), u64::MAX - 1);
            eventfd.signal();
            eventfd.signal();
            rustix::io::read(&other, &mut counter).unwrap();
            assert_eq!(u64::from_ne_bytes(counter), 2);
            let flags = rustix::fs::fcntl_getfl(&other).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
        });
    }

    fn more_operations_than_the_queue_has_entries(executor) {
        executor.block_on(async {
            let (file, _) = file_of(&[3; 100]);
            let file = Rc::new(file);
            let reads: Vec<_> = (0..5000)
                .map(|_| {
                    let file = Rc::clone(&file);
                    executor::spawn(async move { file.read_at(vec![0; 100], 0).await })
                })
                .collect();
            for read in reads {
                let (result, bytes) = read.await;
                assert_eq!((result.unwrap(), bytes), (100, vec![3; 100]));
            }
        });
    }

    fn more_files_than_fixed_slots(executor) {
        executor.block_on(async {
            let files: Vec<_> = (0..200).map(|byte| file_of(&[byte; 4]).0).collect();
            for (file, byte) in files.iter().zip(0u8..) {
                assert_eq!(file.read_at(vec![0; 4], 0).await.1, [byte; 4]);
            }
            drop(files);
            let (file, _) = file_of(&[1; 4]);
            assert_eq!(file.read_at(vec![0; 4], 0).await.1, [1; 4]);
        });
    }

    fn devices_that_epoll_does_not_take(executor) {
        executor.block_on(async {
            let zero = Fd::new(std::fs::File::open("/dev/zero").unwrap()).unwrap();
            let (result, bytes) = zero.read(vec![1; 4]).await;
            assert_eq!((result.unwrap(), bytes), (4, vec![0; 4]));
            let mut options = std::fs::OpenOptions::new();
            let null = Fd::new(options.write(true).open("/dev/null").unwrap()).unwrap();
            assert_eq!(null.write("gone").await.0.unwrap(), 4);
        });
    }
}

fn set_nonblocking(fd: impl AsFd) {
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).unwrap();
}

#[test]
fn long_lived_files_are_registered_and_slots_are_used_again() {
    let config = Config { driver: DriverChoice::Uring, fixed_files: 2, ..Config::default() };
    Executor::new(&config).unwrap().block_on(async {
        let registered = |_| {
            let fds = [eventfd(), eventfd(), eventfd()].map(|fd| Fd::new(fd).unwrap());
            fds.map(|fd| fd.is_registered())
        };
        for round in 0..10 {
            assert_eq!(registered(round), [true, true, false]);
        }
        assert!(!Fd::unregistered(eventfd()).unwrap().is_registered());
    });
}

#[test]
fn a_ring_without_fixed_files_works() {
    let without = KernelFeatures::FIXED_FILES;
    common::uring(without).block_on(async {
        let (file, _) = file_of(b"abc");
        assert!(!file.is_registered());
        assert_eq!(file.read_at(vec![0; 3], 0).await.1, b"abc");
    });
}

#[test]
fn an_fd_needs_an_executor() {
    assert!(Fd::new(eventfd()).is_err());
}
