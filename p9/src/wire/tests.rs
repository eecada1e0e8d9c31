use proptest::prelude::*;

use super::*;

#[test]
fn bytes_are_as_linux_has_them() {
    let version = Request::Version { msize: 8192, version: Text(VERSION) };
    let bytes = b"\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\x009P2000.L";
    assert_eq!(version.encode(0xffff, &[]), bytes);
    let names = Names::new(&[b"a", b"bc"]).unwrap();
    let walk = Request::Walk { fid: 1, newfid: 2, names };
    let bytes = b"\x18\0\0\0\x6e\x05\0\x01\0\0\0\x02\0\0\0\x02\0\x01\0a\x02\0bc";
    assert_eq!(walk.encode(5, &[]), bytes);
    let error = Reply::Lerror { code: 2 };
    assert_eq!(error.encode(1, &[]), b"\x0b\0\0\0\x07\x01\0\x02\0\0\0");
    let qid = Qid { kind: QidKind::DIRECTORY, version: 3, path: 4 };
    let bytes = Reply::Attach { qid }.encode(0, &[]);
    assert_eq!(bytes, b"\x14\0\0\0\x69\0\0\x80\x03\0\0\0\x04\0\0\0\0\0\0\0");
    // Of old clients, without the last field.
    let fsync = Request::decode(50, b"\x07\0\0\0");
    assert_eq!(fsync, Ok(Request::Fsync { fid: 7, datasync: 0 }));
}

#[test]
fn what_is_no_message_is_refused() {
    // Of other dialects, answers, and no types at all.
    for kind in [0, 6, 7, 9, 98, 101, 106, 112, 114, 124, 126, 255] {
        assert_eq!(Request::decode(kind, &[0; 40]), Err(WireError::Unknown(kind)));
    }
    for (kind, bytes) in [
        (120, &b"\x01\0\0"[..]),
        (120, b"\x01\0\0\0\0"),
        (100, b"\0\0\0\0\xff\xff9P"),
        (110, b"\0\0\0\0\x01\0\0\0\x11\0"),
        (110, b"\0\0\0\0\x01\0\0\0\x02\0\x01\0a"),
        (118, b"\0\0\0\0"),
    ] {
        assert_eq!(Request::decode(kind, bytes), Err(WireError::Malformed(kind)), "{bytes:?}");
    }
    assert_eq!(Names::new(&[b"x".as_slice(); 17]), None);
    assert!(Reply::decode(117, b"\x02\0\0\0x").is_err());
}

fn kinds() -> impl Strategy<Value = u8> {
    prop_oneof![Just(110), Just(24), Just(26), Just(14), Just(54), Just(70), Just(116), any::<u8>()]
}

/// Bytes that are often lengths that fit.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0u8), 2 => Just(1u8), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..120)
}

proptest! {
    #[test]
    fn what_is_read_is_written_as_it_was(kind in kinds(), bytes in bytes()) {
        if let Ok(request) = Request::decode(kind, &bytes) {
            let mut out = Vec::new();
            request.write(&mut out);
            prop_assert_eq!(request.kind(), kind);
            match request {
                Request::Write { .. } => prop_assert_eq!(&out[..], &bytes[..16]),
                Request::Fsync { .. } => prop_assert!(out.starts_with(&bytes)),
                _ => prop_assert_eq!(out, bytes),
            }
        }
    }

    #[test]
    fn answers_are_written_as_they_were(kind in kinds(), bytes in bytes()) {
        if let Ok((reply, data)) = Reply::decode(kind, &bytes) {
            let mut out = Vec::new();
            reply.write(&mut out);
            out.extend(data);
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn headers_are_written_as_they_were(bytes: [u8; HEADER_BYTES]) {
        prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
    }
}
