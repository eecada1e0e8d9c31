//! `/dev/log`: datagrams as syslog(3) of the C library sends them (RFC 3164 without a host name).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use executor::{Fd, RecvFlags};
use proto::v1::{LogRecord, log_record::Source};

use super::{Logs, now};

/// The longest message; more of a datagram is cut off.
const MAX_BYTES: usize = 8 << 10;
/// `user.notice`, for what names no priority (RFC 3164 section 4.3.3).
const DEFAULT_PRIORITY: u32 = 13;
/// The highest: facility 23, severity 7.
const MAX_PRIORITY: u32 = 191;
/// `Nov 21 15:04:05 `.
const TIME_BYTES: usize = 16;

/// Takes what programs log from now on.
pub(crate) fn listen(path: &Path, logs: Logs) -> io::Result<()> {
    // Where somebody else listens already, it is theirs.
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
    let socket = Fd::new(socket)?;
    executor::spawn(async move {
        let mut buffer = Vec::with_capacity(MAX_BYTES);
        loop {
            buffer.clear();
            let (received, filled) = socket.recv(buffer, RecvFlags::empty()).await;
            buffer = filled;
            match received {
                Ok(_) => logs.push(parse(&buffer)),
                Err(error) => return log::warn!("/dev/log: {error}"),
            }
        }
    })
    .detach();
    Ok(())
}

/// `<13>Nov 21 15:04:05 name[1]: text`; all parts but the text may be missing.
pub(crate) fn parse(datagram: &[u8]) -> LogRecord {
    let (priority, rest) = priority(datagram).unwrap_or((DEFAULT_PRIORITY, datagram));
    let rest = match rest.get(..TIME_BYTES) {
        Some(time) if is_time(time) => &rest[TIME_BYTES..],
        _ => rest,
    };
    let end = rest.iter().rposition(|byte| !matches!(byte, b'\n' | 0)).map_or(0, |last| last + 1);
    LogRecord { source: Source::User.into(), priority, time_ns: now(), text: rest[..end].to_vec() }
}

/// `<N>`, and what follows.
pub(super) fn priority(text: &[u8]) -> Option<(u32, &[u8])> {
    let rest = text.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|&byte| byte == b'>')?;
    let number: u32 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (number <= MAX_PRIORITY).then_some((number, &rest[end + 1..]))
}

fn is_time(text: &[u8]) -> bool {
    let shape = b"Mmm dd hh:mm:ss ";
    text.iter().zip(shape).all(|(&byte, &expected)| match expected {
        b' ' | b':' => byte == expected,
        b'M' => byte.is_ascii_uppercase(),
        b'm' if byte.is_ascii_lowercase() => true,
        // Days have a blank in front; the letters of month and minute are the same.
        _ => byte.is_ascii_digit() || byte == b' ',
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let of = |text: &str| {
            let record = parse(text.as_bytes());
            (record.priority, String::from_utf8(record.text).unwrap())
        };
        assert_eq!(of("<30>Nov 21 15:04:05 cron[7]: hello\n"), (30, "cron[7]: hello".into()));
        assert_eq!(of("<13>Nov  1 15:04:05 a: b\0"), (13, "a: b".into()));
        assert_eq!(of("<13>a: b"), (13, "a: b".into()));
        assert_eq!(of("plain"), (DEFAULT_PRIORITY, "plain".into()));
        assert_eq!(of("<192>x"), (DEFAULT_PRIORITY, "<192>x".into()));
        assert_eq!(of(""), (DEFAULT_PRIORITY, String::new()));
    }

    proptest! {
        #[test]
        fn any_datagram_is_a_record(datagram: Vec<u8>) {
            let record = parse(&datagram);
            prop_assert!(record.priority <= MAX_PRIORITY);
            prop_assert!(record.text.len() <= datagram.len());
        }
    }
}
