//! What comes out of a simulation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;

use super::settings::Settings;
use super::tally::{Tally, Verdict};
use super::world::{Told, Trial, World, timestamp};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was read.
    pub log: LogReport,
    /// One for each combination of settings and faults: the settings in their order, and of each first the
    /// traffic as it was recorded.
    pub runs: Vec<Run>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogReport {
    /// Lines, the skipped ones included.
    pub lines: u64,
    /// When the first request began.
    pub from: Option<Timestamp>,
    /// When the last request began.
    pub to: Option<Timestamp>,
    /// Lines that could not be read.
    pub skipped: u64,
    /// Why, the most frequent reason first.
    pub skipped_because: Vec<SkippedReason>,
    /// Lines that say nothing about a version, by what they are.
    pub set_aside: BTreeMap<&'static str, u64>,
    /// Lines whose backend was drawn by the file's weights.
    pub spread: u64,
}

/// A reason why lines could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedReason {
    /// In words.
    pub reason: &'static str,
    /// How many.
    pub lines: u64,
    /// The first of them, from 1.
    pub line: u64,
    /// Where in it, in bytes from 1.
    pub column: usize,
}

/// Counts lines that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Skipped(Vec<SkippedReason>);

impl Skipped {
    pub(super) fn add(&mut self, reason: &'static str, line: u64, column: usize) {
        match self.0.iter_mut().find(|known| known.reason == reason) {
            Some(known) => known.lines += 1,
            None => self.0.push(SkippedReason {
                reason,
                lines: 1,
                line,
                column,
            }),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|reason| reason.lines).sum()
    }

    pub(super) fn reasons(&self) -> Vec<SkippedReason> {
        let mut reasons = self.0.clone();
        reasons.sort_by_key(|reason| (std::cmp::Reverse(reason.lines), reason.line));
        reasons
    }
}

/// What would have happened under some settings, with or without a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// `file`, or what differs from it.
    pub settings: String,
    /// What of them cannot be simulated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The fault; none: the traffic as it was recorded.
    pub fault: Option<FaultReport>,
    /// All versions that were met, by service and backend, in the order of their appearance.
    pub versions: Vec<VersionReport>,
    /// Requests of versions that another label on their backend had replaced before they ended.
    pub late: u64,
    /// What else would have been told.
    pub told: Vec<Told>,
    /// How much more of that there was.
    pub told_more: u64,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionReport {
    /// The service.
    pub service: Name,
    /// The backend.
    pub backend: Name,
    /// Its label.
    pub version: String,
    /// When it was met first.
    pub since: Timestamp,
    /// Its requests, up to its rollback.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those in whose place stable answered.
    pub rescued: u64,
    /// Clients, told apart by their addresses, who saw it fail.
    pub users_hurt: u64,
    /// What the judges would have said; the first rollback ends its time.
    pub verdicts: Vec<Verdict>,
    /// Requests after its rollback: stable would have had them.
    pub spared_requests: u64,
    /// Those of them that failed.
    pub spared_failures: u64,
    /// Clients who saw it fail then.
    pub spared_users: u64,
}

/// A fault, and how soon it was found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// In the words of whoever asked.
    pub fault: String,
    /// The service.
    pub service: Name,
    /// The backend.
    pub backend: Name,
    /// When the first request in its time began, if there was one.
    pub since: Option<Timestamp>,
    /// Requests that it hit until the rollback.
    pub hits: u64,
    /// Those of them in whose place stable would have answered.
    pub rescued: u64,
    /// Clients who would have seen it.
    pub users_hurt: u64,
    /// The first verdict after its beginning.
    pub verdict: Option<Verdict>,
    /// From the beginning of the fault to that verdict, in seconds.
    pub detected_in_seconds: Option<f64>,
    /// Why there is none, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<&'static str>,
}

impl Run {
    pub(super) fn new(settings: &Settings, world: &World) -> Self {
        let versions = world.services.iter().flat_map(|course| {
            let stages = course.backends.iter();
            stages.flat_map(|stage| {
                let versions = stage.versions.iter();
                versions.map(|tally| VersionReport::new(&course.name, &stage.name, tally))
            })
        });
        let stages = world.services.iter().flat_map(|course| &course.backends);
        Self {
            late: stages.map(|stage| stage.late).sum(),
            settings: settings.words.clone(),
            left_out: settings.left_out.clone(),
            fault: world.trial.as_ref().map(|trial| fault(world, trial)),
            versions: versions.collect(),
            told: world.told.clone(),
            told_more: world.told_more,
        }
    }

    /// Versions that would have been rolled back, each with the verdict that does it.
    pub fn rollbacks(&self) -> impl Iterator<Item = (&VersionReport, &Verdict)> {
        let versions = self.versions.iter();
        versions.filter_map(|version| Some((version, version.rollback()?)))
    }
}

impl VersionReport {
    fn new(service: &Name, backend: &Name, tally: &Tally) -> Self {
        let Tally { counts, spared, .. } = tally;
        Self {
            service: service.clone(),
            backend: backend.clone(),
            version: tally.version.clone(),
            since: timestamp(tally.since_ms),
            requests: counts.requests,
            failures: counts.failures,
            rescued: counts.rescued,
            users_hurt: counts.users_hurt(),
            verdicts: tally.verdicts.clone(),
            spared_requests: spared.requests,
            spared_failures: spared.failures,
            spared_users: spared.users_hurt(),
        }
    }

    /// The verdict that takes its weight.
    #[must_use]
    pub fn rollback(&self) -> Option<&Verdict> {
        let mut verdicts = self.verdicts.iter();
        verdicts.find(|verdict| verdict.action == "rollback")
    }
}

fn fault(world: &World, trial: &Trial) -> FaultReport {
    let (service, backend) = trial.place();
    let course = &world.services[service];
    let stage = &course.backends[backend];
    let verdicts = stage.versions.iter().flat_map(|tally| &tally.verdicts);
    let since = trial.since_ms.map(timestamp);
    let after = |verdict: &&Verdict| since.is_some_and(|since| verdict.at >= since);
    let verdict = verdicts.clone().find(after).cloned();
    let seconds = |verdict: &Verdict| Some(verdict.at.duration_since(since?).as_secs_f64());
    let is_gone = verdicts.clone().any(|verdict| verdict.action == "rollback");
    let missed = match (&verdict, since, trial.counts.requests) {
        (Some(_), ..) => None,
        (None, None, _) => Some("the backend had no request in that time"),
        (None, Some(_), _) if is_gone => Some("the version had been rolled back before"),
        (None, Some(_), 0) => Some("no request was hit"),
        (None, Some(_), _) => Some("not found out before the end of the log"),
    };
    FaultReport {
        fault: trial.injection.words.clone(),
        service: course.name.clone(),
        backend: stage.name.clone(),
        since,
        hits: trial.counts.requests,
        rescued: trial.counts.rescued,
        users_hurt: trial.counts.users_hurt(),
        detected_in_seconds: verdict.as_ref().and_then(seconds),
        verdict,
        missed,
    }
}
