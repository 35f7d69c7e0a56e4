//! How long a thread runs before others that wait get its CPU.
//!
//! A change of weights passes through several threads, each of which works for some microseconds. On a CPU
//! that a worker keeps busy, each of them would wait until the worker's time slice is used up: milliseconds.
//! Since Linux 6.12 a thread may ask for a slice of its own (EEVDF: `kernel/sched/fair.c`, `se.slice`), and one
//! that asks for little is let in at once, without getting more of the CPU than its share. It needs no
//! privilege. Older kernels take the wish and do as they always did.
//!
//! This is a crate of its own because the standard library and rustix have no such call: it is the only place with
//! `unsafe` in switchback.

use std::io;
use std::time::Duration;

/// The least that the kernel grants, for threads that do little and are waited for.
pub const SHORT: Duration = Duration::from_micros(100);

/// Asks for slices of `length` for this thread and for those it starts afterwards; zero stands for what is
/// usual on the machine. The kernel grants 0.1 to 100 ms.
///
/// # Errors
/// What the kernel says, such as where a sandbox does not let the call through. Nothing has changed then.
#[cfg(target_os = "linux")]
pub fn ask(length: Duration) -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    let wish = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?,
        sched_policy: 0,
        // Whoever started this may have chosen another one.
        sched_flags: u64::try_from(libc::SCHED_FLAG_KEEP_POLICY).map_err(io::Error::other)?,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: u64::try_from(length.as_nanos()).map_err(io::Error::other)?,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, flags) = (0_i32, 0_u32);
    // SAFETY: the kernel reads `size` bytes of `wish`, which lives until the call is over, and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const wish, flags) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for nothing: only Linux knows such wishes.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn ask(_length: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The slice of this thread in nanoseconds, where the kernel tells.
    fn slice() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = text.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn threads_inherit_a_slice_and_can_give_it_up() {
        let asked = std::thread::spawn(|| {
            let usual = slice();
            ask(SHORT).unwrap();
            let short = slice();
            let child = std::thread::spawn(|| {
                let inherited = slice();
                ask(Duration::ZERO).unwrap();
                (inherited, slice())
            });
            (usual, short, child.join().unwrap())
        });
        let (usual, short, (inherited, given_up)) = asked.join().unwrap();
        // Kernels before 6.12 know no slices of single threads, or do not tell.
        if usual.is_some() && short != usual {
            assert_eq!(short, Some(100_000));
            assert_eq!(inherited, short);
            assert_eq!(given_up, usual);
        }
    }
}
