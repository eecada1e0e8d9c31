//! `first-byte` writes a line, as process 1 or as any other; `first-byte pack FILE` makes an initial RAM disk in
//! which it is process 1.

use std::io::Write;

/// One entry of an archive as the kernel unpacks it ("newc").
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
    let length = data.len() as u32;
    let fields =
        [1, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let ["pack", file] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let mut archive = Vec::new();
        entry(&mut archive, "dev", 0o040_755, (0, 0), &[]);
        entry(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
        entry(&mut archive, "init", 0o100_755, (0, 0), &std::fs::read("/proc/self/exe").unwrap());
        entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
        return std::fs::write(file, archive).unwrap();
    }
    println!("first");
    std::io::stdout().flush().unwrap();
    // As process 1 this ends in a panic, and so the machine.
}
