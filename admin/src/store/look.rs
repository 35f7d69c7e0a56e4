//! Whether the recorded state can still be read from the disk.

use std::io;
use std::path::Path;

use switchback_proxy::health::is_own_want;
use tokio::sync::oneshot;

use super::{Job, Store, copies, database};

impl Store {
    /// Reads the state as whoever starts next would, as far as that can be done beside the open database:
    /// its file, and the copy of the state. None: nobody could look.
    pub async fn look(&self) -> Option<Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        let directory = self.directory.clone();
        let job = Job::Read(Box::new(move |_| {
            let _ = sender.send(look(&directory));
        }));
        self.jobs.try_send(job).ok()?;
        match answer.await.ok()? {
            Ok(()) => Some(Ok(())),
            Err(Flaw::Unseen) => None,
            Err(Flaw::Seen(reason)) => Some(Err(reason)),
        }
    }
}

/// Why the recorded state is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nobody could look: there were no descriptors left, or no memory. That says nothing about the state.
    Unseen,
    /// What is wrong, in words.
    Seen(String),
}

impl Flaw {
    /// A file cannot be read.
    pub(super) fn of(file: &str, error: &io::Error) -> Self {
        match is_own_want(error) {
            true => Self::Unseen,
            false => Self::Seen(format!("read {file}: {error}")),
        }
    }
}

fn look(directory: &Path) -> Result<(), Flaw> {
    database::look(directory)?;
    copies::look(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_is_no_damage() {
        for (code, expected) in [(24, true), (23, true), (5, false), (2, false)] {
            let error = io::Error::from_raw_os_error(code);
            let is_unseen = Flaw::of("state.json", &error) == Flaw::Unseen;
            assert_eq!(is_unseen, expected, "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_said_by_name() {
        let directory = tempfile::tempdir().expect("directory");
        let said = |directory: &Path| match look(directory) {
            Err(Flaw::Seen(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert!(said(directory.path()).starts_with("read state.redb: "));
        std::fs::write(directory.path().join("state.redb"), "no database").expect("written");
        assert_eq!(said(directory.path()), "state.redb is damaged");
    }
}
