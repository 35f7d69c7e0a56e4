//! What is seen, written down: a line that says where one is, services, details of the one that is chosen,
//! and a line that says what keys do. The time is a parameter, and the same screen is always drawn alike.

mod detail;
mod dialog;
mod grid;
mod paint;
mod services;
mod words;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};
use serde_json::Value;

use super::facts::{self, Level};
use super::screen::{Mode, Screen};
use crate::cli::look::time;
use crate::cli::verbs::text;
pub(super) use paint::Paint;

/// From here on there is room for details below the services.
const HEIGHT_FOR_DETAILS: u16 = 18;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, now: Timestamp) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = rows.areas(frame.area());
    let width = usize::from(head.width);
    frame.render_widget(
        Paragraph::new(headline(screen, now, width)).style(paint.edge()),
        head,
    );
    match &screen.link.lost {
        Some(cause) => draw_lost(frame, screen, cause, paint, now, body),
        None => draw_body(frame, screen, paint, body),
    }
    frame.render_widget(
        Paragraph::new(footline(screen, width)).style(paint.edge()),
        foot,
    );
    dialog::draw(frame, screen, paint, body);
}

fn draw_body(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, body: Rect) {
    if screen.is_open {
        return draw_details(frame, screen, paint, body);
    }
    if body.height < HEIGHT_FOR_DETAILS {
        return services::draw(frame, screen, paint, body);
    }
    // A head, and a line for each service; half of the room at most.
    let wanted = u16::try_from(screen.found().len() + 1).unwrap_or(u16::MAX);
    let above = wanted.clamp(2, body.height / 2);
    let areas = Layout::vertical([
        Constraint::Length(above),
        Constraint::Length(1),
        Constraint::Fill(1),
    ]);
    let [table, rule, details] = areas.areas(body);
    services::draw(frame, screen, paint, table);
    let name = screen.chosen.as_deref().unwrap_or_default();
    let title = format!("── {name} {}", "─".repeat(usize::from(rule.width)));
    frame.render_widget(Paragraph::new(title).style(paint.faint()), rule);
    draw_details(frame, screen, paint, details);
}

fn draw_details(frame: &mut Frame<'_>, screen: &Screen, paint: Paint, area: Rect) {
    let lines = match screen.chosen() {
        Some(service) => detail::lines(screen, service, paint, usize::from(area.width)),
        None => vec![Line::raw("no service is chosen")],
    };
    let scroll = match screen.is_open {
        true => screen.scroll.min(
            u16::try_from(lines.len())
                .unwrap_or(u16::MAX)
                .saturating_sub(1),
        ),
        false => 0,
    };
    let details = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(details.scroll((scroll, 0)), area);
}

/// Instead of numbers that are not so any more.
fn draw_lost(
    frame: &mut Frame<'_>,
    screen: &Screen,
    cause: &str,
    paint: Paint,
    now: Timestamp,
    area: Rect,
) {
    let seen = screen.link.seen;
    let ago = words::ago(now.duration_since(seen).as_secs());
    let since = format!("!! disconnected since {} ({ago})", clock(seen));
    let lines = vec![
        Line::raw(""),
        Line::styled(since, paint.level(Level::Alarm)),
        Line::raw(""),
        Line::raw(cause.to_owned()),
        Line::raw(""),
        Line::raw("Nothing is shown, because it may not be so any more. Trying again."),
    ];
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn clock(at: Timestamp) -> String {
    time(&Value::String(at.to_string()))
}

/// Where one is, and how many services somebody should look at.
fn headline(screen: &Screen, now: Timestamp, width: usize) -> String {
    let at = now.strftime("%H:%M:%SZ").to_string();
    let services = screen.services();
    let worst = services.iter().map(|service| {
        let worst = facts::concerns(service).into_iter().next();
        worst.map_or(Level::Well, |(level, _)| level)
    });
    let needy: Vec<Level> = worst.filter(|level| *level >= Level::Attention).collect();
    let state = match &screen.link.lost {
        Some(_) => "disconnected".to_owned(),
        None => {
            let needy = match needy.iter().max() {
                None => String::new(),
                Some(worst) => format!(", {}{} to look at", worst.mark(), needy.len()),
            };
            let lost = match screen.answer["stable_only"] == true {
                true => ", !! state lost: stable only, until switchback acknowledge",
                false => "",
            };
            let (count, s) = (services.len(), if services.len() == 1 { "" } else { "s" });
            format!(
                "{count} service{s}{needy}{lost}, revision {}",
                text(&screen.answer["revision"])
            )
        }
    };
    let room = width.saturating_sub(at.len() + 2);
    let left = grid::cut(
        &format!(" switchback top  {state}  {}", screen.server),
        room,
    );
    let gap = " ".repeat(width.saturating_sub(grid::measure(&left) + at.len() + 1));
    format!("{left}{gap}{at}")
}

/// What keys do now, or what came of the last order.
fn footline(screen: &Screen, width: usize) -> String {
    let line = match (&screen.mode, &screen.said) {
        (Mode::Search, _) => format!(" /{}_   Enter keeps it, Esc ends it", screen.search),
        (_, Some(said)) => format!(" {said}"),
        _ if screen.is_open => {
            " ? help  j k scroll  r rollback  p pause  Enter back  q quit".into()
        }
        _ if !screen.search.is_empty() => {
            format!(
                " only with /{}   Esc shows all  r rollback  p pause  ? help",
                screen.search
            )
        }
        _ => " ? help  j k choose  / search  Enter details  r rollback  p pause  q quit".into(),
    };
    grid::cut(&line, width)
}
