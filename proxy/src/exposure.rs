//! Who met a watched version, and what its failures looked like: the evidence of a verdict.
//!
//! Only versions that are watched and have weight have an [`Exposure`]; requests to others do not know
//! of this. Each worker writes its own part: counts and registers ([`Distinct`]) with plain stores, and
//! failures into a ring of [`SAMPLES_MAX`], behind a lock that nobody else but a reader of evidence
//! takes. If the reader has it just then, the sample is lost, the worker goes on. A version costs 12 KiB
//! of registers and at most some 16 KiB of samples for each worker.
//!
//! Clients are told apart by a hash of their affinity key or address under a key that only this
//! exposure knows and that is never shown. Paths are kept only where the operator wants them, and only
//! as templates.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::distinct::Distinct;
use crate::outcome::{Finding, Outcome};
use crate::stats::Cell;

/// Failures that one worker remembers, and that are shown in the end.
pub const SAMPLES_MAX: usize = 20;

/// Longest method that is kept; longer ones are nobody's.
const METHOD_MAX: usize = 16;

/// What happened to those who met a version.
#[derive(Debug)]
pub struct Exposure {
    hasher: RandomState,
    keeps_paths: bool,
    workers: Box<[Part]>,
}

/// One worker's part.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part {
    touched: Group,
    failed: Group,
    rescued: Group,
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Debug, Default)]
struct Group {
    requests: Cell,
    clients: Distinct,
}

impl Group {
    fn add(&self, client: u64) {
        self.requests.add(1);
        self.clients.add(client);
    }
}

/// How many met a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impact {
    /// Those that were sent to it by the split and have ended there.
    pub touched: Reach,
    /// Those whose client got the failure.
    pub failed: Reach,
    /// Those that stable answered in its place.
    pub rescued: Reach,
}

/// Requests and the clients behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Requests, exactly.
    pub requests: u64,
    /// Different clients, within a few percent.
    pub clients: u64,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it ended, since the start of the process.
    pub at: Duration,
    /// From the request's arrival to the failure.
    pub took: Duration,
    /// How it ended; none: it was slow.
    pub outcome: Option<Outcome>,
    /// What it was.
    pub about: About,
}

/// What is kept of a request, in case it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `x-request-id` as the origin saw it.
    pub request_id: String,
    /// `traceparent` as the origin saw it.
    pub traceparent: String,
    /// Its method.
    pub method: String,
    /// Its path as a template, if paths are kept.
    pub path: Option<String>,
}

impl Exposure {
    /// Nobody yet, for so many workers.
    #[must_use]
    pub fn new(workers: usize, keeps_paths: bool) -> Arc<Self> {
        Arc::new(Self {
            hasher: RandomState::new(),
            keeps_paths,
            workers: (0..workers).map(|_| Part::default()).collect(),
        })
    }

    /// Whether samples have paths.
    #[must_use]
    pub const fn keeps_paths(&self) -> bool {
        self.keeps_paths
    }

    /// How many there were until now.
    #[must_use]
    pub fn impact(&self) -> Impact {
        let reach = |group: &dyn Fn(&Part) -> &Group| Reach {
            requests: self
                .workers
                .iter()
                .map(|part| group(part).requests.get())
                .sum(),
            clients: Distinct::estimate(self.workers.iter().map(|part| &group(part).clients)),
        };
        Impact {
            touched: reach(&|part| &part.touched),
            failed: reach(&|part| &part.failed),
            rescued: reach(&|part| &part.rescued),
        }
    }

    /// The last failures, at most [`SAMPLES_MAX`], oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples: Vec<Sample> = Vec::new();
        for part in &self.workers {
            let kept = part.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.extend(kept.iter().cloned());
        }
        samples.sort_by_key(|sample| sample.at);
        samples.drain(..samples.len().saturating_sub(SAMPLES_MAX));
        samples
    }
}

/// One request that was sent to a watched version.
#[derive(Debug)]
pub(crate) struct Encounter {
    exposure: Arc<Exposure>,
    worker: usize,
    client: u64,
    about: About,
    stage: Stage,
    is_sampled: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The version has not answered.
    Open,
    /// It was answered, or will never be, without harm.
    Harmless,
    /// The version failed; unless stable takes over, this is what the client gets.
    Failed,
    /// Stable has taken over.
    TakenOver,
    /// Stable has answered in its place.
    Rescued,
}

