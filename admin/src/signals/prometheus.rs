//! An instant query to Prometheus, or to whatever answers like it.
//!
//! One number is wanted. Of several series the worst counts: one that is bad is enough, as for an alert.
//! `NaN` is what dividing nothing by nothing yields, and says nothing.

use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use serde_json::Value;
use switchback_config::defaults::SIGNAL_ANSWER_BYTES_MAX;
use switchback_config::units::Threshold;

use super::credentials::Credentials;
use super::feed::Measured;

/// Longest part of a server's error that is repeated.
const ERROR_CHARS: usize = 200;

/// Asks for a number now.
///
/// # Errors
/// Why there is none.
pub(super) async fn look(
    server: &str,
    query: &str,
    credentials: &Credentials,
    threshold: Threshold,
    patience: Duration,
) -> Result<Measured, String> {
    let timeout = patience.as_secs_f64().to_string();
    let asked = [("query", query), ("timeout", &timeout)];
    let asked = serde_urlencoded::to_string(asked).map_err(|error| error.to_string())?;
    let server: Uri = server
        .parse()
        .map_err(|error| format!("{server}: {error}"))?;
    let below = server.path().trim_end_matches('/');
    let request = credentials.request(&format!("{below}/api/v1/query?{asked}"))?;
    let outbound = &credentials.outbound;
    let answer = outbound.fetch(request, patience, SIGNAL_ANSWER_BYTES_MAX);
    let answer = answer.await.map_err(|error| error.to_string())?;
    read(answer.status().as_u16(), answer.body(), threshold)
}

#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    data: Option<Found>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    result_type: String,
    result: Value,
}

/// The number of an answer.
fn read(status: u16, body: &[u8], threshold: Threshold) -> Result<Measured, String> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Err(format!("status {status} without an answer to a query"));
    };
    if answer.status != "success" {
        let error = answer.error.unwrap_or_default();
        let error: String = error.chars().take(ERROR_CHARS).collect();
        return Err(format!("status {status}: {}", error.escape_debug()));
    }
    let found = answer.data.ok_or("an answer without a result")?;
    let samples = match found.result_type.as_str() {
        "scalar" => vec![sample(&found.result)],
        "vector" => {
            let series = found.result.as_array().map(Vec::as_slice);
            let series = series.unwrap_or_default().iter();
            series.map(|series| sample(&series["value"])).collect()
        }
        other => return Err(format!("the query yields a {other}, not a number")),
    };
    if samples.is_empty() {
        return Err("the query yields no series".into());
    }
    let numbers = samples.into_iter().flatten();
    let worst = numbers
        .filter(|number| !number.is_nan())
        .reduce(|one, other| threshold.worse(one, other));
    let number = worst.ok_or("the query yields no number (NaN)")?;
    Ok(Measured {
        number,
        bad: threshold.is_met(number),
    })
}

/// `[time, "number"]`.
fn sample(value: &Value) -> Option<f64> {
    value.get(1)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(threshold: &str, status: u16, body: &str) -> Result<(f64, bool), String> {
        let threshold = threshold.parse().expect("a threshold");
        read(status, body.as_bytes(), threshold).map(|found| (found.number, found.bad))
    }

    fn vector(numbers: &[&str]) -> String {
        let series = numbers
            .iter()
            .map(|number| format!(r#"{{"metric":{{}},"value":[1.5,"{number}"]}}"#));
        let series: Vec<String> = series.collect();
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
            series.join(",")
        )
    }

    #[test]
    fn worst_series_counts() {
        assert_eq!(number("> 5", 200, &vector(&["7.2"])), Ok((7.2, true)));
        assert_eq!(number("> 5", 200, &vector(&["5"])), Ok((5.0, false)));
        assert_eq!(
            number("> 5", 200, &vector(&["1", "6", "2"])),
            Ok((6.0, true))
        );
        assert_eq!(
            number("< 5", 200, &vector(&["1", "6", "2"])),
            Ok((1.0, true))
        );
        assert_eq!(number("> 5", 200, &vector(&["NaN", "3"])), Ok((3.0, false)));
        assert_eq!(
            number("> 5", 200, &vector(&["+Inf"])),
            Ok((f64::INFINITY, true))
        );
    }

    #[test]
    fn scalar_is_a_number_too() {
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"6"]}}"#;
        assert_eq!(number("> 5", 200, scalar), Ok((6.0, true)));
    }

    #[test]
    fn whatever_is_no_number_is_missing_data() {
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        let error = r#"{"status":"error","errorType":"bad_data","error":"parse error\nat 1:2"}"#;
        let histogram = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1.5,{}]}]}}"#;
        for (status, body, reason) in [
            (200, vector(&[]).as_str(), "the query yields no series"),
            (200, &vector(&["NaN"]), "the query yields no number (NaN)"),
            (200, histogram, "the query yields no number (NaN)"),
            (200, matrix, "the query yields a matrix, not a number"),
            (400, error, "status 400: parse error\\nat 1:2"),
            (502, "<html>", "status 502 without an answer to a query"),
            (200, "{}", "status 200 without an answer to a query"),
            (200, r#"{"status":"success"}"#, "an answer without a result"),
        ] {
            assert_eq!(number("> 0", status, body), Err(reason.into()));
        }
    }
}
