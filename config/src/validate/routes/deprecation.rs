//! What clients are told about the end of a route.

use crate::decode::{Context, Spanned};
use crate::diagnostic::Code;
use crate::model::Deprecation;
use crate::raw;
use crate::validate::texts;

/// Reads what is said about a route's end.
pub(super) fn deprecation(
    written: &Spanned<raw::Deprecation>,
    cx: &Context<'_>,
) -> Option<Deprecation> {
    let raw = &written.value;
    let (since, sunset) = (raw.since.as_ref(), raw.sunset.as_ref());
    if since.is_none() && sunset.is_none() {
        let reason = "this says nothing about when";
        let repair = "add since:, sunset: or both, for example since: 2026-11-01";
        cx.error(Code::MissingKey, written, reason, repair);
        return None;
    }
    if let (Some(since), Some(sunset)) = (since, sunset)
        && sunset.value < since.value
    {
        let reason = "it would be gone before it is deprecated";
        let repair = format!("use {} or later", since.value);
        cx.error(Code::OutOfRange, sunset, reason, repair);
    }
    if let Some(link) = &raw.link
        && let Err(fault) = texts::check_url(&link.value, "a public address")
    {
        cx.error(Code::InvalidValue, link, fault.reason, fault.repair);
    }
    Some(Deprecation {
        since: since.map(|since| since.value),
        sunset: sunset.map(|sunset| sunset.value),
        link: raw.link.as_ref().map(|link| link.value.clone()),
    })
}
