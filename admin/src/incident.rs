//! The report of an incident: a rollback's record as Markdown, ready for a postmortem.
//!
//! Pure: the same record gives the same text. It says what is in the record and nothing beyond; paths
//! are there only if the operator has them recorded, and addresses of clients never.

mod chart;

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::Cause;
use crate::evidence::{Reach, Record, RecoveryState, Second, VersionEvidence};
use crate::history::Revision;

/// Something that was changed around an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = TimelineMoment)]
pub struct Moment {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The revision it made.
    pub revision: u64,
    /// Who.
    pub by: String,
    /// In words.
    pub what: String,
}

/// A day before a rollback: what led to it is rarely older.
const BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// Changes before and after it that are shown.
const SHOWN: (usize, usize) = (15, 10);

/// What was changed for the record's service around it, in order; `revisions` come newest first.
#[must_use]
pub fn timeline(record: &Record, revisions: &[Revision]) -> Vec<Moment> {
    let concerns = |revision: &&Revision| revision.changes.contains_key(&record.service);
    let of_service = || revisions.iter().filter(concerns);
    let recent = |revision: &&Revision| record.at.duration_since(revision.at) <= BEFORE;
    let mut moments: Vec<Moment> = of_service()
        .filter(|revision| revision.revision < record.id)
        .filter(recent)
        .take(SHOWN.0)
        .map(moment)
        .collect();
    moments.reverse();
    let since = revisions
        .iter()
        .rev()
        .filter(|revision| revision.revision >= record.id)
        .filter(concerns);
    moments.extend(since.take(SHOWN.1 + 1).map(moment));
    moments
}

fn moment(revision: &Revision) -> Moment {
    let mut what = match revision.notes.is_empty() {
        true => revision.action.clone(),
        false => revision.notes.join("; "),
    };
    if let Some(reason) = revision.reason.as_ref().filter(|_| revision.via != "judge") {
        let _ = write!(what, " ({reason})");
    }
    Moment {
        at: revision.at,
        revision: revision.revision,
        by: revision.by.clone(),
        what,
    }
}

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Incident<'a> {
    /// The evidence.
    pub record: &'a Record,
    /// Whether it could be played again.
    pub replayed: Option<bool>,
    /// What was different, if it could not.
    pub replay_problem: Option<&'a str>,
    /// What else was changed.
    pub timeline: &'a [Moment],
}

/// The report.
#[must_use]
pub fn markdown(incident: &Incident<'_>) -> String {
    let record = incident.record;
    let mut report = String::new();
    let Record {
        id,
        service,
        backend,
        version,
        ..
    } = record;
    let _ = writeln!(
        report,
        "# Incident {id}: {service}, version {version} of {backend} {}\n",
        done(record)
    );
    head(&mut report, record);
    let _ = writeln!(
        report,
        "\n## What happened\n\n> {}\n",
        quoted(&record.sentence)
    );
    if record.is_about_copies() {
        report.push_str(
            "It got only copies of requests; no user has met it. The numbers below are those of copies and \
             of their originals.\n\n",
        );
    }
    for version in &record.versions {
        impact(&mut report, record, version);
    }
    timeline_table(&mut report, incident);
    for version in &record.versions {
        numbers(&mut report, record, version);
        path(&mut report, version);
        samples(&mut report, version);
    }
    actions(&mut report, record);
    follow_ups(&mut report, record);
    evidence(&mut report, incident);
    report
}

/// What was done to the version, in a word or two.
fn done(record: &Record) -> &'static str {
    match record.is_about_copies() {
        true => "blocked",
        false => "rolled back",
    }
}

fn head(report: &mut String, record: &Record) {
    let applied = match record.applied_in_us {
        Some(took_us) => format!(", in force on every worker after {took_us} us"),
        None => String::new(),
    };
    let rows = [
        ("Service", record.service.clone()),
        (
            if record.is_about_copies() {
                "Blocked"
            } else {
                "Rolled back"
            },
            format!("{} ({})", record.backend, record.version),
        ),
        (
            "Serves since",
            format!("{} ({})", record.stable, record.stable_version),
        ),
        ("At", format!("{}{applied}", time(record.at))),
        ("Cause", cause(record)),
        (
            "Recovery",
            format!("{}: {}", state(record), cell(&record.recovery.sentence)),
        ),
    ];
    table(
        report,
        &["", ""],
        rows.into_iter().map(|(key, value)| vec![key.into(), value]),
    );
}

