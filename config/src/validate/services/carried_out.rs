//! What a program carries out for a backend, so that its times are those of a way back. Only a program is
//! done when it ends: what answers a request has perhaps not even begun.

use indexmap::IndexMap;

use super::require;
use crate::decode::{Context, Spanned};
use crate::diagnostic::Code;
use crate::model::{Backend, CarriedOut, HookEvent, Name};
use crate::raw;
use crate::suggest;

/// Reads what a hook carries out. `on`: what it is told of.
pub(super) fn carried_out(
    raw: &raw::Hook,
    on: &[HookEvent],
    backends: Option<&IndexMap<Name, Backend>>,
    cx: &Context<'_>,
) -> Option<CarriedOut> {
    let written = raw.carries_out.as_ref()?;
    if raw.run.is_none() {
        let reason = "only a program has done its work when it ends";
        let repair = "remove it, or use run: with a program that waits until all is done";
        cx.error(Code::Contradiction, written, reason, repair);
    }
    if !on.contains(&HookEvent::Rollback) {
        let reason = "a way back is gone when a version was rolled back";
        let repair = "add rollback to on:, or remove it";
        cx.error(Code::Contradiction, written, reason, repair);
    }
    let way = require(written, written.value.way.as_ref(), "way", cx);
    let backend = require(written, written.value.backend.as_ref(), "backend", cx)?;
    if let Some(backends) = backends {
        check_backend(backend, backends, cx);
    }
    Some(CarriedOut {
        way: way?.value,
        backend: backend.value.clone(),
    })
}

fn check_backend(written: &Spanned<String>, backends: &IndexMap<Name, Backend>, cx: &Context<'_>) {
    if backends.contains_key(&written.value) {
        return;
    }
    let known: Vec<&str> = backends.keys().map(String::as_str).collect();
    let reason = format!("there is no backend {:?} in this service", written.value);
    let repair = suggest::repair(&written.value, &known, "backend");
    cx.error(Code::DanglingName, written, reason, repair);
}
