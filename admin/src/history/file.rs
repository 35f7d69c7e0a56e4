//! What a new file changed, in sentences for the record.

use switchback_config::diff::Change;

/// Keys of one file change that are named on record; the others are counted.
const NAMED_MAX: usize = 20;

/// Characters of a value on record: weights and addresses are short, whole services are not.
const VALUE_MAX: usize = 120;

/// One sentence for each key that changed.
pub(crate) fn file_notes(changes: &[Change]) -> Vec<String> {
    let named = changes.iter().take(NAMED_MAX).map(|change| {
        let (before, after) = (shown(&change.before), shown(&change.after));
        format!("file: {}: {before} -> {after}", change.path)
    });
    let mut notes: Vec<String> = named.collect();
    if let Some(more) = changes
        .len()
        .checked_sub(NAMED_MAX)
        .filter(|more| *more > 0)
    {
        notes.push(format!("file: and {more} more keys"));
    }
    notes
}

fn shown(value: &serde_json::Value) -> String {
    if value.is_null() {
        return "nothing".into();
    }
    let text = value.to_string();
    if text.chars().count() <= VALUE_MAX {
        return text;
    }
    let mut text: String = text.chars().take(VALUE_MAX).collect();
    text.push_str("...");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_named_up_to_a_bound_and_long_values_are_cut() {
        let change = |index: usize, after: serde_json::Value| Change {
            path: format!("k{index}"),
            before: serde_json::Value::Null,
            after,
        };
        let notes = file_notes(&[change(0, json!(5)), change(1, json!("x".repeat(500)))]);
        assert_eq!(notes[0], "file: k0: nothing -> 5");
        assert_eq!(
            notes[1].len(),
            "file: k1: nothing -> ".len() + VALUE_MAX + 3
        );
        let many: Vec<Change> = (0..=NAMED_MAX)
            .map(|index| change(index, json!(1)))
            .collect();
        let notes = file_notes(&many);
        assert_eq!(notes.len(), NAMED_MAX + 1);
        assert_eq!(notes[NAMED_MAX], "file: and 1 more keys");
        assert_eq!(file_notes(&many[..NAMED_MAX]).len(), NAMED_MAX);
    }
}
