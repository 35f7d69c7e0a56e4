//! What is said about the database behind a service, and how many earlier versions are kept for it.

use super::{require, values};
use crate::decode::{Context, Spanned};
use crate::defaults;
use crate::diagnostic::Code;
use crate::model::{Database, SchemaSupport};
use crate::raw;
use crate::units::TimeSpan;

/// Reads the database of a service.
pub(super) fn database(written: Option<&Spanned<raw::Database>>, cx: &Context<'_>) -> Database {
    let mut database = Database::default();
    let Some(raw) = written.map(|written| &written.value) else {
        return database;
    };
    if let Some(after) = &raw.contract_after {
        let (least, most) = defaults::CONTRACT_AFTER_BOUNDS;
        if !(least..=most).contains(&after.value.0) {
            let reason = "too short to be sure that nobody goes back, or longer than anybody waits";
            let repair = format!("use {} to {}", TimeSpan(least), TimeSpan(most));
            cx.error(Code::OutOfRange, after, reason, repair);
        }
        database.contract_after = after.value;
    }
    if let Some(command) = &raw.reverse_command {
        check_text(command, cx);
        database.reverse_command = Some(command.value.clone());
    }
    if let Some(checklist) = &raw.checklist {
        let most = defaults::CHECKLIST_MAX;
        if checklist.value.len() > most {
            let reason = "nobody goes through a list of this length in an incident";
            cx.error(
                Code::TooLarge,
                checklist,
                reason,
                format!("list at most {most}"),
            );
        }
        checklist.value.iter().for_each(|item| check_text(item, cx));
        database.checklist = values(Some(checklist));
    }
    database
}

fn check_text(text: &Spanned<String>, cx: &Context<'_>) {
    let most = defaults::DATABASE_TEXT_CHARS_MAX;
    if text.value.trim().is_empty() || text.value.chars().count() > most {
        let reason = "this is to be read by somebody in an incident";
        let repair = format!("write 1 to {most} characters");
        cx.error(Code::InvalidValue, text, reason, repair);
    }
}

/// Reads which schemas a version can live with.
pub(super) fn schema(
    written: &Spanned<raw::SchemaSupport>,
    cx: &Context<'_>,
) -> Option<SchemaSupport> {
    let reads = require(written, written.value.reads.as_ref(), "reads", cx);
    let writes = require(written, written.value.writes.as_ref(), "writes", cx);
    let (reads, writes) = (reads?, writes?);
    super::check_unique(&reads.value, "schema version", cx);
    let support = SchemaSupport {
        reads: values(Some(reads)),
        writes: writes.value,
    };
    if let Some((reason, repair)) = support.fault() {
        cx.error(Code::Contradiction, written, reason, repair);
    }
    Some(support)
}

/// Reads how many earlier stable versions have to stay reachable.
pub(super) fn retain(written: Option<&Spanned<u32>>, cx: &Context<'_>) -> u32 {
    let Some(written) = written else { return 0 };
    let most = defaults::RETAIN_MAX;
    if written.value > most {
        let reason = "nobody goes so far back";
        cx.error(
            Code::OutOfRange,
            written,
            reason,
            format!("use 0 to {most}"),
        );
    }
    written.value
}
