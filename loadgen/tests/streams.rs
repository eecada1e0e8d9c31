//! Streams through taps of the kernel, in a network namespace of their own. Without the right to make one
//! these tests say so and do nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use devices::virtio::net::{NetOptions, NetParts, Tap, TapOptions, TapSource};
use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Config, Executor};
use loadgen::Polling;
use loadgen::flood::leave_network;
use loadgen::frames::Direction;
use loadgen::stream::{FrameSize, Stream, StreamNet, plain_stream};

/// Runs in a network of its own, for each way and with either length of frames.
fn for_each_stream(test: impl Fn(&Stream) + Send + 'static) {
    let run = move || {
        if let Err(error) = leave_network() {
            eprintln!("SKIPPED: no network namespace can be made here: {error}");
            return;
        }
        if let Err(error) = File::open("/dev/net/tun") {
            eprintln!("SKIPPED: no tap can be made here: {error}");
            return;
        }
        for direction in [Direction::Send, Direction::Receive] {
            for frames in [FrameSize::Mtu, FrameSize::Large] {
                test(&Stream {
                    direction,
                    frames,
                    polling: Polling::Off,
                    warm_up: Duration::from_millis(500),
                    duration: Duration::from_millis(500),
                });
            }
        }
    };
    thread::spawn(run).join().unwrap();
}

#[test]
fn plain_calls_carry_a_stream() {
    for_each_stream(|stream| {
        let figures = plain_stream("test0", stream).unwrap();
        assert!(figures.operations > 0, "{stream:?}");
    });
}

#[test]
fn rings_carry_a_stream() {
    for_each_stream(|stream| {
        let tap = Tap::open(TapOptions::new(TapSource::Name("test0".into()))).unwrap();
        let options = NetOptions::random().unwrap();
        let device = DeviceParts::Net(NetParts::new(tap, options).unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let (queues, size) = device.profile().inflight_size();
            let inflight = InflightRegion::create(queues, size).unwrap();
            let start = VhostUserStart {
                device,
                inflight: inflight.file().try_clone_to_owned().unwrap().into(),
                connection: OwnedFd::from(theirs).into(),
            };
            Executor::new(&Config::default()).unwrap().block_on(start.run())
        });
        let net = StreamNet::new(ours, *stream).unwrap();
        let figures = net.run("test0", std::process::id()).unwrap();
        assert!(figures.operations > 0, "{stream:?}");
        drop(net);
        server.join().unwrap().unwrap();
    });
}
