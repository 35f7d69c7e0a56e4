//! `simulate`: what the judge would have done about recorded traffic.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Read, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anstream::{print, println};
use jiff::Timestamp;
use serde_json::json;
use switchback_config::diagnostic::render_all;
use switchback_config::model::Config;

use super::args::{Output, SimulateArgs, Target};
use super::look::{grouped, right, table};
use super::{Failed, exit, find_config};
use crate::simulate::{
    FaultReport, LogReport, Plan, Report, Run, Settings, SimulateError, Verdict, simulate as replay,
};

/// More of either than anybody looks at.
const VARIANTS_MAX: usize = 32;

/// How often the progress is drawn.
const DRAWN_APART: Duration = Duration::from_millis(100);

/// Reads a log and tells what would have happened.
pub(super) fn simulate(target: &Target, args: &SimulateArgs) -> Result<u8, Failed> {
    let config = read_config(&find_config(args.config.as_deref())?)?;
    if args.inject.len() > VARIANTS_MAX || args.settings.len() > VARIANTS_MAX {
        let message =
            format!("at most {VARIANTS_MAX} faults and {VARIANTS_MAX} settings at a time");
        return Err(Failed::with_code(message, 2));
    }
    let mut settings = vec![Settings::of_file(&config)];
    for words in &args.settings {
        let tried = Settings::with(&config, words);
        settings.push(tried.map_err(|error| Failed::with_code(format!("--with {error}"), 2))?);
    }
    let plan = Plan {
        settings,
        faults: args.inject.clone(),
        service: args.service.clone(),
        spread: args.spread,
    };
    let (log, bytes) = open(&args.log)?;
    let mut progress = Progress::new(bytes);
    let result = replay(log, &plan, |read| progress.draw(read));
    progress.clear();
    let report = result.map_err(|error| {
        let code = match &error {
            SimulateError::Read(_) => 1,
            SimulateError::Fault { .. }
            | SimulateError::UnknownService { .. }
            | SimulateError::WhichService { .. } => 2,
        };
        Failed::with_code(format!("{}: {error}", args.log.display()), code)
    })?;
    match target.output {
        Output::Json => println!("{:#}", json!(report)),
        Output::Table | Output::Markdown => print!("{}", told(&args.log, &report)),
    }
    if report.runs.is_empty() {
        return Err(Failed::new(nothing(&args.log, &report.log)));
    }
    Ok(0)
}

fn read_config(path: &Path) -> Result<Config, Failed> {
    let name = path.display().to_string();
    let failed = |message| Failed::with_code(message, exit::CONFIG);
    let text =
        std::fs::read_to_string(path).map_err(|error| failed(format!("read {name}: {error}")))?;
    let parsed = switchback_config::parse(&text);
    parsed.config.ok_or_else(|| {
        let colour = std::io::stderr().is_terminal();
        failed(render_all(&parsed.diagnostics, &text, &name, colour))
    })
}

