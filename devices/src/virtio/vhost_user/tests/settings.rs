//! What drivers told consoles, sockets and disks, and front ends that change things meanwhile.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use zerocopy::IntoBytes;

use super::super::driven::Driven;
use super::super::front_end::FrontEnd;
use super::super::message::ConfigPart;
use super::{Request, disk, message, serve};
use crate::virtio::console::driver::{
    DEVICE_READY, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY, tell, told,
};
use crate::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use crate::virtio::parts::DeviceParts;
use crate::virtio::vsock::{VsockOptions, VsockParts};

const PATIENCE: Duration = Duration::from_mins(1);

const MULTIPORT: u64 = 1 << 1;
/// The port's queues.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

#[test]
fn a_port_is_open_until_another_driver_comes() {
    let (mut host, end) = UnixStream::pair().unwrap();
    end.set_nonblocking(true).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = PortEnd::Both(OwnedFd::from(end).into());
    let ports = vec![(PortRole::Named("p".into()), end)];
    let device = ConsoleParts::new(ports, WindowSize::default()).unwrap();
    let (connection, thread) = serve(&DeviceParts::Console(device));
    let mut driver = Driven::new(connection, MULTIPORT, 4);
    driver.begin(&[0; 4]);
    for turn in 0..2 {
        tell(&mut driver, 0, DEVICE_READY);
        assert_eq!(told(&mut driver).event, PORT_ADD);
        tell(&mut driver, 0, PORT_READY);
        assert_eq!([(); 2].map(|()| told(&mut driver).event), [PORT_NAME, PORT_OPEN]);
        driver.listen(RECEIVE);
        host.write_all(b"first").unwrap();
        // The bytes are there when this was heard, and nobody wants them yet.
        driver.say(TRANSMIT, b"shown");
        let mut shown = [0; 5];
        host.read_exact(&mut shown).unwrap();
        driver.taken(TRANSMIT);
        let bases = driver.stop();
        assert!(!driver.has_used(RECEIVE), "nobody has it open in turn {turn}");
        driver.start(&bases);
        tell(&mut driver, 0, PORT_OPEN);
        assert_eq!(driver.heard(RECEIVE), b"first");
        for change in 0..3 {
            driver.listen(RECEIVE);
            match change {
                0 => driver.hand_over_memory(),
                1 => {
                    let bases = driver.stop();
                    driver.start(&bases);
                }
                _ => {
                    let bases = driver.stop();
                    driver.begin(&bases);
                }
            }
            host.write_all(b"more").unwrap();
            assert_eq!(driver.heard(RECEIVE), b"more");
        }
        let _ = driver.stop();
        driver.set_up(4);
        driver.start(&[0; 4]);
    }
    drop(driver);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_driver_of_sockets_hears_that_its_connections_are_gone_and_a_new_one_hears_nothing() {
    const TRANSMIT: usize = 1;
    const EVENT: usize = 2;
    let folder = tempfile::tempdir().unwrap();
    let listener = |kind, name| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(folder.path().join(name)).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        socket
    };
    let stream = listener(SocketType::STREAM, "stream");
    let seqpacket = listener(SocketType::SEQPACKET, "seqpacket");
    let (connects, _nobody) = ipc::channel(1);
    let parts = VsockParts::new(VsockOptions::new(3), stream, seqpacket, connects).unwrap();
    let (connection, thread) = serve(&DeviceParts::Vsock(parts));
    let mut driver = Driven::new(connection, 0, 3);
    driver.begin(&[0; 3]);
    for _ in 0..2 {
        driver.listen(EVENT);
        // Nobody has to answer to nonsense.
        driver.say(TRANSMIT, &[0; 44]);
        driver.taken(TRANSMIT);
        let bases = driver.stop();
        assert!(!driver.has_used(EVENT), "there were no others before");
        driver.start(&bases);
        driver.hand_over_memory();
        assert_eq!(driver.heard(EVENT), [0; 4], "a transport reset");
        let _ = driver.stop();
        driver.set_up(3);
        driver.start(&[0; 3]);
    }
    drop(driver);
    thread.join().unwrap().unwrap();
}

/// `writeback` of a disk, and the feature that has it (virtio 1.3 sections 5.2.3 and 5.2.4).
const WRITEBACK: u32 = 32;
const CONFIG_WCE: u64 = 1 << 11;
/// A flush, whose other fields are 0 (virtio 1.3 section 5.2.6).
const FLUSH: [u8; 16] = 4_u128.to_le_bytes();

fn writeback(driver: &mut Driven) -> u8 {
    driver.front_end.config(WRITEBACK + 1).unwrap()[WRITEBACK as usize]
}

fn write_through(driver: &mut Driven) {
    let part = ConfigPart { offset: WRITEBACK, size: 1, flags: 0 };
    let request = message(Request::SetConfig, &[part.as_bytes(), &[0]].concat());
    driver.front_end.socket().write_all(&request).unwrap();
}

#[test]
fn what_a_driver_wrote_to_the_configuration_space_outlasts_a_back_end() {
    let (_file, device) = disk();
    let (connection, thread) = serve(&device);
    let mut driver = Driven::new(connection, CONFIG_WCE, 1);
    assert_eq!(writeback(&mut driver), 1);
    // Before there is a back end, and when there is one.
    for _ in 0..2 {
        write_through(&mut driver);
        driver.begin(&[0]);
        assert_eq!(writeback(&mut driver), 0);
        driver.hand_over_memory();
        assert_eq!(writeback(&mut driver), 0);
        let _ = driver.stop();
        driver.hand_over_memory();
        assert_eq!(writeback(&mut driver), 0, "nobody serves it now");
        driver.front_end.reset_device().unwrap();
        assert_eq!(writeback(&mut driver), 1);
        driver.begin(&[0]);
        assert_eq!(writeback(&mut driver), 1);
    }
    drop(driver);
    thread.join().unwrap().unwrap();
}

/// A driver that begins anew finds `writeback` as it was at first, and so does whoever succeeds its back end.
fn assert_a_reset_lasts(driver: &mut Driven, mut succeed: impl FnMut(&mut Driven)) {
    driver.front_end.reset_device().unwrap();
    driver.set_up(1);
    driver.begin(&[0]);
    assert_eq!(driver.ask(0, &FLUSH), 0);
    succeed(driver);
    driver.begin(&[1]);
    assert_eq!(writeback(driver), 1);
}

/// QEMU, for one, does not write it again.
#[test]
fn writes_through_the_cache_outlast_whoever_served_the_disk_and_not_a_reset() {
    let (_file, device) = disk();
    let (connection, mut thread) = serve(&device);
    let mut driver = Driven::new(connection, CONFIG_WCE, 1);
    let record = driver.front_end.inflight(1, 16).unwrap().unwrap();
    let mut succeed = |driver: &mut Driven| {
        let (connection, successor) = serve(&device);
        driver.front_end = FrontEnd::new(connection).unwrap();
        std::mem::replace(&mut thread, successor).join().unwrap().unwrap();
        driver.front_end.restore_inflight(&record).unwrap();
    };
    driver.begin(&[0]);
    write_through(&mut driver);
    assert_eq!(driver.ask(0, &FLUSH), 0);
    for _ in 0..2 {
        succeed(&mut driver);
        driver.begin(&[1]);
        assert_eq!(writeback(&mut driver), 0);
    }
    assert_a_reset_lasts(&mut driver, &mut succeed);
    // While nobody is there.
    write_through(&mut driver);
    succeed(&mut driver);
    assert_a_reset_lasts(&mut driver, &mut succeed);
    drop(driver);
    thread.join().unwrap().unwrap();
}
