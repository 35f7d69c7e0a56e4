//! How one attempt at a backend ended, and whether the judge may hold it against the version.
//!
//! Pure. Three answers exist, and the middle one keeps the judge honest: success, failure, and "says
//! nothing". What clients do (going away, sending nonsense, being too slow) and what the proxy
//! refuses by itself says nothing about a version; an attacker must not be able to roll a release
//! back by hanging up.

use switchback_config::model::ErrorClass;

/// How one attempt at a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response with this status.
    Status(u16),
    /// A complete gRPC response: the HTTP status and the code from the trailers, if there were any.
    Grpc(u16, Option<u8>),
    /// No connection could be made.
    Connect,
    /// No answer, or no further byte of it, in time.
    Timeout,
    /// The connection broke, or what came was not valid HTTP.
    Reset,
    /// The client went away, or did not take or send its part.
    ClientGone,
    /// A kept-alive connection turned out to have been closed while it was idle.
    Stale,
    /// Nothing was sent, by the proxy's own decision.
    NotSent,
}

/// What an outcome says about the version that served it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It worked.
    Success,
    /// It failed.
    Failure,
    /// Nothing.
    NotCounted,
}

/// The classes of `code_class` in metrics, in the order of [`Outcome::class`].
pub const CLASSES: [&str; 9] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "connect",
    "timeout",
    "reset",
    "client_gone",
];

/// How a copy of a request can end otherwise than its original: it failed and the original did not;
/// the other way round; a status of another class; another status (or gRPC code) of the same class.
pub const DIFFERENCES: [&str; 4] = ["failed", "repaired", "class", "status"];

/// How a copy ended otherwise than its original, as an index into [`DIFFERENCES`].
#[must_use]
pub fn difference(rules: &ErrorRules, original: Outcome, copy: Outcome) -> Option<usize> {
    match (
        rules.find(original) == Finding::Failure,
        rules.find(copy) == Finding::Failure,
    ) {
        (false, true) => Some(0),
        (true, false) => Some(1),
        _ if original.class() != copy.class() => Some(2),
        _ => (original != copy).then_some(3),
    }
}

impl Outcome {
    /// Index into [`CLASSES`]; none for attempts that sent nothing.
    #[must_use]
    pub fn class(self) -> Option<usize> {
        match self {
            Self::Status(status) | Self::Grpc(status, _) => {
                Some(usize::from(status / 100).clamp(1, 5) - 1)
            }
            Self::Connect => Some(5),
            Self::Timeout => Some(6),
            Self::Reset | Self::Stale => Some(7),
            Self::ClientGone => Some(8),
            Self::NotSent => None,
        }
    }
}

/// Which outcomes of a service are failures, ready for one look-up a request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ErrorRules {
    /// One bit for each status from 100 to 599.
    statuses: [u64; 8],
    /// One bit for each gRPC code from 0 to 16.
    grpc: u32,
    server_errors: bool,
    connect: bool,
    timeout: bool,
    reset: bool,
    slow: bool,
}

/// gRPC codes that mean a fault of the server: unknown, deadline exceeded, unimplemented, internal,
/// unavailable, data loss. They count wherever `5xx` counts.
const GRPC_SERVER_ERRORS: u32 = 1 << 2 | 1 << 4 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15;

impl ErrorRules {
    /// The rules for a list of classes.
    #[must_use]
    pub fn new(classes: &[ErrorClass]) -> Self {
        let mut rules = Self::default();
        for class in classes {
            match class {
                ErrorClass::Class(digit) => {
                    let first = u16::from(*digit) * 100;
                    (first..first + 100).for_each(|status| rules.add(status));
                    if *digit == 5 {
                        rules.server_errors = true;
                        rules.grpc |= GRPC_SERVER_ERRORS;
                    }
                }
                ErrorClass::Status(status) => rules.add(*status),
                ErrorClass::Grpc(codes) => codes
                    .iter()
                    .for_each(|code| rules.grpc |= 1_u32.checked_shl((*code).into()).unwrap_or(0)),
                ErrorClass::Connect => rules.connect = true,
                ErrorClass::Timeout => rules.timeout = true,
                ErrorClass::Reset => rules.reset = true,
                ErrorClass::Slow => rules.slow = true,
            }
        }
        rules
    }

    fn add(&mut self, status: u16) {
        if let Some((word, bit)) = place(status) {
            self.statuses[word] |= bit;
        }
    }

