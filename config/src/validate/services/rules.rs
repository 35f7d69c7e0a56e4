//! The plain rules of a service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::{require, texts};
use crate::decode::{Context, Place, Spanned};
use crate::defaults::{
    RULES_MAX, SIGNAL_EVERY, SIGNAL_EVERY_MIN, SIGNAL_TEXT_BYTES_MAX, SIGNAL_TIMEOUT,
};
use crate::diagnostic::Code;
use crate::model::{RateRule, Rule, Signal, SignalSource};
use crate::raw::{self, RuleItem};
use crate::template::{Subject, Template};
use crate::units::{Percent, StatusRange, TimeSpan, UnitError};

/// Shortest span of a rule about requests: it is looked at in whole seconds.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// Reads the rules.
pub(super) fn rules(written: &Spanned<Vec<RuleItem>>, cx: &Context<'_>) -> Vec<Rule> {
    if written.value.len() > RULES_MAX {
        let reason = format!("{} rules are more than {RULES_MAX}", written.value.len());
        let repair = "combine queries, or remove rules";
        cx.error(Code::TooLarge, written, reason, repair);
        return Vec::new();
    }
    let mut rules = Vec::new();
    let mut names: Vec<(String, Place)> = Vec::new();
    for item in &written.value {
        match &item.value {
            raw::Rule::Text(text) => rules.extend(rate(item, text, cx).map(Rule::Rate)),
            raw::Rule::Signal(raw) => {
                let Some(signal) = signal(item, raw, cx) else {
                    continue;
                };
                let at = raw.name.as_ref().map_or_else(|| item.into(), Place::from);
                check_name_is_new(&signal.name, &at, &names, cx);
                names.push((signal.name.clone(), at));
                rules.push(Rule::Signal(Arc::new(signal)));
            }
        }
    }
    rules
}

fn check_name_is_new(name: &str, at: &Place, names: &[(String, Place)], cx: &Context<'_>) {
    if let Some((_, first)) = names.iter().find(|(known, _)| known == name) {
        let reason = format!("two rules are called {name:?}");
        let other = (first.span, "the first one".into());
        let repair = "give each a name: of its own";
        cx.conflict(Code::DuplicateItem, at.clone(), reason, repair, other);
    }
}

/// Reads `error_rate > 5% for 5m [and not stable]`.
fn rate(at: &RuleItem, text: &str, cx: &Context<'_>) -> Option<RateRule> {
    let parsed = parse_rate(text);
    if parsed.is_none() {
        let repair = "write: error_rate > 5% for 5m, and add \"and not stable\" to let a shared outage veto it; or a table with prometheus: or http:";
        cx.error(Code::InvalidValue, at, "this is not a rule", repair);
    }
    parsed
}

fn parse_rate(text: &str) -> Option<RateRule> {
    let (text, not_stable) = match text.trim().strip_suffix("and not stable") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (threshold, span) = text
        .trim()
        .strip_prefix("error_rate")?
        .trim_start()
        .strip_prefix('>')?
        .split_once(" for ")?;
    let threshold: Percent = threshold.trim().parse().ok()?;
    let span: TimeSpan = span.trim().parse().ok()?;
    let sensible = span.0 >= SPAN_MIN && threshold.millionths() < 1_000_000;
    sensible.then_some(RateRule {
        threshold,
        span,
        not_stable,
    })
}

/// Reads a rule about what is measured elsewhere.
fn signal(at: &RuleItem, raw: &raw::Signal, cx: &Context<'_>) -> Option<Signal> {
    let source = source(at, raw, cx);
    let every = raw
        .every
        .as_ref()
        .map_or(TimeSpan(SIGNAL_EVERY), |every| every.value);
    let timeout = raw.timeout.as_ref().map_or_else(
        || TimeSpan(SIGNAL_TIMEOUT.min(every.0)),
        |timeout| timeout.value,
    );
    let span = require(at, raw.span.as_ref(), "for", cx);
    check_times(raw, every, timeout, cx);
    if let Some(name) = &raw.name {
        texts::check_name(&name.value, name.into(), "rule", cx);
    }
    let source = source?;
    let path =
        |path: &Option<Spanned<String>>| path.as_ref().map(|path| PathBuf::from(&path.value));
    Some(Signal {
        name: match &raw.name {
            Some(name) => name.value.clone(),
            None => source.kind().into(),
        },
        source,
        span: span?.value,
        every,
        timeout,
        ca: path(&raw.ca),
        token_file: path(&raw.token_file),
    })
}

