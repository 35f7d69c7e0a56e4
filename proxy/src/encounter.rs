//! What one request adds to the evidence about the watched version it was sent to.
//!
//! Whether its client saw a failure is known only at its end: a failure that stable answered in the
//! version's place was a rescue. What describes the request is kept for as long, in memory that
//! requests hand on to each other; nothing here asks the allocator while nothing fails.

use std::time::Duration;

use crate::exposure::{About, Part, Sample};
use crate::outcome::{Finding, Outcome};

/// One request that was sent to a watched version.
#[derive(Debug)]
pub(crate) struct Encounter {
    client: u64,
    about: Box<About>,
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
    /// A request that is about to be sent. `client`: see [`Exposure::client`].
    ///
    /// [`Exposure::client`]: crate::exposure::Exposure::client
    pub(crate) const fn new(client: u64, about: Box<About>) -> Self {
        Self {
            client,
            about,
            stage: Stage::Open,
            is_sampled: false,
        }
    }

    /// Notes how the version did, or, after a rescue, how stable did in its place.
    pub(crate) fn note(
        &mut self,
        part: &Part,
        outcome: Outcome,
        finding: Finding,
        at: Duration,
        took: Duration,
    ) {
        self.stage = match self.stage {
            Stage::Open => {
                if outcome != Outcome::NotSent {
                    part.touched.add(self.client);
                }
                if finding == Finding::Failure {
                    self.keep_sample(part, Some(outcome), at, took);
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
    pub(crate) fn note_slow(&mut self, part: &Part, at: Duration, took: Duration) {
        if self.stage == Stage::Open {
            self.keep_sample(part, None, at, took);
        }
    }

    /// Notes that stable takes over.
    pub(crate) const fn take_over(&mut self) {
        self.stage = Stage::TakenOver;
    }

    fn keep_sample(&mut self, part: &Part, outcome: Option<Outcome>, at: Duration, took: Duration) {
        // One request, one sample.
        if std::mem::replace(&mut self.is_sampled, true) {
            return;
        }
        part.keep_sample(|| Sample {
            at,
            took,
            outcome,
            about: (*self.about).clone(),
        });
    }

    /// Counts what its client got. The memory is for the next one.
    pub(crate) fn end(self, part: &Part) -> Box<About> {
        match self.stage {
            Stage::Open | Stage::Harmless => {}
            // A rescue that never came to an answer has failed.
            Stage::Failed | Stage::TakenOver => part.failed.add(self.client),
            Stage::Rescued => part.rescued.add(self.client),
        }
        self.about
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposure::{Exposure, Reach};
    use std::sync::Arc;

    fn about(id: &str) -> Box<About> {
        Box::new(About {
            request_id: id.into(),
            traceparent: String::new(),
            method: "GET".into(),
            path: None,
        })
    }

    /// One request: how the version did, whether stable took over, how it did then.
    fn request(exposure: &Arc<Exposure>, worker: usize, client: u32, course: &[Option<Outcome>]) {
        let part = exposure.part(worker);
        let mut encounter = Encounter::new(exposure.client(client), about("id"));
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
            encounter.note(part, outcome, finding, Duration::ZERO, Duration::ZERO);
        }
        encounter.end(part);
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
            let part = exposure.part(0);
            let mut encounter = Encounter::new(1, about("id"));
            let took = Duration::from_secs(2);
            encounter.note_slow(part, Duration::ZERO, took);
            let finding = match outcome {
                Outcome::Status(200) => Finding::Success,
                _ => Finding::Failure,
            };
            encounter.note(part, outcome, finding, Duration::ZERO, took);
            encounter.end(part);
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
            let part = exposure.part(worker);
            let mut encounter = Encounter::new(1, about(&number.to_string()));
            let (status, finding) = match number % 2 {
                0 => (500, Finding::Failure),
                _ => (200, Finding::Success),
            };
            let at = Duration::from_millis(number);
            encounter.note(part, Outcome::Status(status), finding, at, Duration::ZERO);
            encounter.end(part);
        }
        let samples = exposure.samples();
        let ids: Vec<&str> = samples
            .iter()
            .map(|s| s.about.request_id.as_str())
            .collect();
        let expected: Vec<String> = (30..50).map(|half| (2 * half).to_string()).collect();
        assert_eq!(ids, expected);
    }
}