fn cause(record: &Record) -> String {
    match record.cause {
        Cause::Operator => format!("operator: {}", cell(&record.by)),
        other => other.as_str().into(),
    }
}

fn state(record: &Record) -> &'static str {
    match record.recovery.state {
        RecoveryState::Pending => "not known yet",
        RecoveryState::Recovered => "recovered",
        RecoveryState::DidNotHelp => "**the rollback did not help**",
        RecoveryState::Unknown => "unknown",
        RecoveryState::Interrupted => "not known",
        RecoveryState::NotNeeded => "not needed",
    }
}

fn impact(report: &mut String, record: &Record, version: &VersionEvidence) {
    let Some(impact) = version.impact else {
        return;
    };
    let _ = writeln!(
        report,
        "## Impact of {} ({})\n",
        version.backend, version.version
    );
    let row = |what: String, reach: Reach| {
        vec![what, reach.requests.to_string(), reach.clients.to_string()]
    };
    let rows = [
        row("were sent to it".into(), impact.touched),
        row("got its failure".into(), impact.saw_error),
        row(
            format!("were answered by {} in its place", record.stable),
            impact.rescued,
        ),
    ];
    table(report, &["", "requests", "distinct clients"], rows);
    report.push_str("\nSince it got weight. Clients are estimated, within some 2 %.\n\n");
}

fn timeline_table(report: &mut String, incident: &Incident<'_>) {
    report.push_str("## Timeline\n\n");
    let record = incident.record;
    let mut rows: Vec<(Timestamp, String, String)> = incident
        .timeline
        .iter()
        .map(|moment| (moment.at, moment.what.clone(), moment.by.clone()))
        .collect();
    if !incident
        .timeline
        .iter()
        .any(|moment| moment.revision == record.id)
    {
        let what = format!("{} {}: {}", record.backend, done(record), record.sentence);
        rows.push((record.at, what, record.by.clone()));
    }
    let is_known = !matches!(
        record.recovery.state,
        RecoveryState::Pending | RecoveryState::NotNeeded
    );
    if is_known {
        let after = SignedDuration::try_from_secs_f64(record.recovery.after_s).unwrap_or_default();
        let at = record.at.checked_add(after).unwrap_or(record.at);
        rows.push((at, record.recovery.sentence.clone(), "switchback".into()));
    }
    rows.sort_by_key(|(at, ..)| *at);
    let rows = rows
        .into_iter()
        .map(|(at, what, by)| vec![time(at), cell(&what), cell(&by)]);
    table(report, &["time", "what", "who"], rows);
    report.push('\n');
}

/// Stretches of the table of numbers, in seconds around the rollback: its second belongs to both.
const STRETCHES: [(&str, i32, i32); 4] = [
    ("2 min to 1 min before", i32::MIN, -60),
    ("1 min to 10 s before", -59, -10),
    ("last 10 s", -9, 0),
    ("1 min after", 1, i32::MAX),
];

fn numbers(report: &mut String, record: &Record, version: &VersionEvidence) {
    let _ = writeln!(report, "## Numbers\n");
    let side = |requests: u64, failures: u64| match requests {
        0 => "-".to_owned(),
        _ => format!(
            "{failures} of {requests} ({:.1}%)",
            percent(failures, requests)
        ),
    };
    let rows = STRETCHES.iter().map(|(name, first, last)| {
        let within = |second: &&Second| (*first..=*last).contains(&second.second);
        let sum = |of: &dyn Fn(&Second) -> u64| -> u64 {
            version.seconds.iter().filter(within).map(of).sum()
        };
        let canary = side(sum(&|s| s.canary_requests), sum(&|s| s.canary_failures));
        let stable = side(sum(&|s| s.stable_requests), sum(&|s| s.stable_failures));
        vec![(*name).into(), canary, stable]
    });
    let heads = [
        "failed",
        &format!("{} ({})", version.backend, version.version),
        &format!("{} ({})", record.stable, record.stable_version),
    ];
    table(report, &heads, rows);
    report.push('\n');
}