impl Encounter {
    /// A request that is about to be sent. `client`: what tells it apart from others.
    pub(crate) fn new(
        exposure: &Arc<Exposure>,
        worker: usize,
        client: impl Hash,
        about: About,
    ) -> Self {
        Self {
            client: exposure.hasher.hash_one(client),
            exposure: exposure.clone(),
            worker,
            about,
            stage: Stage::Open,
            is_sampled: false,
        }
    }

    /// Notes how the version did, or, after a rescue, how stable did in its place.
    pub(crate) fn note(
        &mut self,
        outcome: Outcome,
        finding: Finding,
        at: Duration,
        took: Duration,
    ) {
        self.stage = match self.stage {
            Stage::Open => {
                if outcome != Outcome::NotSent {
                    self.part().touched.add(self.client);
                }
                if finding == Finding::Failure {
                    self.keep_sample(Some(outcome), at, took);
                    Stage::Failed
                } else {
                    Stage::Harmless
                }
            }
            Stage::TakenOver => match finding {
                Finding::Success => Stage::Rescued,
                Finding::NotCounted if outcome == Outcome::ClientGone => Stage::Harmless,
                Finding::Failure | Finding::NotCounted => Stage::Failed,
            },
            ended => ended,
        };
    }

    /// Notes that the version was slow, which clients may have to bear with.
    pub(crate) fn note_slow(&mut self, at: Duration, took: Duration) {
        if self.stage == Stage::Open {
            self.keep_sample(None, at, took);
        }
    }

    /// Notes that stable takes over.
    pub(crate) const fn take_over(&mut self) {
        self.stage = Stage::TakenOver;
    }

