//! Errors as the API answers them: `application/problem+json` with a stable code (RFC 9457).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::cluster::NotAcknowledged;
use crate::command::Refusal;
use crate::control::AskError;

/// An error answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    /// The connection ends with it.
    closes: bool,
}

/// An error (RFC 9457). Some have further members: `line` and `column` of a body, `current` state,
/// `diagnostics` of a file.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `about:blank`: the title is that of the status.
    #[schema(example = "about:blank")]
    r#type: String,
    /// The status in words.
    #[schema(example = "Conflict")]
    title: String,
    /// The status.
    #[schema(minimum = 400, maximum = 599, example = 409)]
    status: u16,
    /// What it is; never changes its meaning.
    #[schema(example = "target_unhealthy")]
    code: String,
    /// What went wrong, and what to do.
    detail: String,
    /// Whatever else is known.
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
            closes: false,
        }
    }

    /// The same for a request after which nothing can be trusted on its connection.
    pub(crate) const fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Adds a member.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.into(), value);
        self
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Whether the caller's view of the state was outdated.
    pub(crate) fn is_precondition(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED
    }

    /// What it is.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// For whoever answers in another form: the status, what went wrong, and whether the connection ends.
    pub(crate) fn in_short(&self) -> (StatusCode, &str, bool) {
        (self.status, &self.detail, self.closes)
    }

    /// What is answered, or a member of an answer about several services.
    pub(crate) fn body(&self) -> ProblemBody {
        ProblemBody {
            r#type: "about:blank".into(),
            title: self.status.canonical_reason().unwrap_or("Error").into(),
            status: self.status.as_u16(),
            code: self.code.into(),
            detail: self.detail.clone(),
            more: self.more.clone(),
        }
    }
}

/// A change is in force, and not everybody concerned has said so in time.
fn unconfirmed(detail: String) -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "apply_unconfirmed", detail)
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(refusal) => refusal.into(),
            AskError::Unconfirmed(late) => {
                let workers = json!(late.workers);
                let detail = format!("the change is in force, but {late}");
                unconfirmed(detail).with("workers", workers)
            }
            AskError::NotFollowed => unconfirmed(error.to_string()),
            AskError::NotAcknowledged(NotAcknowledged::Away) => {
                unconfirmed(error.to_string()).with("contact", "away".into())
            }
            AskError::NotAcknowledged(NotAcknowledged::Late { ref behind, of }) => {
                unconfirmed(error.to_string())
                    .with("behind", json!(behind))
                    .with("of", of.into())
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::CONFLICT);
        let problem = Self::new(status, refusal.code(), refusal.to_string());
        match refusal {
            Refusal::RevisionMismatch { current, .. } => problem.with("revision", current.into()),
            Refusal::BeforeSwitchFailed { hook, output, .. } => problem
                .with("hook", hook.into())
                .with("output", output.into()),
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            // A hand-over takes a moment, everything else longer.
            let seconds = match self.code {
                "handing_over" => "1",
                _ => "10",
            };
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}
