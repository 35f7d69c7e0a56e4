//! Everything about one service.

use ratatui::text::{Line, Span};
use serde_json::Value;

use super::grid::{Cell, Column, grid};
use super::paint::Paint;
use super::words;
use crate::cli::look::{grouped, time};
use crate::cli::rollout::standing;
use crate::cli::top::facts::{self, Level};
use crate::cli::top::screen::Screen;
use crate::cli::verbs::text;

const COLUMNS: [Column; 12] = [
    Column::text("BACKEND", 0),
    Column::text("VERSION", 0),
    Column::text("ROLE", 4),
    Column::number("WEIGHT", 9),
    Column::number("SHARE", 0),
    Column::text("HEALTH", 0),
    Column::number("IN FLIGHT", 8),
    Column::number("REQ/S", 1),
    Column::number("ERRORS", 2),
    Column::number("P50", 6),
    Column::number("P99", 5),
    Column::number("EVIDENCE", 3),
];

/// What a backend's part of a bar is made of.
const FILLS: [char; 4] = ['█', '░', '▓', '▒'];

/// Longest bar.
const BAR_MAX: usize = 60;

/// Cells of a gauge of evidence.
const GAUGE: usize = 10;

/// The lines about a service.
pub(super) fn lines(
    screen: &Screen,
    service: &Value,
    paint: Paint,
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![title(service, paint)];
    lines.extend(split(service, width));
    lines.push(Line::raw(""));
    lines.extend(backends(screen, service, paint, width));
    lines.push(Line::raw(""));
    about_endpoints(service, paint, &mut lines);
    about_judges(service, paint, &mut lines);
    about_rollout(service, paint, &mut lines);
    about_blocks(service, paint, &mut lines);
    about_rules(service, paint, &mut lines);
    about_conflicts(service, paint, &mut lines);
    lines.push(incident(screen, service, paint));
    lines
}

/// A line that begins with what it is about.
fn line(about: &'static str, level: Level, words: String, paint: Paint) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{about:<10}"), paint.faint()),
        Span::styled(format!("{}{words}", level.mark()), paint.level(level)),
    ])
}

fn plain(about: &'static str, words: String, paint: Paint) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{about:<10}"), paint.faint()),
        Span::raw(words),
    ])
}

fn title(service: &Value, paint: Paint) -> Line<'static> {
    let mut spans = vec![
        Span::styled(text(&service["name"]), paint.strong()),
        Span::raw(format!("  stable {}", text(&service["stable"]))),
    ];
    if let Some(previous) = service["previous"].as_str() {
        spans.push(Span::raw(format!(", previous {previous}")));
    }
    if let Some(trial) = service["on_trial"]["backend"].as_str() {
        let until = time(&service["on_trial"]["until"]);
        spans.push(Span::raw(format!(", {trial} on trial until {until}")));
    }
    Line::from(spans)
}

/// The shares as a bar, and whose part is which. What is not nothing has a cell at least.
fn split(service: &Value, width: usize) -> Vec<Line<'static>> {
    let length = width.saturating_sub(2).clamp(1, BAR_MAX);
    let parts: Vec<(char, &str, f64)> = facts::backends(service)
        .map(|(name, backend)| (name, backend["share"].as_f64().unwrap_or(0.0)))
        .filter(|(_, share)| *share > 0.0)
        .enumerate()
        .map(|(index, (name, share))| (FILLS[index % FILLS.len()], name, share))
        .collect();
    let mut bar = String::new();
    let mut left = length;
    for (index, (fill, _, share)) in parts.iter().enumerate() {
        let after = parts.len() - 1 - index;
        let wanted = cells(*share, length).max(1);
        let wanted = if after == 0 {
            left
        } else {
            wanted.min(left.saturating_sub(after))
        };
        bar.extend(std::iter::repeat_n(*fill, wanted));
        left -= wanted.min(left);
    }
    let legend = parts.iter();
    let legend =
        legend.map(|(fill, name, share)| format!("{fill} {name} {}", words::share(*share)));
    vec![
        Line::raw(bar),
        Line::raw(legend.collect::<Vec<_>>().join("   ")),
    ]
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between nothing and the length of a bar"
)]
fn cells(part: f64, length: usize) -> usize {
    (part.clamp(0.0, 1.0) * length as f64).round() as usize
}

fn backends(screen: &Screen, service: &Value, paint: Paint, width: usize) -> Vec<Line<'static>> {
    let name = facts::word(&service["name"]);
    let row = |(backend, view): (&str, &Value)| {
        let gain = screen.paces.of(name, backend);
        let gain = gain.as_ref();
        let (healthy, all) = facts::healthy(view);
        let health = facts::word(&view["health"]);
        let role = match view["blocked"].is_null() {
            true => Cell::from(facts::word(&view["role"])),
            false => Cell(
                format!("{}, blocked", facts::word(&view["role"])),
                paint.level(Level::Attention),
            ),
        };
        vec![
            Cell(backend.to_owned(), paint.strong()),
            Cell::from(facts::word(&view["version"])),
            role,
            Cell::from(grouped(&view["weight"])),
            Cell::from(words::share(view["share"].as_f64().unwrap_or(0.0))),
            Cell(format!("{health} {healthy}/{all}"), paint.health(health)),
            Cell::from(grouped(&view["in_flight"])),
            Cell::from(words::rate(gain)),
            Cell::from(words::errors(gain)),
            Cell::from(words::quantile(gain, 0.5)),
            Cell::from(words::quantile(gain, 0.99)),
            Cell::from(words::evidence(facts::evidence(service, backend))),
        ]
    };
    let rows: Vec<Vec<Cell>> = facts::backends(service).map(row).collect();
    grid(&COLUMNS, &rows, width, paint.faint())
}

