//! What became of one version in one simulation, and what was found out about it.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;
use switchback_proxy::outcome::Finding;

/// What the judges would have said about a version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// When.
    pub at: Timestamp,
    /// `rollback`, `hold` or `notify`; `kept`: it fails, and there is nothing to go back to.
    pub action: &'static str,
    /// `judge`, `rule` or `unhealthy`.
    pub cause: &'static str,
    /// Why, in one sentence.
    pub sentence: String,
    /// How long the stretch is that the judge decided by, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stretch_seconds: Option<f64>,
    /// Requests of the version until then.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Clients, told apart by their addresses, who saw it fail until then.
    pub users_hurt: u64,
}

/// Requests, and what they met.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Failures in whose place stable answered.
    pub(super) rescued: u64,
    hurt: HashSet<u64>,
}

impl Counts {
    /// Counts a request; `client` is the hash of its address.
    pub(super) fn count(&mut self, finding: Finding, rescued: bool, client: u64) {
        self.requests += 1;
        if finding == Finding::Failure {
            self.failures += 1;
            match rescued {
                true => self.rescued += 1,
                false => {
                    self.hurt.insert(client);
                }
            }
        }
    }

    pub(super) fn users_hurt(&self) -> u64 {
        self.hurt.len() as u64
    }
}

/// One version.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Its place among the labels of its backend.
    pub(super) label: usize,
    pub(super) version: String,
    pub(super) since_ms: i64,
    pub(super) counts: Counts,
    /// What would have met stable instead: after the rollback.
    pub(super) spared: Counts,
    pub(super) verdicts: Vec<Verdict>,
}

impl Tally {
    pub(super) fn new(label: usize, version: String, since_ms: i64) -> Self {
        Self {
            label,
            version,
            since_ms,
            counts: Counts::default(),
            spared: Counts::default(),
            verdicts: Vec::new(),
        }
    }
}
