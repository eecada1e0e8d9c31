//! Which of the host's processors each thread of a device has.

/// The processors of one thread out of several, numbered from zero: one of its own where there are enough, else all
/// of them. Empty for any.
pub(crate) fn of_thread(cpus: &[u16], thread: u16, threads: u16) -> &[u16] {
    let own = usize::from(thread);
    match cpus.get(own..=own) {
        Some(one) if threads > 1 && cpus.len() >= usize::from(threads) => one,
        _ => cpus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_a_processor_each_where_there_are_enough() {
        assert_eq!(of_thread(&[2, 3], 0, 1), [2, 3], "one alone has them all");
        assert_eq!(of_thread(&[2, 3], 0, 2), [2]);
        assert_eq!(of_thread(&[2, 3, 7], 1, 2), [3]);
        for thread in 0..3 {
            assert_eq!(of_thread(&[2, 3], thread, 3), [2, 3], "they share");
            assert_eq!(of_thread(&[], thread, 3), [0; 0]);
        }
    }
}
