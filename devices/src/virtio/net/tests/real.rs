//! Taps of the kernel, in a network namespace of their own. Without the right to make one these
//! tests say so and do nothing.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use executor::{Config, DriverChoice, Executor};
use rustix::thread::UnshareFlags;

use super::super::protocol::*;
use super::super::{NetBackend, NetError, NetOptions, Offloads, Tap};
use super::super::{TapOptions, TapSource, tun};
use super::bed::*;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Run in a namespace on a thread of its own.
fn isolated(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: the thread is new and shares nothing that depends on its namespace.
        let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        if let Err(error) = entered {
            eprintln!("SKIPPED: no network namespace can be made here: {error}");
            return;
        }
        if let Err(error) = File::open("/dev/net/tun") {
            eprintln!("SKIPPED: no tap can be made here: {error}");
            return;
        }
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

fn options_for(source: TapSource) -> TapOptions {
    TapOptions { address: Some((HOST, 24)), ..TapOptions::new(source) }
}

fn named(name: &str) -> TapOptions {
    TapOptions::new(TapSource::Name(name.into()))
}

/// A queue of a tap as another program would attach it.
fn attached(name: &str, flags: i16) -> OwnedFd {
    let fd = tun::open().unwrap();
    tun::attach(&fd, tun::InterfaceName::new(name).unwrap(), flags).unwrap();
    fd
}

/// Internet checksum over 16-bit words.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A UDP packet from the guest to the host, without a UDP checksum.
fn udp(host_mac: [u8; 6], port: u16, data: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((28 + data.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(GUEST.octets());
    ip.extend(HOST.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(7u16.to_be_bytes());
    ip.extend(port.to_be_bytes());
    ip.extend((8 + data.len() as u16).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(data);
    let mut frame = [host_mac, OWN.0].concat();
    frame.extend([8, 0]);
    frame.extend(ip);
    frame
}

/// An ARP request or reply of the guest.
fn arp(operation: u8, to: [u8; 6]) -> Vec<u8> {
    let mut frame = [to, OWN.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(OWN.0);
    frame.extend(GUEST.octets());
    frame.extend(to);
    frame.extend(HOST.octets());
    frame
}

impl Bed {
    /// The next frame of this type; others that the host sends by itself are passed over.
    /// Buffers go back to the device.
    async fn next_of(&mut self, kind: u16, given: &mut Vec<(u16, u64)>) -> Vec<u8> {
        loop {
            let mut frame = Vec::new();
            let mut left = 1;
            while left > 0 {
                let used = self.used(RECEIVE).await;
                let place = given.iter().position(|(head, _)| *head == used.head).unwrap();
                let (_, address) = given.swap_remove(place);
                frame.extend(self.read(address, used.written as usize));
                if frame.len() == used.written as usize {
                    left = u16::from_le_bytes([frame[10], frame[11]]);
                }
                left -= 1;
                let head = self.driver(RECEIVE).add(&[writable(address, 2048)]).unwrap();
                given.push((head, address));
            }
            self.publish(RECEIVE);
            if frame[24..26] == kind.to_be_bytes() {
                return frame;
            }
        }
    }

    /// Meet the host: its address.
    async fn meet(&mut self, given: &mut Vec<(u16, u64)>) -> [u8; 6] {
        let request = with(Header::default(), &arp(1, [0xff; 6]));
        self.add_frame(TRANSMIT, 0, &request);
        self.publish(TRANSMIT);
        let reply = self.next_of(0x0806, given).await;
        self.used(TRANSMIT).await;
        reply[18..24].try_into().unwrap()
    }
}

/// Run under both drivers with a tap that is made.
fn with_tap<F: Future<Output = ()>>(test: impl Fn(Tap) -> F + Send + 'static) {
    isolated(move || {
        on_both(|| test(Tap::open(options_for(TapSource::New)).unwrap()));
    });
}

#[test]
fn frames_go_through_the_hosts_network_both_ways() {
    with_tap(|tap| async move {
        assert!(tap.name().starts_with("vmtap"), "{}", tap.name());
        let mut bed =
            Bed::start_on(NetBackend::new(tap, NetOptions::new(OWN)).unwrap(), Vec::new());
        bed.activate().await.unwrap();
        let mut given = bed.give(RECEIVE, 512, 2048);
        let host = bed.meet(&mut given).await;
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.connect((GUEST, 7)).unwrap();
        let port = socket.local_addr().unwrap().port();
        // From the guest.
        for size in [0, 1, 1000, 1472] {
            let data = vec![size as u8; size];
            bed.add_frame(TRANSMIT, 0, &with(Header::default(), &udp(host, port, &data)));
            bed.publish(TRANSMIT);
            bed.used(TRANSMIT).await;
            let mut received = [0; 2000];
            let count = socket.recv(&mut received).unwrap();
            assert_eq!(received[..count], data);
        }
        // To the guest: the host knows the address from the request before.
        for size in [0u16, 1, 1000, 1472] {
            socket.send(&vec![7; size.into()]).unwrap();
            let frame = bed.next_of(0x0800, &mut given).await;
            assert_eq!(frame[12..18], OWN.0);
            assert_eq!(frame.len(), 12 + 42 + usize::from(size));
        }
        bed.finish().await;
    });
}

#[test]
fn hostile_headers_are_refused_by_the_kernel_and_hurt_nobody() {
    with_tap(|tap| async move {
        let mut bed =
            Bed::start_on(NetBackend::new(tap, NetOptions::new(OWN)).unwrap(), Vec::new());
        bed.activate().await.unwrap();
        let mut given = bed.give(RECEIVE, 512, 2048);
        let host = bed.meet(&mut given).await;
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        // Some frames may get through; what this one looks at must have room.
        let port = socket.local_addr().unwrap().port();
        let frame = udp(host, port ^ 1, &[1; 100]);
        let mut refused = 0;
        for seed in 0..1000u32 {
            let number = |at: u32| (seed.wrapping_mul(0x9e37_79b9).rotate_left(at)) as u16;
            let header = Header {
                flags: number(3) as u8,
                gso_type: number(7) as u8,
                hdr_len: number(11),
                gso_size: number(13),
                csum_start: number(17),
                csum_offset: number(19),
                num_buffers: number(23),
            };
            let length = usize::from(number(29)) % (frame.len() + 1);
            bed.add_frame(TRANSMIT, 0, &with(header, &frame[..length]));
            bed.publish(TRANSMIT);
            bed.used(TRANSMIT).await;
            refused += 1;
        }
        let statistics = bed.statistics().await;
        assert!(statistics.transmitted.errors > 100, "{statistics:?}");
        assert!(statistics.transmitted.errors + statistics.transmitted.dropped <= refused);
        bed.add_frame(TRANSMIT, 0, &with(Header::default(), &udp(host, port, b"fine")));
        bed.publish(TRANSMIT);
        bed.used(TRANSMIT).await;
        let mut received = [0; 2000];
        while socket.recv(&mut received).unwrap() != 4 {}
        assert_eq!(&received[..4], b"fine");
        bed.finish().await;
    });
}

#[test]
fn several_queues_follow_the_driver() {
    isolated(|| {
        on_both(|| async {
            let options = TapOptions { queue_pairs: 4, ..options_for(TapSource::New) };
            let tap = Tap::open(options).unwrap();
            assert_eq!(tap.queue_pairs(), 4);
            let mut bed =
                Bed::start_on(NetBackend::new(tap, NetOptions::new(OWN)).unwrap(), Vec::new());
            bed.activate().await.unwrap();
            let mut given = bed.give(RECEIVE, 512, 2048);
            for pair in 1..4 {
                bed.give(2 * pair, 512, 1024);
            }
            for pairs in [4u8, 1, 2, 4, 3, 1] {
                assert_eq!(bed.command(8, &[4, 0, pairs, 0]).await, 0);
                if pairs == 1 {
                    // Everything comes to the first queue again.
                    bed.meet(&mut given).await;
                }
            }
            bed.reset().await;
            bed.new_rings();
            bed.activate().await.unwrap();
            let mut given = bed.give(RECEIVE, 512, 2048);
            bed.meet(&mut given).await;
            bed.finish().await;
        });
    });
}

#[test]
fn the_tap_does_what_the_driver_takes_on() {
    with_tap(|tap| async move {
        let offloads = tap.offloads();
        assert!(offloads.contains(Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6));
        let mut bed =
            Bed::start_on(NetBackend::new(tap, NetOptions::new(OWN)).unwrap(), Vec::new());
        bed.activate().await.unwrap();
        let mut given = bed.give(RECEIVE, 512, 2048);
        bed.meet(&mut given).await;
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.connect((GUEST, 7)).unwrap();
        socket.send(&[1; 100]).unwrap();
        let frame = bed.next_of(0x0800, &mut given).await;
        assert_eq!(frame[0] & FLAG_NEEDS_CSUM, FLAG_NEEDS_CSUM, "left to the driver");
        // The driver no longer takes checksums.
        assert_eq!(bed.command(CONTROL, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await, 0);
        socket.send(&[1; 100]).unwrap();
        let frame = bed.next_of(0x0800, &mut given).await;
        assert_eq!(frame[0], 0);
        bed.finish().await;
    });
}

#[test]
fn taps_by_name_and_by_descriptor() {
    isolated(|| {
        let single = tun::IFF_TAP | tun::IFF_NO_PI | tun::IFF_VNET_HDR;
        let tap = Tap::open(TapOptions { mtu: Some(9000), ..named("mine") }).unwrap();
        assert_eq!((tap.name(), tap.mtu()), ("mine", 9000));
        let busy = Tap::open(named("mine")).unwrap_err();
        assert!(busy.to_string().contains("another process uses it"), "{busy}");
        drop(tap);
        // Interfaces that are made go with their descriptors.
        assert_eq!(tun::index(tun::InterfaceName::new("mine").unwrap()).unwrap(), None);

        let several = attached("several", single | tun::IFF_MULTI_QUEUE);
        let one = Tap::open(named("several")).unwrap();
        assert_eq!(one.queue_pairs(), 1);
        let three = Tap::open(TapOptions { queue_pairs: 3, ..named("several") }).unwrap();
        assert_eq!(three.queue_pairs(), 3);
        drop((one, three));
        let second = attached("several", single | tun::IFF_MULTI_QUEUE);
        let pair = TapSource::Descriptors(vec![several, second]);
        assert_eq!(Tap::open(TapOptions::new(pair)).unwrap().queue_pairs(), 2);

        let _keep = attached("lonely", single);
        let many = Tap::open(TapOptions { queue_pairs: 2, ..named("lonely") }).unwrap_err();
        assert!(matches!(many, NetError::Attach { queues: 2, .. }), "{many}");

        let plain = attached("plain", tun::IFF_TAP | tun::IFF_NO_PI);
        let source = TapSource::Descriptors(vec![plain]);
        let error = Tap::open(TapOptions::new(source)).unwrap_err();
        assert!(error.to_string().contains("IFF_VNET_HDR"), "{error}");
        let both = vec![attached("one", single), attached("two", single)];
        let error = Tap::open(TapOptions::new(TapSource::Descriptors(both))).unwrap_err();
        assert!(matches!(error, NetError::Mixed { .. }), "{error}");
        let file: OwnedFd = File::open("/dev/null").unwrap().into();
        let source = TapSource::Descriptors(vec![file]);
        let error = Tap::open(TapOptions::new(source)).unwrap_err();
        assert!(matches!(error, NetError::NotTap { .. }), "{error}");
    });
}

#[test]
fn a_tap_that_goes_with_the_one_who_had_it_is_made_anew_and_brought_up() {
    isolated(|| {
        let name = tun::InterfaceName::new("mine").unwrap();
        let holder = attached("mine", tun::IFF_TAP | tun::IFF_NO_PI | tun::IFF_VNET_HDR);
        let first = tun::index(name).unwrap();
        let (say, thread) = std::sync::mpsc::channel();
        let opener = std::thread::spawn(move || {
            say.send(rustix::thread::gettid()).unwrap();
            Tap::open(named("mine"))
        });
        // Until it has seen the interface, cannot have it, and sleeps.
        let status = format!("/proc/self/task/{}/stat", thread.recv().unwrap().as_raw_pid());
        while !opener.is_finished()
            && !std::fs::read_to_string(&status).is_ok_and(|stat| stat.contains(") S "))
        {
            std::thread::yield_now();
        }
        drop(holder);
        let _tap = opener.join().unwrap().unwrap();
        assert_ne!(tun::index(name).unwrap(), first);
        assert!(tun::is_up(name).unwrap());
    });
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for name in ["", "sixteen-letters-", "a/b", "a b", "..", "tap%d", "ä"] {
        let error = Tap::open(named(name)).unwrap_err();
        assert!(matches!(error, NetError::Name { .. }), "{name}: {error}");
    }
    let none = TapSource::Descriptors(Vec::new());
    assert!(matches!(Tap::open(TapOptions::new(none)), Err(NetError::Queues { queues: 0 })));
    for mtu in [0, 67, 65522] {
        let options = TapOptions { mtu: Some(mtu), ..named("x") };
        assert!(matches!(Tap::open(options), Err(NetError::Mtu { .. })));
    }
    for queue_pairs in [0, 17] {
        let options = TapOptions { queue_pairs, ..named("x") };
        assert!(matches!(Tap::open(options), Err(NetError::Queues { .. })));
    }
}

#[test]
fn without_the_right_to_make_a_tap_the_message_says_what_to_do() {
    let source = std::io::Error::from_raw_os_error(libc::EPERM);
    let error = NetError::Attach { name: "tap0".into(), queues: 2, source };
    let text = error.to_string();
    assert!(text.contains("ip tuntap add tap0 mode tap multi_queue"), "{text}");
    assert!(text.contains("CAP_NET_ADMIN"), "{text}");
}

/// What moves on a real tap, with a driver that polls and hosts that flood.
#[test]
fn under_load_a_tap_takes_few_visits_for_a_frame() {
    isolated(|| {
        let config = Config { driver: DriverChoice::Uring, ..Config::default() };
        Executor::new(&config).unwrap().block_on(async {
            let tap = Tap::open(options_for(TapSource::New)).unwrap();
            let mut bed =
                Bed::start_on(NetBackend::new(tap, NetOptions::new(OWN)).unwrap(), Vec::new());
            bed.activate().await.unwrap();
            let mut given = bed.give(RECEIVE, 1024, 2048);
            let host = bed.meet(&mut given).await;
            let socket = UdpSocket::bind((HOST, 0)).unwrap();
            socket.connect((GUEST, 7)).unwrap();
            // The same thread takes the frames: it must not wait for itself.
            socket.set_nonblocking(true).unwrap();
            let port = socket.local_addr().unwrap().port();
            let visits = || executor::stats().unwrap().system_calls;

            // To the guest: bursts of the host, one after the other.
            let (mut frames, before) = (0u64, visits());
            while frames < 20_000 {
                for _ in 0..64 {
                    let _ = socket.send(&[1; 1000]);
                }
                // The executor visits the kernel once for some hundred polls at the latest.
                let mut idle = 0;
                while idle < 600 {
                    executor::yield_now().await;
                    idle += 1;

                    while let Some(used) = bed.driver(RECEIVE).take_used() {
                        let place = given.iter().position(|(head, _)| *head == used.head).unwrap();
                        let (_, address) = given.swap_remove(place);
                        let head = bed.driver(RECEIVE).add(&[writable(address, 2048)]).unwrap();
                        given.push((head, address));
                        (frames, idle) = (frames + 1, 0);
                    }
                    bed.publish(RECEIVE);
                }
            }
            let received = visits() - before;
            assert!(100 * received <= 15 * frames, "{received} visits for {frames} to the guest");

            // From the guest.
            let frame = with(Header::default(), &udp(host, port, &[2; 1000]));
            let before = visits();
            let mut sent = 0u64;
            while sent < 20_000 {
                for place in 0..64 {
                    bed.add_frame(TRANSMIT, place, &frame);
                }
                bed.publish(TRANSMIT);
                bed.driver(TRANSMIT).disable_interrupts();
                let mut taken = 0;
                while taken < 64 {
                    executor::yield_now().await;
                    while bed.driver(TRANSMIT).take_used().is_some() {
                        taken += 1;
                    }
                }
                sent += taken;
            }
            let visits = visits() - before;
            assert!(100 * visits <= 15 * sent, "{visits} visits for {sent} from the guest");
            let statistics = bed.statistics().await;
            assert_eq!(statistics.transmitted.errors, 0);
            println!("{received} visits for {frames} received, {visits} for {sent} sent");
            bed.finish().await;
        });
    });
}

#[test]
fn a_tap_can_be_sent_to_another_actor() {
    isolated(|| {
        let mut executor = Executor::new(&Config::default()).unwrap();
        executor.block_on(async {
            let tap = Tap::open(named("sent")).unwrap();
            let (sender, mut receiver) = ipc::channel::<(Tap, NetOptions)>(1);
            sender.send((tap, NetOptions::new(OWN))).await.unwrap();
            let (tap, options) = receiver.recv().await.unwrap();
            assert_eq!(tap.name(), "sent");
            assert!(tun::interface(&tap.queues[0].as_fd()).is_ok());
            let profile = NetBackend::new(tap, options).unwrap().profile();
            assert_eq!(profile.device_type, 1);
            assert_eq!(profile.config[..6], OWN.0);
        });
    });
}
