//! What was seen and measured, on its way to the disk and back.

use super::database::Database;
use super::{Job, Store};
use crate::sightings::Record;
use crate::timings::{Timing, Way};

impl Store {
    /// The last requests of all versions, as a former process has written them.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn sightings(&self) -> Result<Record, String> {
        self.read(Database::sightings).await
    }

    /// Writes the last requests of all versions.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn save_sightings(&self, record: Record) -> Result<(), String> {
        self.change(move |database| database.save_sightings(&record))
            .await
    }

    /// How long each way back of a service took.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn timings(&self, service: String) -> Result<Vec<(Way, Timing)>, String> {
        let found = self
            .read(move |database| database.timings(&service))
            .await?;
        let known = found.into_iter();
        Ok(known
            .filter_map(|(way, timing)| Some((Way::parse(&way)?, timing)))
            .collect())
    }

    /// Notes how long a way back took. Lost if the disk does not keep up: there will be others.
    pub(crate) fn add_timing(&self, service: &str, way: Way, timing: Timing) {
        let service = service.to_owned();
        let _ = self.jobs.try_send(Job::Write(Box::new(move |database, _| {
            database.add_timing(&service, way.as_str(), &timing).is_ok()
        })));
    }
}
