//! Networks whose drivers say which frames they want, and front ends that change things meanwhile.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send};

use super::super::driven::Driven;
use super::serve;
use crate::virtio::net::{MacAddress, NetOptions, NetParts, Offloads, Tap};
use crate::virtio::parts::DeviceParts;

/// `VIRTIO_NET_F_MAC`, `CTRL_VQ`, `CTRL_RX` and `CTRL_MAC_ADDR` (virtio 1.3 section 5.1.3).
const FEATURES: u64 = 1 << 5 | 1 << 17 | 1 << 18 | 1 << 23;

const RECEIVE: usize = 0;
const CONTROL: usize = 2;
const QUEUES: usize = 3;
const BEGINNING: [u32; QUEUES] = [0; QUEUES];

const HEADER: usize = 12;
/// What the device is made with, what a driver takes instead, and what belongs to others.
const MADE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const TAKEN: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const FOREIGN: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

/// A network and the other end of its socket.
fn network() -> (OwnedFd, DeviceParts) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let tap = Tap::from_sockets(vec![ours], 1500, Offloads::empty()).unwrap();
    let options = NetOptions { queue_size: 64, ..NetOptions::new(MADE) };
    (theirs, DeviceParts::Net(NetParts::new(tap, options).unwrap()))
}

/// A frame to somebody, with its header.
fn frame(to: MacAddress, number: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER + 60];
    frame[HEADER..HEADER + 6].copy_from_slice(&to.0);
    frame[HEADER + 20] = number;
    frame
}

struct Host {
    socket: OwnedFd,
    sent: u8,
}

impl Host {
    /// Sends a frame to each of these; gives the numbers by which they are known.
    fn sends(&mut self, to: &[MacAddress]) -> Vec<u8> {
        let send_one = |mac: &MacAddress| {
            self.sent += 1;
            send(&self.socket, &frame(*mac, self.sent), SendFlags::empty()).unwrap();
            self.sent
        };
        to.iter().map(send_one).collect()
    }
}

/// The number of the next frame that a driver gets.
fn received(driver: &mut Driven) -> u8 {
    driver.heard(RECEIVE)[HEADER + 20]
}

/// A driver that takes another address, and wants no frames but those to it.
fn choose(driver: &mut Driven) {
    let commands = [vec![0, 0, 0], [&[1, 1], &TAKEN.0[..]].concat()];
    for command in commands {
        assert_eq!(driver.ask(CONTROL, &command), 0, "{command:?}");
    }
}

/// The driver gets what it chose to get, and nothing else.
fn expect_choice(host: &mut Host, driver: &mut Driven) {
    let sent = host.sends(&[MADE, FOREIGN, TAKEN]);
    driver.listen(RECEIVE);
    assert_eq!(received(driver), sent[2]);
    assert_eq!(driver.front_end.config(6).unwrap(), TAKEN.0);
}

/// The driver gets all there is, as one that chose nothing.
fn expect_no_choice(host: &mut Host, driver: &mut Driven) {
    let to = [FOREIGN, MADE, TAKEN];
    for number in host.sends(&to) {
        driver.listen(RECEIVE);
        assert_eq!(received(driver), number);
    }
    assert_eq!(driver.front_end.config(6).unwrap(), MADE.0);
}

/// A network, and a driver that has chosen.
fn chosen() -> (Host, DeviceParts, Driven, impl FnOnce(Driven)) {
    let (socket, device) = network();
    let mut host = Host { socket, sent: 0 };
    let (connection, thread) = serve(&device);
    let mut driver = Driven::new(connection, FEATURES, QUEUES);
    driver.begin(&BEGINNING);
    choose(&mut driver);
    expect_choice(&mut host, &mut driver);
    let end = |driver: Driven| {
        drop(driver);
        thread.join().unwrap().unwrap();
    };
    (host, device, driver, end)
}

#[test]
fn what_a_driver_chose_outlasts_another_table_of_memory() {
    let (mut host, _device, mut driver, end) = chosen();
    for _ in 0..3 {
        driver.hand_over_memory();
        expect_choice(&mut host, &mut driver);
    }
    end(driver);
}

#[test]
fn what_a_driver_chose_outlasts_a_stop_of_its_rings() {
    let (mut host, _device, mut driver, end) = chosen();
    for _ in 0..3 {
        let bases = driver.stop();
        driver.begin(&bases);
        expect_choice(&mut host, &mut driver);
        let bases = driver.stop();
        driver.start(&bases);
        expect_choice(&mut host, &mut driver);
    }
    end(driver);
}

#[test]
fn buffers_that_wait_for_frames_outlast_a_stop_of_their_ring() {
    let (mut host, _device, mut driver, end) = chosen();
    for _ in 0..4 {
        driver.listen(RECEIVE);
    }
    // The device has taken them: it has answered a command since.
    choose(&mut driver);
    let bases = driver.stop();
    driver.begin(&bases);
    for number in host.sends(&[TAKEN; 4]) {
        assert_eq!(received(&mut driver), number);
    }
    end(driver);
}

#[test]
fn what_a_driver_chose_outlasts_whoever_served_it() {
    let (mut host, device, mut driver, end) = chosen();
    let bases = driver.stop();
    let (connection, thread) = serve(&device);
    let mut successor = Driven::new(connection, FEATURES, QUEUES);
    std::mem::swap(&mut successor.front_end, &mut driver.front_end);
    end(successor);
    driver.begin(&bases);
    expect_choice(&mut host, &mut driver);
    drop(driver);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_driver_after_a_reset_has_chosen_nothing() {
    let (mut host, _device, mut driver, end) = chosen();
    // Whether there is a back end to hear of it or not.
    for memory_changes in [false, true] {
        let _ = driver.stop();
        if memory_changes {
            driver.hand_over_memory();
        }
        driver.front_end.reset_device().unwrap();
        assert_eq!(driver.front_end.config(6).unwrap(), MADE.0);
        driver.set_up(QUEUES);
        driver.begin(&BEGINNING);
        expect_no_choice(&mut host, &mut driver);
        choose(&mut driver);
        expect_choice(&mut host, &mut driver);
    }
    end(driver);
}

/// Front ends that do not know that request start the rings at their beginning.
#[test]
fn a_driver_whose_rings_begin_anew_has_chosen_nothing() {
    let (mut host, device, mut driver, end) = chosen();
    for memory_changes in [false, true] {
        let _ = driver.stop();
        driver.set_up(QUEUES);
        if memory_changes {
            driver.begin(&BEGINNING);
        } else {
            driver.start(&BEGINNING);
        }
        expect_no_choice(&mut host, &mut driver);
        choose(&mut driver);
    }
    end(driver);

    let (connection, thread) = serve(&device);
    let mut driver = Driven::new(connection, FEATURES, QUEUES);
    driver.begin(&BEGINNING);
    expect_no_choice(&mut host, &mut driver);
    drop(driver);
    thread.join().unwrap().unwrap();
    drop(host);
}