/// The log, and how long it is if that is known.
fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failed> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin().lock()), None));
    }
    let failed = |error| Failed::new(format!("read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((Box::new(file), Some(length)))
}

/// Why nothing came of it.
fn nothing(path: &Path, log: &LogReport) -> String {
    let path = path.display();
    match (log.lines, log.skipped) {
        (0, _) => format!("{path}: there is no line in it"),
        (lines, skipped) if lines == skipped => format!("{path}: no line of it can be read"),
        _ => format!("{path}: no line of it is about a backend of the config file"),
    }
}

/// How far it is, on a terminal.
struct Progress {
    bytes: Option<u64>,
    shown: bool,
    drawn: Instant,
}

impl Progress {
    fn new(bytes: Option<u64>) -> Self {
        Self {
            bytes,
            shown: std::io::stderr().is_terminal(),
            drawn: Instant::now(),
        }
    }

    fn draw(&mut self, read: u64) {
        if !self.shown || self.drawn.elapsed() < DRAWN_APART {
            return;
        }
        self.drawn = Instant::now();
        // Whoever does not take it, does not see it.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", bar(read, self.bytes));
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A bar as wide as 40 characters, or how much there was if nobody knows how much there is.
fn bar(read: u64, bytes: Option<u64>) -> String {
    const WIDTH: u64 = 40;
    let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else {
        return format!("{} MiB read", read >> 20);
    };
    let part = |whole: u64| read.min(bytes).saturating_mul(whole) / bytes;
    let full = usize::try_from(part(WIDTH)).unwrap_or(0);
    let left = usize::try_from(WIDTH).unwrap_or(0) - full;
    format!(
        "[{}{}] {:>3} %",
        "#".repeat(full),
        " ".repeat(left),
        part(100)
    )
}

/// The report as people read it.
fn told(path: &Path, report: &Report) -> String {
    let mut out = String::new();
    tell_log(&mut out, path, &report.log);
    let Some(recorded) = report.runs.first() else {
        return out;
    };
    let _ = writeln!(out, "\nas recorded, with the settings of the file");
    let _ = writeln!(out, "{}", versions(recorded));
    for run in report.runs.iter().filter(|run| run.fault.is_none()) {
        tell_verdicts(&mut out, run);
    }
    for left_out in &recorded.left_out {
        let _ = writeln!(out, "not simulated: {left_out}");
    }
    if report.runs.len() > 1 {
        let _ = writeln!(out, "\ncompared");
        let _ = writeln!(out, "{}", compared(&report.runs));
        for run in report.runs.iter().filter(|run| run.fault.is_some()) {
            tell_fault(&mut out, run);
        }
    }
    out
}

fn tell_log(out: &mut String, path: &Path, log: &LogReport) {
    let span = match (log.from, log.to) {
        (Some(from), Some(to)) => format!(", {} to {}", moment(from), moment(to)),
        _ => String::new(),
    };
    let _ = writeln!(out, "{}: {} lines{span}", path.display(), number(log.lines));
    for because in &log.skipped_because {
        let _ = writeln!(
            out,
            "  {} skipped: {} (first: line {}, byte {})",
            number(because.lines),
            because.reason,
            because.line,
            because.column
        );
    }
    for (what, lines) in &log.set_aside {
        let _ = writeln!(out, "  {} set aside: {what}", number(*lines));
    }
    if log.spread > 0 {
        let lines = number(log.spread);
        let _ = writeln!(out, "  {lines} spread by the weights of the file");
    }
}

fn versions(run: &Run) -> comfy_table::Table {
    let mut table = table(&[
        "SERVICE",
        "BACKEND",
        "VERSION",
        "REQUESTS",
        "FAILED",
        "RESCUED",
        "USERS HURT",
        "VERDICT",
    ]);
    right(&mut table, &[3, 4, 5, 6]);
    for version in &run.versions {
        let verdict = version.rollback().or_else(|| version.verdicts.first());
        let verdict = verdict.map_or_else(String::new, |verdict| {
            format!("{} {}", verdict.action, moment(verdict.at))
        });
        table.add_row(vec![
            version.service.clone(),
            version.backend.clone(),
            version.version.clone(),
            number(version.requests),
            number(version.failures),
            number(version.rescued),
            number(version.users_hurt),
            verdict,
        ]);
    }
    table
}

/// What the judges would have said, in their sentences.
fn tell_verdicts(out: &mut String, run: &Run) {
    for version in &run.versions {
        for verdict in &version.verdicts {
            let _ = writeln!(
                out,
                "\n{}{} {} ({}): {} at {} by {}\n  {}",
                with(run),
                version.service,
                version.backend,
                version.version,
                verdict.action,
                moment(verdict.at),
                verdict.cause,
                verdict.sentence
            );
        }
        if version.spared_requests > 0 {
            let _ = writeln!(
                out,
                "  it would have spared it {} more requests, {} of which failed for {} users",
                number(version.spared_requests),
                number(version.spared_failures),
                number(version.spared_users)
            );
        }
    }
    for told in &run.told {
        let _ = writeln!(out, "{} {}: {}", moment(told.at), told.kind, told.message);
    }
    if run.told_more > 0 {
        let _ = writeln!(out, "and {} more events", number(run.told_more));
    }
}

fn with(run: &Run) -> String {
    match &*run.settings {
        "file" => String::new(),
        settings => format!("with {settings}: "),
    }
}

/// A row for each combination of settings and faults.
fn compared(runs: &[Run]) -> comfy_table::Table {
    let mut table = table(&[
        "TRAFFIC",
        "SETTINGS",
        "ROLLBACKS",
        "FOUND AFTER",
        "HITS",
        "RESCUED",
        "USERS HURT",
    ]);
    right(&mut table, &[2, 3, 4, 5, 6]);
    for run in runs {
        let rollbacks = number(run.rollbacks().count() as u64);
        let cells = match &run.fault {
            None => [
                "as recorded".to_owned(),
                run.settings.clone(),
                rollbacks,
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ],
            Some(fault) => [
                fault.fault.clone(),
                run.settings.clone(),
                rollbacks,
                found(fault),
                number(fault.hits),
                number(fault.rescued),
                number(fault.users_hurt),
            ],
        };
        table.add_row(cells);
    }
    table
}

fn found(fault: &FaultReport) -> String {
    match (fault.detected_in_seconds, fault.missed) {
        (Some(seconds), _) => format!("{seconds:.3} s"),
        (None, Some(_)) => "never".into(),
        (None, None) => String::new(),
    }
}

fn tell_fault(out: &mut String, run: &Run) {
    let Some(fault) = &run.fault else { return };
    let _ = write!(out, "\n{}{}: ", with(run), fault.fault);
    let _ = match (&fault.verdict, fault.missed) {
        (
            Some(Verdict {
                action,
                at,
                cause,
                sentence,
                ..
            }),
            _,
        ) => {
            writeln!(out, "{action} at {} by {cause}\n  {sentence}", moment(*at))
        }
        (None, missed) => writeln!(out, "{}", missed.unwrap_or_default()),
    };
}

/// A time to the millisecond, in UTC.
fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
}

fn number(number: u64) -> String {
    grouped(&number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_how_far_it_is() {
        assert_eq!(bar(5 << 20, None), "5 MiB read");
        assert_eq!(bar(0, Some(10)), format!("[{}]   0 %", " ".repeat(40)));
        let half = format!("[{}{}]  50 %", "#".repeat(20), " ".repeat(20));
        assert_eq!(bar(5, Some(10)), half);
        // A log that grows while it is read.
        assert_eq!(bar(20, Some(10)), format!("[{}] 100 %", "#".repeat(40)));
    }
}
