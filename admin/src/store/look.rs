//! Whether the recorded state can still be read from the disk.

use std::path::Path;

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
        answer.await.ok()
    }
}

fn look(directory: &Path) -> Result<(), String> {
    database::look(directory)?;
    copies::look(directory)
}
