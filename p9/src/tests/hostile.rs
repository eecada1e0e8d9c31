use std::fs;
use std::io::{Read, Write};

use fileserver::{Access, Errno};
use proptest::prelude::*;

use super::client::*;
use crate::wire::*;

/// The server lives, and serves others.
fn serves(world: &World) {
    let mut client = world.another();
    assert_eq!(client.walk(ROOT, 2, "file"), Ok(1));
}

#[test]
fn a_message_of_a_wrong_length_ends_the_connection() {
    let world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "").unwrap();
    for size in [0_u32, 6, (512 << 10) + 1, u32::MAX] {
        let mut client = world.another();
        let header = Header { size, kind: 120, tag: 1 };
        client.socket.write_all(&header.encode()).unwrap();
        assert_eq!(client.socket.read(&mut [0]).unwrap(), 0, "a message of {size} bytes");
    }
    serves(&world);
}

#[test]
fn a_write_has_the_data_that_it_says() {
    let mut world = World::new(Access::ReadWrite);
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    for count in [3, 5, u32::MAX] {
        let write = Request::Write { fid: 2, offset: 0, count };
        assert_eq!(client.ask_with(&write, b"data"), Err(Errno::INVAL));
    }
    assert_eq!(client.write(2, u64::MAX - 2, b"data"), Err(Errno::INVAL));
    assert_eq!(client.write(2, i64::MAX as u64 - 2, b"data"), Err(Errno::INVAL));
    assert_eq!(client.read(2, u64::MAX, 10), Err(Errno::INVAL));
    assert_eq!(client.write(2, 0, b"data"), Ok(4));
}

#[test]
fn requests_need_not_wait_for_each_other() {
    let mut world = World::new(Access::ReadWrite);
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    client.write(2, 0, b"0123456789").unwrap();
    let mut tags = Vec::new();
    for offset in 0..100 {
        tags.push(client.send(&Request::Read { fid: 2, offset: offset % 10, count: 1 }, &[]));
    }
    for _ in 0..100 {
        let (tag, answer) = client.receive();
        let index = tags.iter().position(|sent| *sent == tag).unwrap();
        assert_eq!(answer.data(), (index % 10).to_string().as_bytes());
    }
}

#[test]
fn a_flush_is_answered_after_what_it_flushes() {
    let mut world = World::new(Access::ReadWrite);
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    client.write(2, 0, &vec![0; 400_000]).unwrap();
    for _ in 0..50 {
        let read = client.send(&Request::Read { fid: 2, offset: 0, count: 400_000 }, &[]);
        let flushes: Vec<_> =
            (0..20).map(|_| client.send(&Request::Flush { tag: read }, &[])).collect();
        assert_eq!(client.receive().0, read);
        let mut answered: Vec<_> = (0..20).map(|_| client.receive().0).collect();
        answered.sort_unstable();
        assert_eq!(answered, flushes);
    }
    client.ask(&Request::Flush { tag: 9999 }).unwrap();
}

#[test]
fn fids_have_a_bound() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "").unwrap();
    let client = &mut world.client;
    let names = Names::new(&[]).unwrap();
    let most = 1 << 18;
    let (mut made, mut refused) = (0, 0);
    for first in (2..most + 100).step_by(100) {
        for newfid in first..first + 100 {
            client.send(&Request::Walk { fid: ROOT, newfid, names }, &[]);
        }
        for _ in 0..100 {
            match client.receive().1.reply() {
                Reply::Walk { .. } => made += 1,
                Reply::Lerror { code } if code == libc::ENFILE as u32 => refused += 1,
                reply => panic!("{reply:?}"),
            }
        }
    }
    assert_eq!(made, most - 1);
    assert!(refused > 0);
    client.clunk(2).unwrap();
    client.walk(ROOT, 2, "file").unwrap();
    serves(&world);
}

#[test]
fn clients_have_a_bound() {
    let world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "").unwrap();
    let mut others: Vec<_> = (0..31).map(|_| world.another()).collect();
    let mut one_more = world.connect();
    assert_eq!(one_more.socket.read(&mut [0]).unwrap(), 0);
    others.truncate(10);
    // The server sees them go when it gets round to it.
    while world.connect().try_begin().is_err() {}
    for client in &mut others {
        client.walk(ROOT, 2, "file").unwrap();
    }
}

fn requests() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kinds = [
        8, 12, 14, 16, 18, 20, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76, 104, 108, 110,
        116, 118, 120, 122,
    ];
    let kind = prop_oneof![20 => prop::sample::select(kinds.to_vec()), 1 => any::<u8>()];
    // Small numbers of fids, names of one letter, and lengths that are often right.
    let byte = prop_oneof![
        5 => Just(0_u8), 3 => 1..4_u8, 1 => Just(b'a'), 1 => Just(b'.'), 1 => any::<u8>(),
    ];
    prop::collection::vec((kind, prop::collection::vec(byte, 0..60)), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_requests_are_answered(requests in requests()) {
        let mut world = World::new(Access::ReadWrite);
        fs::write(world.path("a"), "text").unwrap();
        fs::create_dir_all(world.path("b/a")).unwrap();
        world.client.create(2, "c").unwrap();
        for (kind, bytes) in requests {
            if kind == 100 {
                continue;
            }
            let size = (HEADER_BYTES + bytes.len()) as u32;
            let header = Header { size, kind, tag: 7 };
            world.client.socket.write_all(&header.encode()).unwrap();
            world.client.socket.write_all(&bytes).unwrap();
            prop_assert_eq!(world.client.receive().0, 7);
        }
        fs::write(world.path("file"), "").unwrap();
        serves(&world);
        let secret = world.path("../secret");
        prop_assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
    }
}
