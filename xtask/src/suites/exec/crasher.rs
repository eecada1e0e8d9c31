//! `crasher read|abort` crashes in its second thread, whose number it says before.

fn main() {
    let how = std::env::args().nth(1).unwrap();
    let crash = move || {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        println!("thread {}", thread.file_name().unwrap().to_str().unwrap());
        if how == "abort" {
            std::process::abort();
        }
        // SAFETY: there is nothing, which is what this is for.
        unsafe { std::ptr::with_exposed_provenance::<u32>(0xdea_d000).read_volatile() }
    };
    let thread = std::thread::Builder::new().name("second".into()).spawn(crash).unwrap();
    println!("not reached: {}", thread.join().unwrap());
}
