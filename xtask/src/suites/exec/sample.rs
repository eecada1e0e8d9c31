//! Tests as cargo would build them, for its runner: one that passes and one that fails.

#[test]
fn passes_in_a_guest() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name.trim(), "vmm");
    assert_eq!(std::env::var("CARGO_PKG_NAME").unwrap(), "sample");
}

#[test]
fn fails() {
    assert_eq!(std::env::var_os("HOME").unwrap(), "nowhere", "this is how it fails");
}
