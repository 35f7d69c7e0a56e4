//! Knowing that every worker has stopped using an old snapshot.
//!
//! Swapping a pointer is instant, but a worker may be in the middle of a step that began before the
//! swap. A fence is posted to all workers after the swap; each acknowledges it after one full turn
//! of its loop. Since checking a backend and giving it the first byte of a request happen in one
//! synchronous step of one worker, everything that begins after the last acknowledgement follows
//! the new snapshot, and counters read then include everything that began under the old one.

use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// One barrier that all workers pass.
#[derive(Debug)]
pub struct Fence {
    swapped: Instant,
    passed: Box<[AtomicBool]>,
    outstanding: AtomicUsize,
    applied_us: AtomicU64,
    all_passed: Notify,
}

/// Some workers did not acknowledge in time. The change is in force nevertheless; these workers
/// will follow it as soon as they run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("workers {workers:?} did not acknowledge the change in time")]
pub struct Unconfirmed {
    /// Their numbers.
    pub workers: Vec<usize>,
}

impl Fence {
    pub(crate) fn new(workers: usize, swapped: Instant) -> Self {
        Self {
            swapped,
            passed: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            outstanding: AtomicUsize::new(workers),
            applied_us: AtomicU64::new(0),
            all_passed: Notify::new(),
        }
    }

    /// Called by a worker after one full turn of its loop.
    pub(crate) fn pass(&self, worker: usize) {
        if self.passed[worker].swap(true, AcqRel) {
            return;
        }
        if self.outstanding.fetch_sub(1, AcqRel) == 1 {
            let took_us = u64::try_from(self.swapped.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.applied_us.store(took_us, Release);
            self.all_passed.notify_waiters();
        }
    }

    /// How long it took from the swap until all workers had passed; none while some have not.
    #[must_use]
    pub fn passed(&self) -> Option<Duration> {
        (self.outstanding.load(Acquire) == 0).then(|| self.took())
    }

    fn took(&self) -> Duration {
        Duration::from_micros(self.applied_us.load(Acquire))
    }

    /// Waits until all workers have passed; tells how long that took from the swap.
    ///
    /// # Errors
    /// [`Unconfirmed`] after `patience`.
    ///
    /// # Cancel safety
    /// Safe: waiting again goes on where it was.
    pub async fn wait(&self, patience: Duration) -> Result<Duration, Unconfirmed> {
        let passed = async {
            loop {
                let notified = self.all_passed.notified();
                if self.outstanding.load(Acquire) == 0 {
                    break;
                }
                notified.await;
            }
        };
        if tokio::time::timeout(patience, passed).await.is_err() {
            let late = (0..self.passed.len()).filter(|worker| !self.passed[*worker].load(Acquire));
            return Err(Unconfirmed {
                workers: late.collect(),
            });
        }
        Ok(self.took())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("runtime");
        runtime.block_on(future)
    }

    #[test]
    fn fence_opens_when_the_last_worker_passes() {
        let fence = Fence::new(2, Instant::now());
        fence.pass(1);
        fence.pass(1);
        assert_eq!(
            block_on(fence.wait(Duration::from_millis(5))),
            Err(Unconfirmed { workers: vec![0] })
        );
        assert_eq!(fence.passed(), None);
        fence.pass(0);
        assert!(fence.passed().is_some());
        assert!(block_on(fence.wait(Duration::ZERO)).is_ok());
    }
}
