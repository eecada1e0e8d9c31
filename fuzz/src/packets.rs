//! Protocols that come as messages of one piece.

use p9::wire::{HEADER_BYTES, Reply, Request};

/// A driver that sends FUSE requests.
pub(crate) fn fuse(input: &[u8]) {
    devices::virtio::fs::read_request(input);
}

/// A process that writes anything into the memory of its link; see [`ipc::link::hostile`].
pub(crate) fn link(input: &[u8]) {
    ipc::link::hostile::run(input);
}

/// A client, or a server, of 9P. What was read is written as it came, and means the same when it is read
/// again.
pub(crate) fn p9(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    if let Ok(request) = Request::decode(kind, rest) {
        let written = request.encode(1, &[]);
        assert_eq!(Request::decode(kind, &written[HEADER_BYTES..]), Ok(request));
    }
    if let Ok((reply, data)) = Reply::decode(kind, rest) {
        let written = reply.encode(1, data);
        assert_eq!(Reply::decode(kind, &written[HEADER_BYTES..]), Ok((reply, data)));
    }
}
