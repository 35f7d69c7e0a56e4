//! The judge of a service: what it looks at, and what its verdict does.

use serde::Serialize;

use super::limits::or_off;
use super::{Rule, Slow};
use crate::units::{Percent, Rate, TimeSpan};

/// The judge of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rollback {
    /// How much more of its requests than stable the canary may fail.
    pub max_extra_errors: Percent,
    /// How much more of its requests than stable may be slow; `None` (`off`): nobody judges that.
    #[serde(serialize_with = "or_off")]
    pub max_extra_slow: Option<Percent>,
    /// From when on a request is slow.
    pub slow: Slow,
    /// At most so many false rollbacks in healthy watched traffic.
    pub false_rollbacks: Rate,
    /// What the canary is compared to.
    pub compare_to: CompareTo,
    /// A rollback needs at least so many canary failures.
    pub min_failures: u32,
    /// A rollback needs at least so many canary requests.
    pub min_requests: u32,
    /// Which outcomes are failures.
    pub errors: Vec<ErrorClass>,
    /// Plain rules, OR-ed with the judge.
    pub rules: Vec<Rule>,
    /// What a verdict does.
    pub on_failure: OnFailure,
    /// After a switch or promote, so long the new stable is on trial and the previous one stays
    /// the rollback target.
    pub window: TimeSpan,
    /// Automatic rollback without a control group.
    pub uncontrolled: Uncontrolled,
    /// A canary without a healthy endpoint for so long is rolled back.
    pub unhealthy_for: TimeSpan,
    /// After a rollback, errors must be back to usual within this time.
    pub verify: TimeSpan,
    /// Whether samples of failed requests show their paths, as templates.
    pub sample_paths: bool,
}

impl Rollback {
    /// Whether it matters how long requests take: they are judged for it, or it makes them failures.
    #[must_use]
    pub fn heeds_time(&self) -> bool {
        self.max_extra_slow.is_some() || self.errors.contains(&ErrorClass::Slow)
    }
}

/// What the canary is compared to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareTo {
    /// To what stable does at the same time: shared outages are no reason to roll back.
    Stable,
    /// Only to what stable did before.
    Before,
}

/// A kind of outcome that counts as a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum ErrorClass {
    /// `1xx` to `5xx`, by the first digit. `5xx` includes the gRPC codes that mean a server fault.
    Class(u8),
    /// One status code, 100 to 599.
    Status(u16),
    /// gRPC status codes, 1 to 16.
    Grpc(Vec<u8>),
    /// No connection to the endpoint.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke before the end of the response.
    Reset,
    /// No response head within `slow`.
    Slow,
}

impl From<ErrorClass> for String {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Class(digit) => format!("{digit}xx"),
            ErrorClass::Status(status) => status.to_string(),
            ErrorClass::Grpc(codes) => {
                let codes: Vec<Self> = codes.iter().map(u8::to_string).collect();
                format!("grpc:{}", codes.join(","))
            }
            ErrorClass::Connect => "connect".into(),
            ErrorClass::Timeout => "timeout".into(),
            ErrorClass::Reset => "reset".into(),
            ErrorClass::Slow => "slow".into(),
        }
    }
}

/// What a verdict does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Takes the canary's weight and blocks its version.
    Rollback,
    /// Freezes the rollout and reports.
    Hold,
    /// Only reports.
    Notify,
}

/// Automatic rollback where there is no control group (stable below 1 %).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncontrolled {
    /// How long after the change a rollback is automatic.
    #[serde(rename = "for")]
    pub span: TimeSpan,
    /// What a verdict does afterwards.
    pub then: OnFailure,
}