fn check_times(raw: &raw::Signal, every: TimeSpan, timeout: TimeSpan, cx: &Context<'_>) {
    if let Some(written) = raw.every.as_ref().filter(|_| every.0 < SIGNAL_EVERY_MIN) {
        let reason = "looks so often are load, not information";
        let repair = format!("use {} or more", TimeSpan(SIGNAL_EVERY_MIN));
        cx.error(Code::OutOfRange, written, reason, repair);
    }
    let outside = timeout > every || timeout.0.is_zero();
    if let Some(written) = raw.timeout.as_ref().filter(|_| outside) {
        let reason = "a look must end before the next one begins";
        let repair = format!("use more than 0s and at most {every}");
        cx.error(Code::OutOfRange, written, reason, repair);
    }
    if let Some(span) = raw.span.as_ref().filter(|span| span.value < every) {
        let reason = format!("it is looked at every {every} only: one bad answer would be enough");
        let repair = format!("use {every} or more, or a shorter every:");
        cx.error(Code::OutOfRange, span, reason, repair);
    }
}

fn source(at: &RuleItem, raw: &raw::Signal, cx: &Context<'_>) -> Option<SignalSource> {
    match (&raw.prometheus, &raw.http) {
        (Some(server), None) => prometheus(at, raw, server, cx),
        (None, Some(url)) => http(raw, url, cx),
        (Some(_), Some(url)) => {
            let reason = "a rule asks prometheus or http, not both";
            cx.error(Code::Contradiction, url, reason, "make two rules of it");
            None
        }
        (None, None) => {
            let reason = "this rule asks nobody";
            let repair = "write prometheus: with query: and threshold:, or http:";
            cx.error(Code::MissingKey, at, reason, repair);
            None
        }
    }
}

fn prometheus(
    at: &RuleItem,
    raw: &raw::Signal,
    server: &Spanned<String>,
    cx: &Context<'_>,
) -> Option<SignalSource> {
    if let Some(expect) = &raw.expect {
        let reason = "expect: is about statuses of http: checks";
        cx.error(
            Code::Contradiction,
            expect,
            reason,
            "remove it, and use threshold:",
        );
    }
    let is_url = is_url(server, &server.value, raw, cx);
    if is_url && server.value.contains('?') {
        let reason = "the address of a server has no query";
        let repair = "write what to ask into query:";
        cx.error(Code::InvalidValue, server, reason, repair);
    }
    let query = require(at, raw.query.as_ref(), "query", cx);
    let query = query.and_then(|query| template(query, Template::promql, cx));
    let threshold = require(at, raw.threshold.as_ref(), "threshold", cx);
    Some(SignalSource::Prometheus {
        prometheus: server.value.trim_end_matches('/').to_owned(),
        query: query.filter(|_| is_url)?,
        threshold: threshold?.value,
    })
}

fn http(raw: &raw::Signal, written: &Spanned<String>, cx: &Context<'_>) -> Option<SignalSource> {
    let misplaced = [
        raw.query.as_ref().map(Place::from),
        raw.threshold.as_ref().map(Place::from),
    ];
    for at in misplaced.into_iter().flatten() {
        let reason = "this belongs to prometheus: queries";
        let repair = "remove it; an http: check goes by its status";
        cx.error(Code::Contradiction, at, reason, repair);
    }
    let expect = match &raw.expect {
        None => Some(StatusRange::SUCCESS),
        Some(expect) => expect
            .value
            .parse()
            .map_err(|fault: UnitError| {
                cx.error(Code::InvalidValue, expect, fault.reason, fault.repair);
            })
            .ok(),
    };
    let http = template(written, Template::url, cx);
    let http = http.filter(|http| is_url(written, &http.fill(ANYTHING), raw, cx));
    Some(SignalSource::Http {
        http: http?,
        expect: expect?,
    })
}

/// Stands for what is watched while a URL is checked.
const ANYTHING: Subject<'_> = Subject {
    service: "s",
    backend: "b",
    version: "v",
};

/// Checks a URL, and that TLS settings have something to do with it.
fn is_url<T>(at: &Spanned<T>, url: &str, raw: &raw::Signal, cx: &Context<'_>) -> bool {
    if let Err(fault) = texts::check_url(url, "token_file:") {
        cx.error(Code::InvalidValue, at, fault.reason, fault.repair);
        return false;
    }
    if let Some(ca) = raw.ca.as_ref().filter(|_| url.starts_with("http://")) {
        let reason = "there is no TLS with http://";
        cx.warning(Code::UnusedTls, ca, reason, "write https://, or remove ca");
    }
    true
}

fn template(
    written: &Spanned<String>,
    read: fn(&str) -> Result<Template, UnitError>,
    cx: &Context<'_>,
) -> Option<Template> {
    let text = written.value.as_str();
    if text.trim().is_empty() {
        let reason = "there is nothing in it";
        cx.error(Code::MissingKey, written, reason, "write what to ask");
        return None;
    }
    if text.len() > SIGNAL_TEXT_BYTES_MAX {
        let reason = format!("{} bytes are more than {SIGNAL_TEXT_BYTES_MAX}", text.len());
        let repair = "use a recording rule, and ask for that";
        cx.error(Code::TooLarge, written, reason, repair);
        return None;
    }
    read(text)
        .map_err(|fault| cx.error(Code::InvalidValue, written, fault.reason, fault.repair))
        .ok()
}