fn about_endpoints(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    for (name, backend) in facts::backends(service) {
        for endpoint in facts::list(&backend["endpoints"]) {
            let health = facts::word(&endpoint["health"]);
            if health == "healthy" {
                continue;
            }
            let level = match health {
                "unhealthy" if backend["weight"] != 0 => Level::Alarm,
                _ => Level::Attention,
            };
            let words = format!("{name} {} is {health}", text(&endpoint["url"]));
            lines.push(line("endpoint", level, words, paint));
        }
    }
}

fn about_judges(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    for (name, backend) in facts::backends(service) {
        let judge = &service["judge"][name];
        let Some(evidence) = facts::evidence(service, name).filter(|_| !judge["verdict"].is_null())
        else {
            continue;
        };
        let full = cells(evidence, GAUGE);
        let gauge = format!("[{}{}]", "#".repeat(full), "-".repeat(GAUGE - full));
        let verdict = match (facts::word(&judge["verdict"]), judge["hold"].as_str()) {
            ("hold", Some(why)) => format!("holds: {why}: "),
            _ => String::new(),
        };
        let level = match verdict.is_empty() {
            true => Level::Note,
            false => Level::Attention,
        };
        let words = format!(
            "{name} {evidence:.2} {gauge} {verdict}{}",
            text(&judge["sentence"])
        );
        // On trial or as canary, what has weight is what is judged.
        let about = if backend["role"] == "stable" {
            "on trial"
        } else {
            "judge"
        };
        lines.push(line(about, level, words, paint));
    }
}

fn about_rollout(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    let rollout = &service["rollout"];
    let canary = format!(
        "{} ({})",
        text(&rollout["canary"]),
        text(&rollout["version"])
    );
    match facts::rollout_status(service) {
        Some(status) => {
            let level = if status == "paused" {
                Level::Attention
            } else {
                Level::Note
            };
            let words = format!("{canary}: {}", standing(rollout));
            lines.push(line("rollout", level, words, paint));
        }
        None if rollout["ended"].is_object() => {
            let ended = format!(
                "{canary}: {}: {}",
                text(&rollout["status"]),
                text(&rollout["ended"]["reason"])
            );
            lines.push(plain("rollout", ended, paint));
        }
        None => {}
    }
    if let Some(until) = service["override"]["lease"]["until"].as_str() {
        let until = time(&until.into());
        lines.push(plain("lease", format!("the weights end at {until}"), paint));
    }
}

fn about_blocks(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    for (version, block) in service["blocked_versions"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let why = block["reason"].as_str().map(|why| format!(": {why}"));
        let words = format!(
            "version {version} ({}) by {} {}{}",
            text(&block["backend"]),
            text(&block["by"]),
            time(&block["at"]),
            why.unwrap_or_default()
        );
        lines.push(line("blocked", Level::Attention, words, paint));
    }
}

fn about_rules(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    for firing in facts::list(&service["rules_firing"]) {
        let words = format!(
            "{}: {}",
            text(&firing["backend"]),
            text(&firing["sentence"])
        );
        lines.push(line("rule", Level::Alarm, words, paint));
    }
    for signal in facts::list(&service["signals"]) {
        let state = facts::word(&signal["state"]);
        let level = match state {
            "firing" => Level::Alarm,
            "missing" | "pending" => Level::Attention,
            _ => Level::Note,
        };
        let seen = match (&signal["error"], &signal["value"]) {
            (Value::String(error), _) => format!(": {error}"),
            (_, Value::Null) => String::new(),
            (_, value) => format!(
                ": {value}, bad: {} for {}",
                text(&signal["threshold"]),
                text(&signal["for"])
            ),
        };
        let words = format!("{} is {state}{seen}", text(&signal["name"]));
        lines.push(line("signal", level, words, paint));
    }
}

fn about_conflicts(service: &Value, paint: Paint, lines: &mut Vec<Line<'static>>) {
    for conflict in facts::list(&service["conflicts"]) {
        let words = text(&conflict["sentence"]);
        lines.push(match conflict["kind"] == "refused" {
            true => line("refused", Level::Attention, words, paint),
            false => plain("differs", words, paint),
        });
        lines.push(plain(
            "",
            format!("to end it: {}", text(&conflict["ends"])),
            paint,
        ));
    }
    let mirror = &service["mirror"];
    if mirror.is_object() {
        let [mirrored, failed, differed] =
            ["mirrored", "failed", "mismatched"].map(|key| grouped(&mirror[key]));
        let to = text(&mirror["to"]);
        let words = format!("copies to {to}: {mirrored}, {failed} failed, {differed} differed");
        lines.push(plain("mirror", words, paint));
    }
}

/// The last rollback, if it is known yet.
fn incident(screen: &Screen, service: &Value, paint: Paint) -> Line<'static> {
    let words = match &screen.incident {
        Some((of, incident)) if service["name"] == **of => match incident["id"].as_u64() {
            None => "none yet".to_owned(),
            Some(id) => format!(
                "{} {} ({}) by {}: {} (recovery: {}; switchback incident {id})",
                time(&incident["at"]),
                text(&incident["backend"]),
                text(&incident["version"]),
                text(&incident["by"]),
                text(&incident["sentence"]),
                words::or_unknown(&incident["recovery"]).replace('_', " "),
            ),
        },
        _ => "...".to_owned(),
    };
    plain("rollback", words, paint)
}