    /// Whether a response with this status alone is a failure, before its body is seen.
    #[must_use]
    pub fn status_fails(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.statuses[word] & bit != 0)
    }

    /// Whether a request that waits for too long is a failure, however it ends.
    #[must_use]
    pub const fn slow_fails(&self) -> bool {
        self.slow
    }

    /// What an outcome says about the version that served it.
    #[must_use]
    pub fn find(&self, outcome: Outcome) -> Finding {
        let failed = match outcome {
            Outcome::ClientGone | Outcome::Stale | Outcome::NotSent => return Finding::NotCounted,
            Outcome::Status(status) => self.status_fails(status),
            Outcome::Grpc(status, Some(code)) => {
                self.status_fails(status)
                    || 1_u32
                        .checked_shl(code.into())
                        .is_some_and(|bit| self.grpc & bit != 0)
            }
            Outcome::Grpc(status, None) => {
                self.status_fails(status) || self.server_errors || self.reset
            }
            Outcome::Connect => self.connect,
            Outcome::Timeout => self.timeout,
            Outcome::Reset => self.reset,
        };
        if failed {
            Finding::Failure
        } else {
            Finding::Success
        }
    }
}

fn place(status: u16) -> Option<(usize, u64)> {
    let index = usize::from(status.checked_sub(100)?);
    (index < 500).then(|| (index / 64, 1 << (index % 64)))
}

/// Reads a `grpc-status` value.
#[must_use]
pub fn grpc_code(value: &[u8]) -> Option<u8> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> ErrorRules {
        ErrorRules::new(&[
            ErrorClass::Class(5),
            ErrorClass::Connect,
            ErrorClass::Timeout,
            ErrorClass::Reset,
        ])
    }

    #[test]
    fn server_errors_and_broken_connections_are_failures_by_default() {
        for (outcome, finding) in [
            (Outcome::Status(200), Finding::Success),
            (Outcome::Status(404), Finding::Success),
            (Outcome::Status(499), Finding::Success),
            (Outcome::Status(500), Finding::Failure),
            (Outcome::Status(599), Finding::Failure),
            (Outcome::Grpc(200, Some(0)), Finding::Success),
            (Outcome::Grpc(200, Some(5)), Finding::Success),
            (Outcome::Grpc(200, Some(14)), Finding::Failure),
            (Outcome::Grpc(200, None), Finding::Failure),
            (Outcome::Grpc(503, Some(0)), Finding::Failure),
            (Outcome::Grpc(200, Some(200)), Finding::Success),
            (Outcome::Connect, Finding::Failure),
            (Outcome::Timeout, Finding::Failure),
            (Outcome::Reset, Finding::Failure),
            (Outcome::ClientGone, Finding::NotCounted),
            (Outcome::Stale, Finding::NotCounted),
            (Outcome::NotSent, Finding::NotCounted),
        ] {
            assert_eq!(defaults().find(outcome), finding, "{outcome:?}");
        }
    }

    #[test]
    fn listed_classes_are_the_only_failures() {
        let rules = ErrorRules::new(&[
            ErrorClass::Status(503),
            ErrorClass::Status(429),
            ErrorClass::Grpc(vec![13, 16]),
        ]);
        for (outcome, finding) in [
            (Outcome::Status(503), Finding::Failure),
            (Outcome::Status(429), Finding::Failure),
            (Outcome::Status(502), Finding::Success),
            (Outcome::Connect, Finding::Success),
            (Outcome::Grpc(200, Some(13)), Finding::Failure),
            (Outcome::Grpc(200, Some(16)), Finding::Failure),
            (Outcome::Grpc(200, Some(14)), Finding::Success),
            (Outcome::Grpc(200, None), Finding::Success),
        ] {
            assert_eq!(rules.find(outcome), finding, "{outcome:?}");
        }
    }

    #[test]
    fn copies_differ_by_failing_by_class_or_by_status() {
        let (ok, found, gone) = (
            Outcome::Status(200),
            Outcome::Status(204),
            Outcome::Status(404),
        );
        let (broken, overloaded) = (Outcome::Status(500), Outcome::Status(503));
        for (original, copy, expected) in [
            (ok, ok, None),
            (ok, found, Some("status")),
            (ok, gone, Some("class")),
            (ok, broken, Some("failed")),
            (gone, Outcome::Timeout, Some("failed")),
            (broken, ok, Some("repaired")),
            (Outcome::Reset, gone, Some("repaired")),
            (broken, broken, None),
            (broken, overloaded, Some("status")),
            (broken, Outcome::Connect, Some("class")),
            (
                Outcome::Grpc(200, Some(0)),
                Outcome::Grpc(200, Some(5)),
                Some("status"),
            ),
            (
                Outcome::Grpc(200, Some(0)),
                Outcome::Grpc(200, Some(13)),
                Some("failed"),
            ),
        ] {
            let found = difference(&defaults(), original, copy).map(|index| DIFFERENCES[index]);
            assert_eq!(found, expected, "{original:?}, {copy:?}");
        }
    }

    #[test]
    fn every_outcome_that_sent_something_has_a_class() {
        assert_eq!(
            Outcome::Status(204).class().map(|c| CLASSES[c]),
            Some("2xx")
        );
        assert_eq!(
            Outcome::Status(599).class().map(|c| CLASSES[c]),
            Some("5xx")
        );
        assert_eq!(
            Outcome::Timeout.class().map(|c| CLASSES[c]),
            Some("timeout")
        );
        assert_eq!(Outcome::NotSent.class(), None);
    }
}
