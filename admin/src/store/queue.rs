//! The queue of jobs for the thread that owns the disk.
//!
//! What is in force already must not be lost to a disk that hangs, so half of the places are kept for it: how
//! much can be decided without the disk is a few changes for each service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::Job;

/// Jobs that wait at most before others than those that must not be lost are refused.
const JOBS_MAX: usize = 1_024;

/// Places for those.
const KEPT: usize = 1_024;

/// The end that jobs are put into. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    sender: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
}

/// The end that they come out of, in order.
pub(super) struct Queue {
    receiver: Receiver<Job>,
    waiting: Arc<AtomicUsize>,
}

/// An empty queue.
pub(super) fn queue() -> (Jobs, Queue) {
    let (sender, receiver) = sync_channel(JOBS_MAX + KEPT);
    let waiting: Arc<AtomicUsize> = Arc::default();
    let jobs = Jobs {
        sender,
        waiting: waiting.clone(),
    };
    (jobs, Queue { receiver, waiting })
}

impl Jobs {
    /// Puts a job in if there is room.
    ///
    /// # Errors
    /// The job, when the disk does not keep up or the store has stopped.
    pub(super) fn try_send(&self, job: Job) -> Result<(), TrySendError<Job>> {
        match self.waiting.load(Relaxed) {
            JOBS_MAX.. => Err(TrySendError::Full(job)),
            _ => self.send(job),
        }
    }

    /// Puts a job in that must not be lost.
    ///
    /// # Errors
    /// As [`Jobs::try_send`], though hardly ever.
    pub(super) fn send(&self, job: Job) -> Result<(), TrySendError<Job>> {
        self.waiting.fetch_add(1, Relaxed);
        let sent = self.sender.try_send(job);
        if sent.is_err() {
            self.waiting.fetch_sub(1, Relaxed);
        }
        sent
    }
}

impl Queue {
    /// The next job, as soon as there is one; none when nobody is left to send one.
    pub(super) fn recv(&self) -> Option<Job> {
        let job = self.receiver.recv().ok()?;
        Some(self.taken(job))
    }

    /// The same within some time.
    pub(super) fn recv_timeout(&self, time: Duration) -> Result<Job, RecvTimeoutError> {
        let job = self.receiver.recv_timeout(time)?;
        Ok(self.taken(job))
    }

    /// The next job that waits.
    #[cfg(any(test, fuzzing))]
    pub(super) fn try_recv(&self) -> Option<Job> {
        let job = self.receiver.try_recv().ok()?;
        Some(self.taken(job))
    }

    fn taken(&self, job: Job) -> Job {
        self.waiting.fetch_sub(1, Relaxed);
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_takes_only_what_must_not_be_lost() {
        let (jobs, queue) = queue();
        for _ in 0..JOBS_MAX {
            assert!(jobs.try_send(Job::Errands).is_ok());
        }
        assert!(matches!(
            jobs.try_send(Job::Errands),
            Err(TrySendError::Full(_))
        ));
        assert!(jobs.send(Job::Read(Box::new(|_| ()))).is_ok());
        assert!(queue.try_recv().is_some() && queue.try_recv().is_some());
        assert!(jobs.try_send(Job::Errands).is_ok());
        let last = std::iter::from_fn(|| queue.try_recv()).last();
        assert!(matches!(last, Some(Job::Errands)));
        drop(queue);
        assert!(matches!(
            jobs.send(Job::Errands),
            Err(TrySendError::Disconnected(_))
        ));
    }
}
