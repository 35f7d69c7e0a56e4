//! Plain rules beside the judge: about the canary's requests, or about what somebody else says of it.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Name;
use crate::template::Template;
use crate::units::{Percent, StatusRange, Threshold, TimeSpan};

/// A plain rule; any of them is enough.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Rule {
    /// About the requests of the watched version.
    Rate(RateRule),
    /// About what is measured elsewhere.
    Signal(Arc<Signal>),
}

/// `error_rate > 5% for 5m`, optionally followed by `and not stable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct RateRule {
    /// Failures / requests above which a bucket counts.
    pub threshold: Percent,
    /// How long it must stay so.
    pub span: TimeSpan,
    /// Whether a shared outage vetoes the rule.
    pub not_stable: bool,
}

impl From<RateRule> for String {
    fn from(rule: RateRule) -> Self {
        let veto = if rule.not_stable {
            " and not stable"
        } else {
            ""
        };
        format!("error_rate > {} for {}{veto}", rule.threshold, rule.span)
    }
}

/// What somebody else says about the watched version: looked at again and again while it has weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signal {
    /// How it is called in sentences, events and metrics; unique in its service.
    pub name: Name,
    /// Who is asked, and when the answer is bad.
    #[serde(flatten)]
    pub source: SignalSource,
    /// How long the answer must be bad.
    #[serde(rename = "for")]
    pub span: TimeSpan,
    /// From one look to the next.
    pub every: TimeSpan,
    /// How long one look may take, at most `every`.
    pub timeout: TimeSpan,
    /// PEM file with the authorities to trust instead of the system's, for https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// File whose text is sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// Who is asked, and when the answer is bad.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SignalSource {
    /// A Prometheus server, or one that answers like it.
    Prometheus {
        /// Its URL, without a slash at its end.
        prometheus: String,
        /// What it is asked.
        query: Template,
        /// Which numbers are bad.
        threshold: Threshold,
    },
    /// A URL of the user's own.
    Http {
        /// The URL.
        http: Template,
        /// Which statuses are good.
        expect: StatusRange,
    },
}

impl SignalSource {
    /// `prometheus` or `http`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Prometheus { .. } => "prometheus",
            Self::Http { .. } => "http",
        }
    }
}
