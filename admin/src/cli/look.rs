//! How things look in a terminal: one kind of table, one way to write numbers and times.

use comfy_table::{
    Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets,
};
use serde_json::Value;

use super::args::Color;
use super::verbs::text;

impl Color {
    /// Makes it so for all that is printed from now on.
    pub(super) fn choose(self) {
        match self {
            // On a terminal, unless NO_COLOR is set.
            Self::Auto => {}
            Self::Always => anstream::ColorChoice::Always.write_global(),
            Self::Never => anstream::ColorChoice::Never.write_global(),
        }
    }
}

/// A table as wide as the terminal at most. Whether its colours are seen is decided where it is printed.
pub(super) fn table(heads: &[&str]) -> Table {
    let heads = heads.iter();
    let heads = heads.map(|head| Cell::new(head).add_attribute(Attribute::Bold));
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .enforce_styling()
        .set_header(heads);
    table
}

/// Aligns columns of numbers.
pub(super) fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Leaves columns out, one after the other, until the rest fits the terminal. Elsewhere there is room.
pub(super) fn spare(table: &mut Table, columns: &[usize]) {
    let Some(width) = table.width() else { return };
    let widths = table.column_max_content_widths();
    let padded = |width: &u16| usize::from(*width) + 2;
    let mut total: usize = widths.iter().map(padded).sum();
    for index in columns {
        if total <= usize::from(width) {
            return;
        }
        if let Some(column) = table.column_mut(*index) {
            column.set_constraint(ColumnConstraint::Hidden);
            total -= widths.get(*index).map_or(0, padded);
        }
    }
}

/// A whole number with its thousands set apart.
pub(super) fn grouped(value: &Value) -> String {
    let Some(number) = value.as_u64() else {
        return text(value);
    };
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A part of 1 in percent. What is not nothing does not look like nothing.
pub(super) fn percent(value: &Value) -> String {
    let percent = value.as_f64().unwrap_or(0.0) * 100.0;
    if percent > 0.0 && percent < 0.1 {
        format!("{percent:.2}%")
    } else {
        format!("{percent:.1}%")
    }
}

/// A time to the second, in UTC like everything that is logged.
pub(super) fn time(value: &Value) -> String {
    let text = text(value);
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => text,
    }
}

/// Microseconds as people say it.
pub(super) fn microseconds(value: &Value) -> String {
    match value.as_u64() {
        Some(us) if us < 1_000 => format!("{us} us"),
        Some(us) if us < 1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        Some(us) => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        None => text(value),
    }
}

/// Where a write is in force, and since when.
pub(super) fn everywhere(answer: &Value) -> String {
    let here = microseconds(&answer["applied_in_us"]);
    match on_all(answer) {
        None => format!("everywhere after {here}"),
        Some(on_all) => format!("here after {here}{on_all}"),
    }
}

/// On how many instances a write is in force; none: nothing is said of others.
pub(super) fn on_all(answer: &Value) -> Option<String> {
    let slowest = text(&answer["slowest_ms"]);
    match answer["of"].as_u64()? {
        1 => Some(", on the only instance".into()),
        of => Some(format!(", on all {of} instances after {slowest} ms")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_left_out_until_the_rest_fits() {
        let heads = |width: u16| {
            let mut table = table(&["ONE", "TWO", "THREE"]);
            table.set_width(width).add_row(vec!["1", "2", "3"]);
            spare(&mut table, &[2, 0]);
            table
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let shown = [17, 16, 10, 9].map(|width| {
            let line = anstream::adapter::strip_str(&heads(width)).to_string();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown, ["ONE TWO THREE", "ONE TWO", "ONE TWO", "TWO"]);
    }

    #[test]
    fn answer_says_on_how_many_instances_it_is_in_force() {
        let mut answer = json!({"applied_in_us": 83});
        assert_eq!(everywhere(&answer), "everywhere after 83 us");
        answer["applied"] = 3.into();
        answer["of"] = 3.into();
        answer["slowest_ms"] = 9.into();
        let said = "here after 83 us, on all 3 instances after 9 ms";
        assert_eq!(everywhere(&answer), said);
        answer["of"] = 1.into();
        let said = "here after 83 us, on the only instance";
        assert_eq!(everywhere(&answer), said);
    }

    #[test]
    fn numbers_are_written_for_people() {
        let written = |number: u64| grouped(&number.into());
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(written),
            ["0", "999", "1,000", "1,234,567"]
        );
        let share = |share: f64| percent(&share.into());
        assert_eq!(
            [0.0, 0.000_5, 0.001, 0.05, 1.0].map(share),
            ["0.0%", "0.05%", "0.1%", "5.0%", "100.0%"]
        );
        let took = |us: u64| microseconds(&us.into());
        assert_eq!(
            [9, 999, 1_000, 1_550, 2_340_000].map(took),
            ["9 us", "999 us", "1.0 ms", "1.5 ms", "2.3 s"]
        );
        assert_eq!(
            time(&"2026-01-02T03:04:05.678Z".into()),
            "2026-01-02 03:04:05Z"
        );
        assert_eq!(time(&Value::Null), "");
    }
}
