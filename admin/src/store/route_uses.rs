//! When routes were last used, on disk: rows that nothing waits for, and that no revision is about.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::database::{Database, text};
use super::{Store, seal, unseal};

/// Milliseconds since 1970, by what a route matches.
const ROUTE_USES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("route_uses");

impl Store {
    /// When routes were last used, as far as it was written down.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn route_uses(&self) -> Result<Vec<(String, u64)>, String> {
        self.read(Database::route_uses).await
    }

    /// Writes when routes were last used, and forgets those of before `oldest_ms`.
    ///
    /// # Errors
    /// When the disk or the store does not take it.
    pub(crate) async fn note_route_uses(
        &self,
        rows: BTreeMap<String, u64>,
        oldest_ms: u64,
    ) -> Result<(), String> {
        self.read(move |database| database.note_route_uses(&rows, oldest_ms))
            .await
    }
}

impl Database {
    fn route_uses(&self) -> Result<Vec<(String, u64)>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(ROUTE_USES) else {
            return Ok(Vec::new());
        };
        let rows = table.iter().map_err(text)?;
        let rows = rows.map(|row| {
            let (key, last_ms) = row.map_err(text)?;
            Ok((key.value().to_owned(), unseal(last_ms.value())?))
        });
        rows.collect()
    }

    fn note_route_uses(&self, rows: &BTreeMap<String, u64>, oldest_ms: u64) -> Result<(), String> {
        self.write(|write| {
            let mut table = write.open_table(ROUTE_USES).map_err(text)?;
            for (key, last_ms) in rows {
                table.insert(&key[..], &seal(last_ms)?[..]).map_err(text)?;
            }
            let is_recent = |row: &[u8]| unseal::<u64>(row).is_ok_and(|last| last >= oldest_ms);
            table.retain(|_, row| is_recent(row)).map_err(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    #[test]
    fn uses_are_kept_until_they_are_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(directory.path()).expect("opened");
        assert!(ask(store.route_uses()).expect("read").is_empty());
        let rows = BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 20)]);
        ask(store.note_route_uses(rows, 0)).expect("written");
        let rows = BTreeMap::from([("b".to_owned(), 30)]);
        ask(store.note_route_uses(rows, 15)).expect("written");
        store.stop(std::time::Duration::from_secs(10));
        let (store, _) = Store::open(directory.path()).expect("opened");
        assert_eq!(
            ask(store.route_uses()).expect("read"),
            [("b".to_owned(), 30)]
        );
    }
}
