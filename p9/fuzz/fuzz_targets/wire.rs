//! A client, or a server, that sends what the input says. What was read is written as it came, and means the
//! same when it is read again.
#![no_main]

use p9::wire::{HEADER_BYTES, Reply, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if let Ok(request) = Request::decode(*kind, rest) {
        let written = request.encode(1, &[]);
        assert_eq!(Request::decode(*kind, &written[HEADER_BYTES..]), Ok(request));
    }
    if let Ok((reply, data)) = Reply::decode(*kind, rest) {
        let written = reply.encode(1, data);
        assert_eq!(Reply::decode(*kind, &written[HEADER_BYTES..]), Ok((reply, data)));
    }
});
