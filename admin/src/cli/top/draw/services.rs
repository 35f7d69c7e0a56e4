//! A line for each service: who gets how much, how it does, and what somebody should look at.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;

use super::grid::{Cell, Column, grid, measure};
use super::paint::Paint;
use super::words;
use crate::cli::top::facts;
use crate::cli::top::screen::Screen;

const COLUMNS: [Column; 8] = [
    Column::text("SERVICE", 0),
    Column::text("STATE", 0),
    Column::text("SPLIT", 0),
    Column::number("REQ/S", 2),
    Column::number("ERRORS", 1),
    Column::number("P50", 5),
    Column::number("P99", 4),
    Column::number("EVIDENCE", 3),
];

/// What stands before the chosen one, and before the others.
const MARKS: [&str; 2] = ["> ", "  "];

/// Draws as many services as fit, the chosen one among them.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, area: Rect) {
    let found = screen.found();
    if found.is_empty() {
        let why = match screen.search.is_empty() {
            true => "no service is configured".to_owned(),
            false => format!("no service has {:?} in it; Esc shows all", screen.search),
        };
        return frame.render_widget(Paragraph::new(why), area);
    }
    let rows: Vec<Vec<Cell>> = found
        .iter()
        .map(|service| row(screen, service, paint))
        .collect();
    let width = usize::from(area.width).saturating_sub(MARKS[0].len());
    let mut lines = grid(&COLUMNS, &rows, width, paint.strong()).into_iter();
    let is_chosen =
        |service: &&Value| Some(facts::word(&service["name"])) == screen.chosen.as_deref();
    let chosen = found.iter().position(is_chosen).unwrap_or(0);
    let room = usize::from(area.height).saturating_sub(1).max(1);
    // The chosen one is in the middle, except near the ends.
    let first = chosen
        .saturating_sub(room / 2)
        .min(rows.len().saturating_sub(room));
    let mut shown: Vec<Line<'static>> = lines
        .next()
        .map(|head| marked(MARKS[1], head))
        .into_iter()
        .collect();
    for (index, line) in lines.enumerate().skip(first).take(room) {
        shown.push(match index == chosen {
            true => {
                let mut line = marked(MARKS[0], line);
                let rest = usize::from(area.width).saturating_sub(measure(&line.to_string()));
                line.push_span(Span::raw(" ".repeat(rest)));
                line.patch_style(paint.chosen())
            }
            false => marked(MARKS[1], line),
        });
    }
    frame.render_widget(Paragraph::new(shown), area);
}

fn marked(mark: &'static str, mut line: Line<'static>) -> Line<'static> {
    line.spans.insert(0, Span::raw(mark));
    line
}

fn row(screen: &Screen, service: &Value, paint: Paint) -> Vec<Cell> {
    let gain = screen.paces.of_service(service);
    let gain = gain.as_ref();
    let concerns = facts::concerns(service);
    let (level, words) = concerns
        .first()
        .cloned()
        .unwrap_or((facts::Level::Well, String::new()));
    let more = match concerns.len() {
        0 | 1 => String::new(),
        count => format!(" +{}", count - 1),
    };
    vec![
        Cell::from(facts::word(&service["name"])),
        Cell(format!("{}{words}{more}", level.mark()), paint.level(level)),
        Cell::from(split(service)),
        Cell::from(words::rate(gain)),
        Cell::from(words::errors(gain)),
        Cell::from(words::quantile(gain, 0.5)),
        Cell::from(words::quantile(gain, 0.99)),
        Cell::from(words::evidence(facts::nearest_evidence(service))),
    ]
}

/// Who gets how much, those without weight left out.
fn split(service: &Value) -> String {
    let backends = facts::backends(service).filter(|(_, backend)| backend["weight"] != 0);
    let parts = backends.map(|(name, backend)| {
        let share = backend["share"].as_f64().unwrap_or(0.0);
        format!("{name} {}", words::share(share))
    });
    parts.collect::<Vec<_>>().join(" ")
}