fn path(report: &mut String, version: &VersionEvidence) {
    let charts: Vec<String> = version.judges.iter().filter_map(chart::levels).collect();
    let failures = chart::failures(&version.seconds);
    if charts.is_empty() && failures.is_none() {
        return;
    }
    report.push_str("```text\n");
    report.extend(failures);
    report.extend(charts);
    report.push_str("```\n\n");
}

fn samples(report: &mut String, version: &VersionEvidence) {
    if version.samples.is_empty() {
        return;
    }
    report.push_str("## Sample requests\n\n");
    let with_paths = version.samples.iter().any(|sample| sample.path.is_some());
    let mut heads = vec![
        "time",
        "request id",
        "method",
        "outcome",
        "ms",
        "traceparent",
    ];
    if with_paths {
        heads.push("path");
    }
    let rows = version.samples.iter().map(|sample| {
        let mut row = vec![
            time(sample.at),
            code(&sample.request_id),
            cell(&sample.method),
            sample.outcome.clone(),
            format!("{:.1}", sample.duration_ms),
            code(&sample.traceparent),
        ];
        if with_paths {
            row.push(code(sample.path.as_deref().unwrap_or_default()));
        }
        row
    });
    table(report, &heads, rows);
    report.push('\n');
}

fn actions(report: &mut String, record: &Record) {
    report.push_str("## Actions taken\n\n");
    for action in &record.actions {
        let _ = writeln!(report, "- {}: {}", time(action.at), quoted(&action.what));
    }
    report.push('\n');
}

fn follow_ups(report: &mut String, record: &Record) {
    let Record {
        service,
        backend,
        version,
        ..
    } = record;
    report.push_str("## Follow-ups\n\n");
    let mut items = vec![format!("Find out what is wrong in version {version}.")];
    if record.recovery.state == RecoveryState::DidNotHelp {
        items[0] = "Look for a shared cause: errors did not end with the rollback (a database, a \
                    network, a client that changed at the same time)."
            .into();
    }
    items.push(format!(
        "Deploy the repaired version under another label, or allow this one again: \
         `switchback unblock {service} {backend}`."
    ));
    let hurt = record
        .versions
        .iter()
        .filter_map(|version| version.impact)
        .any(|impact| impact.saw_error.requests > 0);
    if hurt {
        items.push(
            "Look after the clients that got failures; the sample requests are a beginning.".into(),
        );
    }
    for item in items {
        let _ = writeln!(report, "- [ ] {item}");
    }
    report.push('\n');
}

fn evidence(report: &mut String, incident: &Incident<'_>) {
    report.push_str("## Evidence\n\n");
    let said = match (incident.replayed, incident.replay_problem) {
        (Some(true), _) => {
            "Played again with what it was told, the judge comes to the same verdict at the same tick."
                .to_owned()
        }
        (_, Some(problem)) => format!("**The record does not prove the verdict**: {problem}."),
        _ => "It was no verdict of a judge or rule about requests; there is nothing to play again.".to_owned(),
    };
    let _ = writeln!(
        report,
        "{said} The whole record: `switchback incident {} -o json`.",
        incident.record.id
    );
}

/// A table, with empty heads left blank.
fn table(report: &mut String, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let line = |report: &mut String, cells: &mut dyn Iterator<Item = &str>| {
        report.push('|');
        for cell in cells {
            let _ = write!(report, " {cell} |");
        }
        report.push('\n');
    };
    line(report, &mut heads.iter().copied());
    line(report, &mut heads.iter().map(|_| "---"));
    for row in rows {
        line(report, &mut row.iter().map(String::as_str));
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// Text from elsewhere on one line, where it cannot end a table's cell or begin markup.
fn cell(text: &str) -> String {
    quoted(text).replace('|', "\\|")
}

fn quoted(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            '<' | '`' | '[' | ']' | '*' | '_' | '\\' => {
                shown.push('\\');
                shown.push(character);
            }
            other if other.is_control() => {}
            other => shown.push(other),
        }
    }
    shown
}

/// An identifier as code.
fn code(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '`' | '|'))
        .collect();
    match plain.is_empty() {
        true => String::new(),
        false => format!("`{plain}`"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests;
