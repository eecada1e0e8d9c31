//! What the fuzzer drives: everything that reads what others have written.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::crashes::Crashed;
use crate::{listening, logs, mounts, process, secret, transport};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A datagram to `/dev/log`.
pub fn syslog(datagram: &[u8]) {
    let record = logs::parse_datagram(datagram);
    assert!(record.text.len() <= datagram.len());
}

/// A record of `/dev/kmsg`.
pub fn kernel_record(record: &[u8]) {
    if let Some((read, _)) = logs::parse_kernel_record(record, 1 << 60, 1 << 40) {
        assert!(read.text.len() <= record.len());
    }
}

/// A table of `/proc/net/tcp`.
pub fn listening(table: &[u8]) {
    assert!(listening::parse(&text(table)).iter().all(|&port| port >= 1024));
}

/// The line that names a port.
pub fn connect_line(line: &[u8]) {
    transport::parse_connect(line);
}

/// The tables of SMBIOS.
pub fn firmware(tables: &[u8]) {
    assert!(secret::oem_strings(tables).all(|text| !text.is_empty()));
}

/// Options of a mount.
pub fn mount_options(options: &[u8]) {
    mounts::Options::parse(&text(options));
}

/// A user that is wanted, and with blank lines between them `/etc/passwd` and `/etc/group`.
pub fn users(files: &[u8]) {
    let files = text(files);
    let mut parts = files.splitn(3, "\n\n");
    let mut part = || parts.next().unwrap_or_default();
    process::is_user(part(), part(), part());
}

/// The words by which the kernel tells of a crash.
pub fn crash(words: &[u8]) {
    let words = words.split(|&byte| byte == b' ');
    Crashed::parse(words.map(|word| OsString::from_vec(word.to_vec())));
}
