//! What stands in front of everything: help, and questions before something is done.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use serde_json::Value;

use super::grid::measure;
use super::paint::Paint;
use crate::cli::top::facts::{self, Level};
use crate::cli::top::feed::{Act, Order};
use crate::cli::top::screen::{Mode, Screen};
use crate::cli::verbs::text;

const HELP: [&str; 16] = [
    "up down j k    choose a service; scroll in its details",
    "PgUp PgDn      ten at a time",
    "g G            the first, the last",
    "Enter          details on the whole screen, and back",
    "/              search: names, backends, versions, states",
    "Esc            show all again",
    "r              roll back: shows what it would do, and asks",
    "p              pause the rollout, or let it go on",
    "q              quit",
    "",
    "!!  users may be hurt now     !  somebody should look",
    "REQ/S, ERRORS, P50, P99       of the last 10 s",
    "ERRORS    5xx, connect, timeout, reset",
    "EVIDENCE  the judge rolls back at 1",
    "-         not known, or no requests",
    "+1        more of it in the details",
];

/// Widest box.
const WIDTH_MAX: u16 = 76;

/// Draws what is in front, if anything is.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, body: Rect) {
    let (title, lines) = match &screen.mode {
        Mode::Look | Mode::Search => return,
        Mode::Help => help(),
        Mode::Asking(order) => (
            heading(order),
            vec![Line::raw("asking what it would do...")],
        ),
        Mode::Confirm(order, plan) => confirm(order, plan, paint),
        Mode::Doing(order) => (heading(order), vec![Line::raw("being done...")]),
        Mode::Refused(order, why) => refused(order, why, paint),
    };
    let width = body.width.min(WIDTH_MAX);
    let height = height(&lines, width).saturating_add(2).min(body.height);
    let area = body.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered()
        .title(format!(" {title} "))
        .title_style(paint.strong());
    let inside = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

/// Lines on the screen once they are wrapped: at words, which may take one more than the cells need.
fn height(lines: &[Line<'_>], width: u16) -> u16 {
    let width = usize::from(width).saturating_sub(2).max(1);
    let rows = lines.iter().map(|line| {
        let cells = measure(&line.to_string());
        cells.div_ceil(width).max(1) + usize::from(cells > width)
    });
    u16::try_from(rows.sum::<usize>()).unwrap_or(u16::MAX)
}

fn help() -> (String, Vec<Line<'static>>) {
    let lines = HELP.iter().map(|line| Line::raw(*line));
    ("keys, marks and columns".into(), lines.collect())
}

fn heading(order: &Order) -> String {
    let Order { service, act } = order;
    match act {
        Act::Rollback => format!("roll back {service}?"),
        Act::Pause => format!("pause the rollout of {service}?"),
        Act::Resume => format!("let the rollout of {service} go on?"),
    }
}

fn confirm(order: &Order, plan: &Value, paint: Paint) -> (String, Vec<Line<'static>>) {
    if plan["changed"] == false {
        let words = format!("{}: nothing would change", order.service);
        let lines = vec![Line::raw(words), Line::raw(""), Line::raw("Esc  back")];
        return (heading(order), lines);
    }
    let diff = facts::word(&plan["diff"]).lines();
    let mut lines: Vec<Line<'static>> = diff
        .map(|line| Line::styled(line.to_owned(), paint.strong()))
        .collect();
    let notes = facts::list(&plan["notes"]).iter();
    lines.extend(notes.map(|note| Line::raw(text(note))));
    lines.push(Line::raw(""));
    lines.push(Line::raw("y  do it      Esc  leave it"));
    (heading(order), lines)
}

fn refused(order: &Order, why: &str, paint: Paint) -> (String, Vec<Line<'static>>) {
    let again = format!(
        "The same by hand: switchback {} {}",
        order.act.verb(),
        order.service
    );
    let lines = vec![
        Line::styled(format!("!! {why}"), paint.level(Level::Alarm)),
        Line::raw(""),
        Line::raw(again),
        Line::raw("any key  back"),
    ];
    (format!("{}: it was not done", order.service), lines)
}
