//! Runbooks: triggers become rules, and everything that a step says is understood.

use indexmap::IndexMap;

use super::{require, texts, values};
use crate::decode::{Context, Place, Spanned, Table};
use crate::defaults::{RUNBOOK_STEPS_MAX, RUNBOOK_TEXT_BYTES_MAX, RUNBOOKS_MAX};
use crate::diagnostic::Code;
use crate::model::{Name, Runbook, RunbookSource, RunbookStep, Service, StepKind, runbook};
use crate::raw;
use crate::suggest;
use crate::units::UnitError;

/// Reads all runbooks, and adds the rules of their triggers to services.
pub(super) fn runbooks(
    written: Option<&Spanned<Table<raw::RunbookSource>>>,
    services: &mut IndexMap<Name, Service>,
    cx: &Context<'_>,
) -> IndexMap<Name, RunbookSource> {
    let mut runbooks = IndexMap::new();
    let Some(written) = written else {
        return runbooks;
    };
    let count = written.value.0.len();
    if count > RUNBOOKS_MAX {
        let reason = format!("{count} runbooks are more than {RUNBOOKS_MAX}");
        cx.error(Code::TooLarge, written, reason, "remove some");
        return runbooks;
    }
    for (key, source) in &written.value.0 {
        let at = Place {
            span: key.span,
            path: source.path.clone(),
        };
        texts::check_name(&key.text, at, "runbook", cx);
        let source = match &source.value {
            raw::RunbookSource::File(path) => Some(RunbookSource::File(path.clone())),
            raw::RunbookSource::Runbook(raw) => {
                check_services(raw, services, cx);
                let runbook = runbook(raw, cx);
                runbook.map(|runbook| {
                    runbook.arm(services);
                    RunbookSource::Runbook(runbook)
                })
            }
        };
        runbooks.extend(source.map(|source| (key.text.clone(), source)));
    }
    runbooks
}

fn check_services(raw: &raw::RunbookItem, services: &IndexMap<Name, Service>, cx: &Context<'_>) {
    for name in raw.value.services.iter().flat_map(|names| &names.value) {
        if !services.contains_key(&name.value) {
            let known: Vec<&str> = services.keys().map(String::as_str).collect();
            let reason = format!("there is no service {:?}", name.value);
            let repair = suggest::repair(&name.value, &known, "service");
            cx.error(Code::DanglingName, name, reason, repair);
        }
    }
}

/// Reads one runbook. The services that it names are somebody else's to check.
pub(crate) fn runbook(written: &raw::RunbookItem, cx: &Context<'_>) -> Option<Runbook> {
    let raw = &written.value;
    let trigger = raw.trigger.as_ref().and_then(|trigger| {
        let parsed = trigger.value.parse();
        let refused = |UnitError { reason, repair }| {
            cx.error(Code::InvalidValue, trigger, reason, repair);
        };
        parsed.map_err(refused).ok()
    });
    let steps = require(written, raw.steps.as_ref(), "steps", cx)?;
    let count = steps.value.len();
    if count == 0 || count > RUNBOOK_STEPS_MAX {
        let reason = format!("a runbook has 1 to {RUNBOOK_STEPS_MAX} steps, not {count}");
        cx.error(Code::OutOfRange, steps, reason, "add or combine steps");
        return None;
    }
    let steps = steps.value.iter().filter_map(|raw| step(raw, cx));
    Some(Runbook {
        trigger,
        services: values(raw.services.as_ref()),
        steps: steps.collect(),
    })
}

fn step(written: &raw::RunbookStepItem, cx: &Context<'_>) -> Option<RunbookStep> {
    let raw = &written.value;
    let name = require(written, raw.name.as_ref(), "name", cx);
    for text in [&raw.name, &raw.action, &raw.duration]
        .into_iter()
        .flatten()
    {
        let length = text.value.len();
        if text.value.trim().is_empty() || length > RUNBOOK_TEXT_BYTES_MAX {
            let reason = format!("{length} bytes are nothing to read, or too much");
            let repair = format!("write 1 to {RUNBOOK_TEXT_BYTES_MAX} bytes");
            cx.error(Code::OutOfRange, text, reason, repair);
        }
    }
    let name = name?.value.clone();
    let kind = raw.kind.as_ref().map(|kind| kind.value);
    let kind = kind.unwrap_or_else(|| StepKind::of_name(&name));
    if let Some(duration) = &raw.duration
        && let Err(UnitError { reason, repair }) = runbook::limit(&duration.value)
    {
        cx.error(Code::InvalidValue, duration, reason, repair);
    }
    if let Some(action) = raw.action.as_ref().filter(|_| kind == StepKind::Decide)
        && let Err(UnitError { reason, repair }) = runbook::methods(&action.value)
    {
        cx.error(Code::UnknownWord, action, reason, repair);
    }
    let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.clone());
    Some(RunbookStep {
        name,
        action: text(&raw.action).unwrap_or_default(),
        duration: text(&raw.duration),
        kind,
        approve: raw.approve.as_ref().is_some_and(|approve| approve.value),
    })
}
