//! Rows and columns that fit: where there is too little room, columns go, the least important first, and
//! then texts are cut.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Between two columns.
const GAP: usize = 2;

/// A text is not cut below this.
const TEXT_MIN: usize = 8;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    kind: Kind,
    /// 0: it stays. Otherwise it goes when there is no room, the highest first.
    spare: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On the left, cut where it is too long.
    Text,
    /// On the right, never cut: half a number is a wrong one.
    Number,
}

impl Column {
    /// A column of words.
    pub(super) const fn text(head: &'static str, spare: u8) -> Self {
        let kind = Kind::Text;
        Self { head, kind, spare }
    }

    /// A column of numbers.
    pub(super) const fn number(head: &'static str, spare: u8) -> Self {
        let kind = Kind::Number;
        Self { head, kind, spare }
    }
}

/// A text and how it looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell(pub(super) String, pub(super) Style);

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text, Style::new())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// The head and the rows as lines of at most `width`.
pub(super) fn grid(
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: usize,
    head: Style,
) -> Vec<Line<'static>> {
    let widths = widths(columns, rows, width);
    let heads = columns.iter().map(|column| (column.head, head));
    let mut lines = vec![line(columns, &widths, heads)];
    lines.extend(rows.iter().map(|row| {
        let cells = row.iter().map(|Cell(text, style)| (text.as_str(), *style));
        line(columns, &widths, cells)
    }));
    lines
}

fn line<'a>(
    columns: &[Column],
    widths: &[Option<usize>],
    cells: impl Iterator<Item = (&'a str, Style)>,
) -> Line<'static> {
    let mut spans: Vec<Span<'static>> = Vec::new();
    for ((column, width), (text, style)) in columns.iter().zip(widths).zip(cells) {
        let Some(width) = *width else { continue };
        if !spans.is_empty() {
            spans.push(" ".repeat(GAP).into());
        }
        let text = cut(text, width);
        let room = " ".repeat(width.saturating_sub(measure(&text)));
        match column.kind {
            Kind::Text => spans.extend([Span::styled(text, style), room.into()]),
            Kind::Number => spans.extend([room.into(), Span::styled(text, style)]),
        }
    }
    Line::from(spans)
}

/// How wide each column is; nothing for those that go.
fn widths(columns: &[Column], rows: &[Vec<Cell>], width: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let longest = cells.map(|Cell(text, _)| measure(text)).max().unwrap_or(0);
        widths.push(Some(longest.max(measure(column.head))));
    }
    while total(&widths) > width {
        let spare = |index: &usize| columns[*index].spare;
        let there = (0..columns.len()).filter(|index| widths[*index].is_some() && spare(index) > 0);
        match there.max_by_key(spare) {
            Some(index) => widths[index] = None,
            None => break,
        }
    }
    while total(&widths) > width {
        let texts = (0..columns.len()).filter(|index| columns[*index].kind == Kind::Text);
        let widest = texts
            .filter_map(|index| Some((widths[index]?, index)))
            .max();
        match widest {
            Some((longest, index)) if longest > TEXT_MIN => widths[index] = Some(longest - 1),
            _ => break,
        }
    }
    widths
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    let (sum, count) = shown.fold((0, 0), |(sum, count), width| (sum + width, count + 1_usize));
    sum + GAP * count.saturating_sub(1)
}

/// Cells of a screen that a text takes.
pub(super) fn measure(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text that is no wider; one that was says so.
pub(super) fn cut(text: &str, width: usize) -> String {
    if measure(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        if measure(&cut) + measure(character.encode_utf8(&mut [0; 4])) >= width {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("NAME", 0),
        Column::number("A", 0),
        Column::number("SPARE", 1),
        Column::number("SPARER", 2),
    ];

    fn lines(width: usize) -> Vec<String> {
        let row = |cells: [&str; 4]| cells.map(Cell::from).to_vec();
        let rows = [
            row(["a", "1", "2", "3"]),
            row(["a-long-name-indeed", "10", "20", "30"]),
        ];
        let lines = grid(&COLUMNS, &rows, width, Style::new());
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_is_shown_where_there_is_room() {
        assert_eq!(
            lines(37),
            [
                "NAME                 A  SPARE  SPARER",
                "a                    1      2       3",
                "a-long-name-indeed  10     20      30",
            ]
        );
    }

    #[test]
    fn spare_columns_go_first_and_then_texts_are_cut() {
        assert_eq!(lines(36)[2], "a-long-name-indeed  10     20");
        assert_eq!(lines(29)[2], "a-long-name-indeed  10     20");
        assert_eq!(lines(28)[2], "a-long-name-indeed  10");
        assert_eq!(lines(21)[2], "a-long-name-inde…  10");
        assert_eq!(lines(1)[2], "a-long-…  10", "numbers stay whole");
    }

    #[test]
    fn wide_characters_are_measured_as_they_are_drawn() {
        assert_eq!(measure("版本"), 4);
        assert_eq!(cut("版本一二", 5), "版本…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
