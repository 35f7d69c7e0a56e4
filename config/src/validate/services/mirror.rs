//! Mirroring. The copies are really executed: a method that may change something needs to be asked
//! for by name, and is warned about even then.

use indexmap::IndexMap;

use super::{SAFE_METHODS, check_unique, require, values};
use crate::decode::{Context, Spanned};
use crate::defaults;
use crate::diagnostic::Code;
use crate::model::{Backend, Mirror, Name};
use crate::raw;
use crate::suggest;
use crate::units::TimeSpan;
use crate::validate::texts;

/// Reads the mirror of a service.
pub(super) fn mirror(
    written: &Spanned<raw::Mirror>,
    backends: &IndexMap<Name, Backend>,
    stable: &Name,
    cx: &Context<'_>,
) -> Option<Mirror> {
    let raw = &written.value;
    let to = require(written, raw.to.as_ref(), "to", cx);
    if let Some(to) = to {
        check_target(to, backends, stable, cx);
    }
    check_methods(raw, cx);
    check_bounds(raw, cx);
    let default = defaults::mirror(to?.value.clone());
    Some(Mirror {
        share: raw
            .share
            .as_ref()
            .map_or(default.share, |share| share.value),
        methods: match &raw.methods {
            None => default.methods,
            written => values(written.as_ref()),
        },
        max_body: raw
            .max_body
            .as_ref()
            .map_or(default.max_body, |max_body| max_body.value),
        timeout: raw
            .timeout
            .as_ref()
            .map_or(default.timeout, |timeout| timeout.value),
        concurrency: raw
            .concurrency
            .as_ref()
            .map_or(default.concurrency, |written| written.value.get()),
        judge: raw.judge.as_ref().is_some_and(|judge| judge.value),
        ..default
    })
}

fn check_target(
    to: &Spanned<String>,
    backends: &IndexMap<Name, Backend>,
    stable: &Name,
    cx: &Context<'_>,
) {
    let others: Vec<&str> = backends
        .keys()
        .filter(|name| *name != stable)
        .map(String::as_str)
        .collect();
    if to.value == *stable {
        let reason = "copies of stable's requests are for another backend than stable";
        let repair = if others.is_empty() {
            "add the backend that is to get the copies, or remove mirror".to_owned()
        } else {
            format!("use {}", others.join(" or "))
        };
        cx.error(Code::Contradiction, to, reason, repair);
    } else if !backends.contains_key(&to.value) {
        let reason = format!("there is no backend {:?} in this service", to.value);
        let repair = suggest::repair(&to.value, &others, "backend");
        cx.error(Code::DanglingName, to, reason, repair);
    }
}

fn check_methods(raw: &raw::Mirror, cx: &Context<'_>) {
    let Some(methods) = &raw.methods else {
        return;
    };
    if methods.value.is_empty() {
        let reason = "no request has one of no methods";
        let repair = "list methods such as GET, or remove mirror";
        cx.error(Code::MissingKey, methods, reason, repair);
    }
    check_unique(&methods.value, "method", cx);
    for method in &methods.value {
        if !texts::is_method(&method.value) {
            let reason = format!("{:?} is not a method", method.value);
            let repair = format!("write {}", method.value.to_ascii_uppercase());
            cx.error(Code::InvalidValue, method, reason, repair);
        } else if !SAFE_METHODS.contains(&&*method.value) {
            let reason = format!(
                "the mirrored backend really executes every copied {}",
                method.value
            );
            let repair = "keep it only if what it changes there is not what users depend on";
            cx.warning(Code::UnsafeMethod, method, reason, repair);
        }
    }
}

fn check_bounds(raw: &raw::Mirror, cx: &Context<'_>) {
    if let Some(max_body) = &raw.max_body
        && max_body.value.0 > defaults::MIRROR_BODY_MAX
    {
        let reason = "bodies are kept in memory until stable has answered";
        cx.error(Code::OutOfRange, max_body, reason, "use 1MiB or less");
    }
    if let Some(timeout) = &raw.timeout {
        let bounds = defaults::MIRROR_TIME_BOUNDS;
        if timeout.value.0 < bounds.0 || timeout.value.0 > bounds.1 {
            let (least, most) = (TimeSpan(bounds.0), TimeSpan(bounds.1));
            let reason = "copies that wait for so long, or for nothing, compare nothing";
            let repair = format!("use {least} to {most}");
            cx.error(Code::OutOfRange, timeout, reason, repair);
        }
    }
    if let Some(concurrency) = &raw.concurrency
        && concurrency.value.get() > defaults::MIRROR_CONCURRENCY_MAX
    {
        let reason = "every copy holds memory and a connection";
        let repair = format!("use {} or less", defaults::MIRROR_CONCURRENCY_MAX);
        cx.error(Code::OutOfRange, concurrency, reason, repair);
    }
}
