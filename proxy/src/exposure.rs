//! Who met a watched version, and what its failures looked like: the evidence of a verdict.
//!
//! Only versions that are watched and have weight have an [`Exposure`]; requests to others do not know
//! of this. What one request adds is its [`crate::encounter::Encounter`]. Each worker writes its own part: counts and registers ([`Distinct`]) with plain stores, and
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
use crate::head::RequestHead;
use crate::headers::Ids;
use crate::outcome::Outcome;
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
pub(crate) struct Part {
    pub(crate) touched: Group,
    pub(crate) failed: Group,
    pub(crate) rescued: Group,
    samples: Mutex<VecDeque<Sample>>,
}

/// Requests of one kind, and the clients behind them.
#[derive(Debug, Default)]
pub(crate) struct Group {
    requests: Cell,
    clients: Distinct,
}

impl Group {
    pub(crate) fn add(&self, client: u64) {
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// What tells a client apart from others here, and means nothing elsewhere.
    pub(crate) fn client(&self, who: impl Hash) -> u64 {
        self.hasher.hash_one(who)
    }

    /// What a worker writes.
    pub(crate) fn part(&self, worker: usize) -> &Part {
        &self.workers[worker]
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

impl Part {
    /// Keeps a failure, unless somebody reads just now.
    pub(crate) fn keep_sample(&self, sample: impl FnOnce() -> Sample) {
        let Ok(mut samples) = self.samples.try_lock() else {
            return;
        };
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample());
    }
}

impl About {
    /// Describes a request, in the memory of the one before.
    pub(crate) fn describe(&mut self, head: &RequestHead, ids: &Ids, keeps_paths: bool) {
        let method = head.method();
        for (text, bytes) in [
            (&mut self.request_id, ids.request_id.as_slice()),
            (&mut self.traceparent, ids.traceparent(head)),
            (&mut self.method, &method[..method.len().min(METHOD_MAX)]),
        ] {
            text.clear();
            // Tokens, and ids that were checked: nothing else than ASCII.
            text.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        }
        self.path = keeps_paths.then(|| path_template(head.target()));
    }
}

/// Segments that a template has at most.
const SEGMENTS_MAX: usize = 8;

/// Longest segment that may be a word.
const WORD_MAX: usize = 24;

/// A path without what may be personal: no query, and a star for every segment that is not a plain
/// word, such as numbers, ids, names with an at sign.
fn path_template(target: &[u8]) -> String {
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
