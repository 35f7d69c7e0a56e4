//! What whoever looks at a signal and the watch of its version tell each other. Neither waits.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::{Signal, SignalSource};
use switchback_config::template::Subject;
use switchback_judge::SignalStanding;
use utoipa::ToSchema;

/// A signal of one version.
#[derive(Debug)]
pub struct Feed {
    signal: Arc<Signal>,
    /// What is asked, with everything filled in.
    asks: String,
    look: ArcSwapOption<Look>,
    view: ArcSwapOption<SignalView>,
}

/// What a look brought.
#[derive(Debug)]
pub(crate) struct Look {
    /// Grows with every look.
    pub(crate) number: u64,
    /// A number, or why there is none.
    pub(crate) outcome: Result<Measured, String>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The number a query yields, or the status of a check.
    pub number: f64,
    /// Whether that is bad.
    pub bad: bool,
}

/// What is shown of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Signal)]
pub struct SignalView {
    /// Its name.
    pub name: String,
    /// The backend it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `prometheus` or `http`.
    pub source: &'static str,
    /// How it stands.
    pub state: SignalCondition,
    /// What the last look brought; a status for `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What would be bad: `> 5`, `not 200-299`.
    pub threshold: String,
    /// How long it must be bad.
    #[serde(rename = "for")]
    pub span: String,
    /// Since when it is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Why the last look brought nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a signal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignalCondition {
    /// Not bad.
    Ok,
    /// Bad, but not for long enough; holds a rollout.
    Pending,
    /// Was bad for long enough.
    Firing,
    /// Nothing recent is known; holds a rollout.
    Missing,
    /// No version has weight, and nobody is asked.
    Idle,
}

impl SignalCondition {
    /// Those of watched versions, as they are called.
    pub(crate) const WATCHED: [(Self, &'static str); 4] = [
        (Self::Ok, "ok"),
        (Self::Pending, "pending"),
        (Self::Firing, "firing"),
        (Self::Missing, "missing"),
    ];
}

impl From<SignalStanding> for SignalCondition {
    fn from(standing: SignalStanding) -> Self {
        match standing {
            SignalStanding::Missing => Self::Missing,
            SignalStanding::Fine => Self::Ok,
            SignalStanding::Pending => Self::Pending,
            SignalStanding::Firing => Self::Firing,
        }
    }
}

impl Feed {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new(signal: &Arc<Signal>, subject: Subject<'_>) -> Self {
        let template = match &signal.source {
            SignalSource::Prometheus { query, .. } => query,
            SignalSource::Http { http, .. } => http,
        };
        Self {
            asks: template.fill(subject),
            signal: signal.clone(),
            look: ArcSwapOption::empty(),
            view: ArcSwapOption::empty(),
        }
    }

    /// The rule it belongs to.
    #[must_use]
    pub const fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// The query or URL, with everything filled in.
    #[must_use]
    pub fn asks(&self) -> &str {
        &self.asks
    }

    /// Puts what a look brought. Only one task does.
    pub(crate) fn put(&self, outcome: Result<Measured, String>) {
        let number = self.look.load().as_ref().map_or(1, |last| last.number + 1);
        self.look.store(Some(Arc::new(Look { number, outcome })));
    }

    /// What the last look brought.
    pub(crate) fn look(&self) -> Option<Arc<Look>> {
        self.look.load_full()
    }

    /// What is shown of it.
    #[must_use]
    pub fn view(&self) -> Option<Arc<SignalView>> {
        self.view.load_full()
    }

    pub(crate) fn show(&self, view: SignalView) {
        self.view.store(Some(Arc::new(view)));
    }
}

/// A measured number in words: `7.2 > 5`, `status 503`, `3 (bad: > 5)`.
pub(crate) fn in_words(signal: &Signal, measured: Measured) -> String {
    match &signal.source {
        SignalSource::Prometheus { threshold, .. } if measured.bad => {
            format!("{} {threshold}", rounded(measured.number))
        }
        SignalSource::Prometheus { threshold, .. } => {
            format!("{} (bad: {threshold})", rounded(measured.number))
        }
        SignalSource::Http { .. } => format!("status {}", measured.number),
    }
}

/// What is bad, in words: `> 5`, `not 200-299`.
pub(crate) fn bad_in_words(signal: &Signal) -> String {
    match &signal.source {
        SignalSource::Prometheus { threshold, .. } => threshold.to_string(),
        SignalSource::Http { expect, .. } => format!("not {expect}"),
    }
}

/// Four digits are enough to read.
fn rounded(number: f64) -> String {
    if !number.is_finite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let digits_before_point = number.abs().log10().floor();
    if !(-4.0..15.0).contains(&digits_before_point) && number != 0.0 {
        return format!("{number:.3e}");
    }
    let decimals = [3.0, 2.0, 1.0, 0.0]
        .iter()
        .position(|digits| digits_before_point >= *digits)
        .unwrap_or(7);
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_digits_that_matter() {
        for (number, text) in [
            (0.0, "0"),
            (7.2, "7.2"),
            (7.199_999_9, "7.2"),
            (0.051_234_5, "0.0512345"),
            (1234.56, "1235"),
            (12.3456, "12.35"),
            (-3.0, "-3"),
            (1e-9, "1.000e-9"),
            (1e20, "1.000e20"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(rounded(number), text);
        }
    }
}
