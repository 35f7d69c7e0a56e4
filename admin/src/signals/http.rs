//! An HTTP check: its status is the answer. Redirects are not followed.

use std::time::Duration;

use http::Uri;
use switchback_config::units::{StatusRange, TimeSpan};

use super::credentials::Credentials;
use super::feed::Measured;

/// Asks a URL. No answer at all says nothing about any version.
///
/// # Errors
/// Why there is no status.
pub(super) async fn look(
    url: &str,
    credentials: &Credentials,
    expect: StatusRange,
    patience: Duration,
) -> Result<Measured, String> {
    let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let request = credentials.request(target)?;
    let answer = tokio::time::timeout(patience, credentials.outbound.send(request)).await;
    let answer = answer.map_err(|_| format!("no answer within {}", TimeSpan(patience)))?;
    let status = answer.map_err(|error| error.to_string())?.status().as_u16();
    Ok(Measured {
        number: status.into(),
        bad: !expect.contains(status),
    })
}
