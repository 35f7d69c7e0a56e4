//! What was seen and measured: when versions last got requests, and how fast each way back was. Neither is
//! state: nothing is decided anew if it is lost, only waited for longer.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use switchback_config::defaults::TIMINGS_KEPT;

use super::{Database, seal, text, unseal};
use crate::sightings::{Record, Sighting};
use crate::timings::Timing;

/// The last requests by service and version, apart by a blank; without a name, since when anybody looks.
const SIGHTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sightings");
/// Measured times by service and way back, apart by a blank.
const TIMINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("timings");

/// Row of [`SIGHTINGS`] that is about none of them: services have names.
const SINCE: &str = "";

impl Database {
    /// The last requests of all versions.
    pub(in crate::store) fn sightings(&self) -> Result<Record, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(SIGHTINGS) else {
            return Ok(Record::default());
        };
        let mut record = Record::default();
        for row in table.iter().map_err(text)? {
            let (key, row) = row.map_err(text)?;
            match key.value().split_once(' ') {
                None => record.since = unseal(row.value())?,
                Some((service, version)) => {
                    let sighting: Sighting = unseal(row.value())?;
                    let versions = record.versions.entry(service.into()).or_default();
                    versions.insert(version.into(), sighting);
                }
            }
        }
        Ok(record)
    }

    /// Makes these the last requests.
    pub(in crate::store) fn save_sightings(&self, record: &Record) -> Result<(), String> {
        self.write(|write| {
            let mut table = write.open_table(SIGHTINGS).map_err(text)?;
            let since = seal(&record.since)?;
            table.insert(SINCE, &since[..]).map_err(text)?;
            for (service, versions) in &record.versions {
                for (version, sighting) in versions {
                    let key = format!("{service} {version}");
                    let row = seal(sighting)?;
                    table.insert(&key[..], &row[..]).map_err(text)?;
                }
            }
            let is_kept = |key: &str| {
                key.split_once(' ').is_none_or(|(service, version)| {
                    let versions = record.versions.get(service);
                    versions.is_some_and(|versions| versions.contains_key(version))
                })
            };
            table.retain(|key, _| is_kept(key)).map_err(text)
        })
    }

    /// The times of all ways back of a service, by way.
    pub(in crate::store) fn timings(&self, service: &str) -> Result<Vec<(String, Timing)>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(TIMINGS) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for row in table.iter().map_err(text)? {
            let (key, row) = row.map_err(text)?;
            let Some((of, way)) = key.value().split_once(' ') else {
                continue;
            };
            if of == service {
                let timings: Vec<Timing> = unseal(row.value())?;
                found.extend(timings.into_iter().map(|timing| (way.to_owned(), timing)));
            }
        }
        Ok(found)
    }

    /// Adds a time, and drops the oldest beyond those that are kept.
    pub(in crate::store) fn add_timing(
        &self,
        service: &str,
        way: &str,
        timing: &Timing,
    ) -> Result<(), String> {
        self.write(|write| add(write, &format!("{service} {way}"), timing))
    }
}

fn add(write: &WriteTransaction, key: &str, timing: &Timing) -> Result<(), String> {
    let mut table = write.open_table(TIMINGS).map_err(text)?;
    let mut timings: Vec<Timing> = match table.get(key).map_err(text)? {
        // A damaged row is begun anew.
        Some(row) => unseal(row.value()).unwrap_or_default(),
        None => Vec::new(),
    };
    timings.push(timing.clone());
    let excess = timings.len().saturating_sub(TIMINGS_KEPT);
    timings.drain(..excess);
    table.insert(key, &seal(&timings)?[..]).map_err(text)?;
    Ok(())
}