    fn keep_sample(&mut self, outcome: Option<Outcome>, at: Duration, took: Duration) {
        // One request, one sample.
        if std::mem::replace(&mut self.is_sampled, true) {
            return;
        }
        let sample = Sample {
            at,
            took,
            outcome,
            about: self.about.clone(),
        };
        let Ok(mut samples) = self.part().samples.try_lock() else {
            return;
        };
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn part(&self) -> &Part {
        &self.exposure.workers[self.worker]
    }
}

impl Drop for Encounter {
    fn drop(&mut self) {
        match self.stage {
            Stage::Open | Stage::Harmless => {}
            // A rescue that never came to an answer has failed.
            Stage::Failed | Stage::TakenOver => self.part().failed.add(self.client),
            Stage::Rescued => self.part().rescued.add(self.client),
        }
    }
}

/// A method as it is kept.
pub(crate) fn method_text(method: &[u8]) -> String {
    let shown = &method[..method.len().min(METHOD_MAX)];
    String::from_utf8_lossy(shown).into_owned()
}

/// Segments that a template has at most.
const SEGMENTS_MAX: usize = 8;

/// Longest segment that may be a word.
const WORD_MAX: usize = 24;

/// A path without what may be personal: no query, and a star for every segment that is not a plain
/// word, such as numbers, ids, names with an at sign.
pub(crate) fn path_template(target: &[u8]) -> String {
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next();
    let mut template = String::new();
    let segments = path.unwrap_or_default().split(|byte| *byte == b'/').skip(1);
    for (index, segment) in segments.enumerate() {
        if index == SEGMENTS_MAX {
            template.push_str("/...");
            break;
        }
        let is_word = segment.len() <= WORD_MAX
            && segment
                .iter()
                .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_' | b'.'));
        let is_version = matches!(segment, [b'v', digits @ ..] if digits.len() <= 2
            && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
        template.push('/');
        if is_word || is_version {
            template.push_str(&String::from_utf8_lossy(segment));
        } else {
            template.push('*');
        }
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(id: &str) -> About {
        About {
            request_id: id.into(),
            traceparent: String::new(),
            method: "GET".into(),
            path: None,
        }
    }

    /// One request: how the version did, whether stable took over, how it did then.
    fn request(exposure: &Arc<Exposure>, worker: usize, client: u32, course: &[Option<Outcome>]) {
        let mut encounter = Encounter::new(exposure, worker, client, about("id"));
        for outcome in course {
            let Some(outcome) = *outcome else {
                encounter.take_over();
                continue;
            };
            let finding = match outcome {
                Outcome::Status(500..) | Outcome::Reset => Finding::Failure,
                Outcome::Status(_) => Finding::Success,
                _ => Finding::NotCounted,
            };
            encounter.note(outcome, finding, Duration::ZERO, Duration::ZERO);
        }
    }

    #[test]
    fn clients_see_an_error_only_if_nobody_rescues_them() {
        const OK: Option<Outcome> = Some(Outcome::Status(200));
        const BAD: Option<Outcome> = Some(Outcome::Status(500));
        const GONE: Option<Outcome> = Some(Outcome::ClientGone);
        for (course, touched, failed, rescued) in [
            (&[OK][..], 1, 0, 0),
            (&[BAD], 1, 1, 0),
            (&[GONE], 1, 0, 0),
            (&[BAD, None, OK], 1, 0, 1),
            (&[BAD, None, BAD], 1, 1, 0),
            (&[BAD, None, GONE], 1, 0, 0),
            (&[BAD, None], 1, 1, 0),
            (&[Some(Outcome::Stale), None, OK], 1, 0, 1),
            (&[Some(Outcome::NotSent)], 0, 0, 0),
            // A long response counted as a success before it broke.
            (&[OK, Some(Outcome::Reset)], 1, 0, 0),
            (&[], 0, 0, 0),
        ] {
            let exposure = Exposure::new(1, false);
            request(&exposure, 0, 1, course);
            let impact = exposure.impact();
            let counts =
                [impact.touched, impact.failed, impact.rescued].map(|reach| reach.requests);
            assert_eq!(counts, [touched, failed, rescued], "{course:?}");
            let clients = [impact.touched, impact.failed, impact.rescued].map(|r| r.clients);
            assert_eq!(clients, counts, "{course:?}");
        }
    }

    #[test]
    fn one_client_on_two_workers_counts_once() {
        let exposure = Exposure::new(2, false);
        for (worker, client) in [(0, 1), (1, 1), (1, 2), (0, 1)] {
            request(&exposure, worker, client, &[Some(Outcome::Status(500))]);
        }
        let expected = Reach {
            requests: 4,
            clients: 2,
        };
        assert_eq!(exposure.impact().touched, expected);
        assert_eq!(exposure.impact().failed, expected);
    }

    #[test]
    fn slow_requests_are_sampled_once_and_are_no_errors_for_clients() {
        let exposure = Exposure::new(1, false);
        for outcome in [Outcome::Status(200), Outcome::Status(500)] {
            let mut encounter = Encounter::new(&exposure, 0, 1, about("id"));
            let took = Duration::from_secs(2);
            encounter.note_slow(Duration::ZERO, took);
            let finding = match outcome {
                Outcome::Status(200) => Finding::Success,
                _ => Finding::Failure,
            };
            encounter.note(outcome, finding, Duration::ZERO, took);
        }
        let samples = exposure.samples();
        assert_eq!(samples.len(), 2);
        assert!(samples.iter().all(|sample| sample.outcome.is_none()));
        let impact = exposure.impact();
        assert_eq!(impact.touched.requests, 2);
        assert_eq!(impact.failed.requests, 1);
    }

    #[test]
    fn last_failures_are_kept_and_no_successes() {
        let exposure = Exposure::new(2, false);
        for number in 0..100_u64 {
            let worker = usize::from(number % 3 == 0);
            let mut encounter = Encounter::new(&exposure, worker, 1, about(&number.to_string()));
            let (status, finding) = match number % 2 {
                0 => (500, Finding::Failure),
                _ => (200, Finding::Success),
            };
            let at = Duration::from_millis(number);
            encounter.note(Outcome::Status(status), finding, at, Duration::ZERO);
        }
        let samples = exposure.samples();
        let ids: Vec<&str> = samples
            .iter()
            .map(|s| s.about.request_id.as_str())
            .collect();
        let expected: Vec<String> = (30..50).map(|half| (2 * half).to_string()).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn templates_keep_words_only() {
        for (target, template) in [
            ("/", "/"),
            ("/checkout", "/checkout"),
            ("/users/42/orders?q=secret", "/users/*/orders"),
            ("/v1/a-b_c.html", "/v1/a-b_c.html"),
            ("/u/ann@example.com/x", "/u/*/x"),
            ("/f/0b5e3c1e-1f7e-4b0e/%2e", "/f/*/*"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/..."),
            ("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "/*"),
            ("*", ""),
        ] {
            assert_eq!(path_template(target.as_bytes()), template, "{target}");
        }
    }
}
