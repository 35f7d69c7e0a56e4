//! What applications are answered: one flag, or all of them.
//!
//! Pure: a table of flags, the time and a question in, a response out. A closed kill switch is answered
//! with 200 and its value, not with an error: asked in vain, an application would go by a default of its
//! own, and that may well be on.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use switchback_proxy::flag::{Asker, FlagTable, LiveFlag, evaluate};
use switchback_proxy::split::key_hash;

use crate::api::body::check;
use crate::auth::hex;

/// Below this, each flag has its own path.
const FLAGS: &str = "/ofrep/v1/evaluate/flags";

/// Name of the attribute by which keys are spread.
const KEY: &str = "targetingKey";

/// What an application asks.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// `If-None-Match`: the answers it knows already.
    pub(super) known: Option<&'a HeaderValue>,
    pub(super) body: &'a Bytes,
}

/// What one flag says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Said<'a> {
    #[serde(rename_all = "camelCase")]
    Value {
        key: &'a str,
        value: &'a Value,
        variant: &'a str,
        reason: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    Fault {
        key: &'a str,
        error_code: &'static str,
        error_details: String,
    },
}

/// All that applications can ask.
pub(super) fn answer(
    table: &FlagTable,
    now: Instant,
    question: &Question<'_>,
) -> Response<Full<Bytes>> {
    let Some(rest) = question.path.strip_prefix(FLAGS) else {
        return nothing_here();
    };
    let name = match rest.strip_prefix('/') {
        Some(name) if !name.is_empty() && !name.contains('/') => Some(name),
        None if rest.is_empty() => None,
        Some("") => None,
        _ => return nothing_here(),
    };
    if question.method != Method::POST {
        let detail = "flags are asked for with POST";
        return fault(StatusCode::METHOD_NOT_ALLOWED, "GENERAL", detail);
    }
    let (context, key) = match read(question.body) {
        Ok(read) => read,
        Err((code, detail)) => return fault(StatusCode::BAD_REQUEST, code, &detail),
    };
    let asker = Asker {
        key,
        context: &context,
    };
    match name {
        Some(name) => one(table, name, now, asker),
        None => all(table, now, asker, question.known),
    }
}

fn nothing_here() -> Response<Full<Bytes>> {
    let detail = "ask POST /ofrep/v1/evaluate/flags, or one of them below it";
    fault(StatusCode::NOT_FOUND, "GENERAL", detail)
}

/// The context of a question, and the hash of its targeting key.
type Read = (Map<String, Value>, Option<u64>);

/// Reads the body of a question, or says what is wrong with it: the code, and in words.
fn read(body: &Bytes) -> Result<Read, (&'static str, String)> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    let unreadable = |error: serde_json::Error| ("PARSE_ERROR", error.to_string());
    check(text).map_err(unreadable)?;
    let mut asked: Map<String, Value> = serde_json::from_slice(text).map_err(unreadable)?;
    let context = match asked.remove("context") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(("PARSE_ERROR", "context is a map of attributes".into())),
    };
    let key = match context.get(KEY) {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => (!key.is_empty()).then(|| key_hash(key.as_bytes())),
        Some(_) => return Err(("INVALID_CONTEXT", format!("{KEY} is text"))),
    };
    Ok((context, key))
}

fn one(table: &FlagTable, name: &str, now: Instant, asker: Asker<'_>) -> Response<Full<Bytes>> {
    let Some(live) = table.flags.get(name) else {
        let said = Said::Fault {
            key: name,
            error_code: "FLAG_NOT_FOUND",
            error_details: format!("there is no flag {name:?}"),
        };
        return response(StatusCode::NOT_FOUND, json_of(&said));
    };
    let said = say(table, name, live, now, asker);
    let status = match said {
        Said::Value { .. } => StatusCode::OK,
        Said::Fault { .. } => StatusCode::BAD_REQUEST,
    };
    response(status, json_of(&said))
}

/// What a flag says, which is counted.
fn say<'a>(
    table: &FlagTable,
    name: &'a str,
    live: &'a LiveFlag,
    now: Instant,
    asker: Asker<'_>,
) -> Said<'a> {
    match evaluate(&live.flag, &table.trust, now, asker) {
        Ok(answer) => {
            live.count(answer.variant);
            Said::Value {
                key: name,
                value: answer.value,
                variant: answer.variant,
                reason: answer.reason.as_str(),
            }
        }
        Err(switchback_proxy::flag::NoKey) => Said::Fault {
            key: name,
            error_code: "TARGETING_KEY_MISSING",
            error_details: format!("{name} is given to a share of keys, and there is no {KEY}"),
        },
    }
}

fn all(
    table: &FlagTable,
    now: Instant,
    asker: Asker<'_>,
    known: Option<&HeaderValue>,
) -> Response<Full<Bytes>> {
    let said: Vec<Said<'_>> = table
        .flags
        .iter()
        .map(|(name, live)| say(table, name, live, now, asker))
        .collect();
    let text = json_of(&json!({"flags": said}));
    let tag = format!("\"{}\"", &hex(&Sha256::digest(&text))[..32]);
    let mut response = match known.is_some_and(|known| names(known, &tag)) {
        true => response(StatusCode::NOT_MODIFIED, Vec::new()),
        false => response(StatusCode::OK, text),
    };
    // Hexadecimal digits in quotes.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether a list of tags names one, by the weak comparison of RFC 9110.
fn names(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    let mut tags = known.split(',').map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn json_of(value: &impl Serialize) -> Vec<u8> {
    // Names, values that were JSON before, and words.
    serde_json::to_vec(value).unwrap_or_default()
}

fn response(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NOT_MODIFIED {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// An answer that is about no flag.
pub(super) fn fault(status: StatusCode, code: &'static str, detail: &str) -> Response<Full<Bytes>> {
    let body = json!({"errorCode": code, "errorDetails": detail});
    let mut response = response(status, json_of(&body));
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use switchback_config::parse_flag;
    use switchback_proxy::flag::Trust;

    use super::*;

    #[test]
    fn known_answers_are_recognised_in_lists_and_weak() {
        for (known, expected) in [
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let known = HeaderValue::from_str(known).expect("a header value");
            assert_eq!(names(&known, "\"a\""), expected, "{known:?}");
        }
    }

    #[test]
    fn same_context_gets_the_same_tag_and_another_one_another() {
        let now = Instant::now();
        let flag = parse_flag("share: 50%").expect("a flag");
        let mut table = FlagTable::empty(Trust::new(now));
        let live = LiveFlag::new(flag);
        table.flags.insert("half".into(), std::sync::Arc::new(live));
        let tag = |user: u32| {
            let body = Bytes::from(format!("{{\"context\":{{\"targetingKey\":\"u{user}\"}}}}"));
            let question = Question {
                method: &Method::POST,
                path: "/ofrep/v1/evaluate/flags/",
                known: None,
                body: &body,
            };
            answer(&table, now, &question).headers()[header::ETAG].clone()
        };
        let tags: std::collections::BTreeSet<_> = (0..50)
            .map(|user| tag(user).to_str().map(str::to_owned).ok())
            .collect();
        assert_eq!(tags.len(), 2, "on and off: {tags:?}");
        assert_eq!(tag(1), tag(1));
    }
}
