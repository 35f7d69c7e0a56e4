//! One attempt over HTTP: the request, its signature, and what the answer means.
//!
//! Secrets and authorities are read anew for each attempt, so that changing them needs no reload.
//! Redirects are not followed: they would take a signed message to somebody who was not chosen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use switchback_config::defaults::HOOK_OUTPUT_BYTES;
use switchback_config::model::HttpHook;
use switchback_config::units::TimeSpan;

use super::delivery::CloudEvent;
use super::sign::Secrets;
use super::{Outcome, Verdict, preset};
use crate::outbound::Outbound;

/// As receivers see us.
const USER_AGENT: &str = concat!("switchback/", env!("CARGO_PKG_VERSION"));

/// Sends a message once.
pub(super) async fn post(
    hook: &HttpHook,
    base: &Path,
    event: &CloudEvent,
    patience: Duration,
) -> Outcome {
    let attempt = async {
        let (secrets, authorities) = read_files(hook, base).await?;
        let url = hook.url.parse::<Uri>().map_err(|error| error.to_string())?;
        let request = request(hook, &url, secrets.as_ref(), event)?;
        exchange(&url, authorities.as_deref(), request).await
    };
    within(patience, attempt).await
}

/// Asks a condition: GET, 2xx.
pub(super) async fn get(url: &str, patience: Duration) -> Outcome {
    let attempt = async {
        let url = url.parse::<Uri>().map_err(|error| error.to_string())?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Bytes::new())
            .map_err(|error| error.to_string())?;
        exchange(&url, None, request).await
    };
    within(patience, attempt).await
}

async fn within(
    patience: Duration,
    attempt: impl Future<Output = Result<Outcome, String>>,
) -> Outcome {
    match tokio::time::timeout(patience, attempt).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::failed(error),
        Err(_) => Outcome::failed(format!("no answer within {}", TimeSpan(patience))),
    }
}

/// The secrets and authorities of a hook, from their files.
async fn read_files(
    hook: &HttpHook,
    base: &Path,
) -> Result<(Option<Secrets>, Option<Vec<u8>>), String> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| base.join(path));
    let (secret, ca) = (path(&hook.secret_file), path(&hook.ca));
    if secret.is_none() && ca.is_none() {
        return Ok((None, None));
    }
    let reading = tokio::task::spawn_blocking(move || {
        let secrets = secret.map(|path| secrets(&path)).transpose()?;
        let authorities = ca.map(|path| std::fs::read(&path).map_err(|e| unreadable(&path, &e)));
        Ok((secrets, authorities.transpose()?))
    });
    reading.await.map_err(|error| error.to_string())?
}

/// The secrets of a file.
///
/// # Errors
/// When it cannot be read or holds none.
pub(crate) fn secrets(path: &Path) -> Result<Secrets, String> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Secrets::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("read {}: {error}", path.display())
}

fn request(
    hook: &HttpHook,
    url: &Uri,
    secrets: Option<&Secrets>,
    event: &CloudEvent,
) -> Result<Request<Bytes>, String> {
    let (content_type, body) = preset::body(hook.preset, event);
    let body = body.to_string();
    let mut request = Request::builder()
        .method(hook.method.as_deref().unwrap_or("POST"))
        .uri(preset::path(hook.preset, url))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, USER_AGENT)
        .header("webhook-id", &event.id);
    if let Some(secrets) = secrets {
        let timestamp = Timestamp::now().as_second();
        let signature = secrets.sign(&event.id, timestamp, body.as_bytes());
        request = request
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature);
    }
    for (name, value) in &hook.headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let mut value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    request
        .body(Bytes::from(body))
        .map_err(|error| error.to_string())
}

async fn exchange(
    url: &Uri,
    authorities: Option<&[u8]>,
    request: Request<Bytes>,
) -> Result<Outcome, String> {
    // Not the error's own text: it repeats the URL, and of some the path is the secret.
    let server = Outbound::new(url, authorities)
        .map_err(|_| "the URL or its authorities cannot be used".to_owned())?;
    let response = server
        .send(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Ok(Outcome {
        verdict: verdict(status, retry_after.map(Duration::from_secs)),
        result: status.to_string(),
        output: beginning(response.into_body()).await,
    })
}

/// What an answer means for the message.
fn verdict(status: StatusCode, retry_after: Option<Duration>) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Delivered,
        // The receiver is gone for good, has moved, or will never like this message.
        410 | 300..=399 | 400 | 405 | 413 | 415 | 422 => Verdict::Refused,
        _ => Verdict::Failed { retry_after },
    }
}

/// The first bytes of an answer. What is said after the head changes nothing any more.
async fn beginning(mut body: Incoming) -> String {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = HOOK_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if kept.len() == HOOK_OUTPUT_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_may_change_are_worth_another_attempt() {
        let verdict = |status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            verdict(status, Some(Duration::from_secs(7)))
        };
        for status in [200, 202, 204, 299] {
            assert_eq!(verdict(status), Verdict::Delivered, "{status}");
        }
        for status in [301, 308, 400, 410, 422] {
            assert_eq!(verdict(status), Verdict::Refused, "{status}");
        }
        let retry_after = Some(Duration::from_secs(7));
        for status in [401, 404, 408, 429, 500, 502, 503] {
            assert_eq!(verdict(status), Verdict::Failed { retry_after }, "{status}");
        }
    }
}
