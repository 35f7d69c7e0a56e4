//! Hooks: events that exist, one action each, bounds that make sense.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::carried_out::carried_out;
use super::{require, texts, values};
use crate::decode::{Context, Place, Spanned, Table};
use crate::defaults::{
    self, HOOK_RETRIES_MAX, HOOK_TIME_MAX, HOOK_WORDS_MAX, HOOKS_MAX, UNTIL_DEADLINE_MAX,
    UNTIL_EVERY_MIN,
};
use crate::diagnostic::Code;
use crate::model::{
    Backend, Check, Gate, GateFailure, Hook, HookAction, HookEvent, HttpHook, Name, Preset,
    RunHook, Until,
};
use crate::raw;
use crate::suggest;
use crate::units::TimeSpan;

/// Reads the hooks of a service.
pub(super) fn hooks(
    written: Option<&Spanned<Vec<raw::HookItem>>>,
    backends: Option<&IndexMap<Name, Backend>>,
    cx: &Context<'_>,
) -> Vec<Hook> {
    let Some(written) = written else {
        return Vec::new();
    };
    let items = &written.value;
    if items.len() > HOOKS_MAX {
        let reason = format!("{} hooks are more than {HOOKS_MAX}", items.len());
        let repair = "tell one receiver, and let it tell the others";
        cx.error(Code::TooLarge, written, reason, repair);
        return Vec::new();
    }
    let read = items.iter().enumerate();
    let read = read.filter_map(|(index, item)| hook(item, index, backends, cx));
    let hooks: Vec<Hook> = read.collect();
    check_names(items, cx);
    hooks
}

/// The name of a hook that has none of its own.
fn default_name(index: usize) -> String {
    format!("hook-{}", index + 1)
}

fn check_names(items: &[raw::HookItem], cx: &Context<'_>) {
    let mut seen = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let written = item.value.name.as_ref();
        let name = written.map_or_else(|| default_name(index), |name| name.value.clone());
        let span = written.map_or(item.span, |name| name.span);
        let at = Place {
            span,
            path: item.path.clone(),
        };
        if let Some(first) = seen.insert(name.clone(), span) {
            let reason = format!("two hooks are called {name:?}");
            let other = (first, "first here".into());
            cx.conflict(
                Code::DuplicateItem,
                at,
                reason,
                "give each its own name",
                other,
            );
        }
    }
}

fn hook(
    written: &raw::HookItem,
    index: usize,
    backends: Option<&IndexMap<Name, Backend>>,
    cx: &Context<'_>,
) -> Option<Hook> {
    let raw = &written.value;
    if let Some(name) = &raw.name {
        texts::check_name(&name.value, name.into(), "hook", cx);
    }
    let on = events(written, cx);
    let is_gate = on.contains(&HookEvent::BeforeSwitch);
    let action = action(written, cx);
    let gate = is_gate.then(|| gate(raw, cx));
    if !is_gate {
        check_no_gate_keys(raw, cx);
    }
    let has_condition = gate.as_ref().is_some_and(|gate| gate.until.is_some());
    if raw.http.is_none() && raw.run.is_none() && !has_condition {
        let reason = "this hook does nothing";
        let repair = "add http: with a URL, or run: with a program and its arguments";
        cx.error(Code::MissingKey, written, reason, repair);
    }
    let carries_out = carried_out(raw, &on, backends, cx);
    let runs = raw.run.is_some();
    Some(Hook {
        name: raw
            .name
            .as_ref()
            .map_or_else(|| default_name(index), |name| name.value.clone()),
        on,
        action,
        carries_out,
        timeout: timeout(raw, cx),
        retries: retries(
            raw,
            if runs || is_gate {
                0
            } else {
                defaults::HOOK_RETRIES
            },
            cx,
        ),
        gate,
    })
}

/// The events a hook is for. The words of the ordering, `after_rollback`, mean the events themselves.
fn events(written: &raw::HookItem, cx: &Context<'_>) -> Vec<HookEvent> {
    let Some(on) = require(written, written.value.on.as_ref(), "on", cx) else {
        return Vec::new();
    };
    if on.value.is_empty() {
        let repair = "name events, such as [rollback, switch], or [all]";
        cx.error(
            Code::MissingKey,
            on,
            "nothing would ever call this hook",
            repair,
        );
    }
    let mut known: Vec<&str> = HookEvent::ALL.iter().map(|event| event.word()).collect();
    known.push("all");
    let mut events: Vec<HookEvent> = Vec::new();
    for item in &on.value {
        let word = item.value.as_str();
        let word = word.strip_prefix("after_").unwrap_or(word);
        let found: Vec<HookEvent> = match word {
            "all" => HookEvent::told().collect(),
            word => HookEvent::ALL
                .iter()
                .copied()
                .filter(|event| event.word() == word)
                .collect(),
        };
        if found.is_empty() {
            let reason = format!("there is no event {:?}", item.value);
            let repair = suggest::repair(word, &known, "event");
            cx.error(Code::UnknownWord, item, reason, repair);
        }
        let fresh = found.iter().filter(|event| !events.contains(event));
        let fresh: Vec<HookEvent> = fresh.copied().collect();
        if fresh.is_empty() && !found.is_empty() {
            let reason = "this event is listed twice";
            cx.error(Code::DuplicateItem, item, reason, "remove one of the two");
        }
        events.extend(fresh);
    }
    if events.contains(&HookEvent::BeforeSwitch) && events.len() > 1 {
        let reason = "before_switch can refuse a switch, and the others come after the fact";
        let repair = "make two hooks: one for before_switch, one for the rest";
        cx.error(Code::Contradiction, on, reason, repair);
    }
    events
}

/// Reads a method, as caches want to be told.
fn method(written: &Spanned<String>, cx: &Context<'_>) -> Option<String> {
    if texts::is_method(&written.value) {
        return Some(written.value.clone());
    }
    let reason = format!("{:?} is not a method", written.value);
    let repair = "write it as receivers want it, such as POST or PURGE";
    cx.error(Code::InvalidValue, written, reason, repair);
    None
}

fn action(written: &raw::HookItem, cx: &Context<'_>) -> Option<HookAction> {
    let raw = &written.value;
    if raw.http.is_some() && raw.run.is_some() {
        let reason = "a hook has either a URL or a program, not both";
        cx.error(Code::Contradiction, written, reason, "make two hooks of it");
    }
    if let Some(run) = &raw.run {
        check_unused(raw.method.as_ref(), "method", "http", cx);
        check_unused(raw.preset.as_ref(), "preset", "http", cx);
        check_unused(raw.secret_file.as_ref(), "secret_file", "http", cx);
        check_unused(raw.headers.as_ref(), "headers", "http", cx);
        check_unused(raw.ca.as_ref(), "ca", "http", cx);
        return Some(HookAction::Run(RunHook {
            run: argv(run, cx),
            env: raw
                .env
                .as_ref()
                .map(|env| environment(env, cx))
                .unwrap_or_default(),
        }));
    }
    let url = raw.http.as_ref()?;
    check_unused(raw.env.as_ref(), "env", "run", cx);
    check_url(url, cx);
    let path =
        |path: &Option<Spanned<String>>| path.as_ref().map(|path| PathBuf::from(&path.value));
    Some(HookAction::Http(HttpHook {
        url: url.value.clone(),
        method: raw
            .method
            .as_ref()
            .and_then(|method| self::method(method, cx)),
        preset: raw
            .preset
            .as_ref()
            .map_or(Preset::Cloudevents, |preset| preset.value),
        secret_file: path(&raw.secret_file),
        headers: raw
            .headers
            .as_ref()
            .map(|headers| self::headers(headers, cx))
            .unwrap_or_default(),
        ca: path(&raw.ca),
    }))
}

fn check_unused<T>(written: Option<&Spanned<T>>, key: &str, of: &str, cx: &Context<'_>) {
    if let Some(written) = written {
        let reason = format!("{key} belongs to hooks with {of}");
        cx.error(Code::Contradiction, written, reason, "remove it");
    }
}

fn check_no_gate_keys(raw: &raw::Hook, cx: &Context<'_>) {
    let reason = "only hooks for before_switch can refuse or wait for anything";
    let repair = "remove it, or write on: [before_switch]";
    if let Some(until) = &raw.until {
        cx.error(Code::Contradiction, until, reason, repair);
    }
    if let Some(on_failure) = &raw.on_failure {
        cx.error(Code::Contradiction, on_failure, reason, repair);
    }
}

fn gate(raw: &raw::Hook, cx: &Context<'_>) -> Gate {
    Gate {
        until: raw.until.as_ref().and_then(|until| self::until(until, cx)),
        on_failure: raw
            .on_failure
            .as_ref()
            .map_or(GateFailure::Refuse, |failure| failure.value),
    }
}

fn until(written: &Spanned<raw::Until>, cx: &Context<'_>) -> Option<Until> {
    let raw = &written.value;
    let check = match (&raw.http, &raw.run) {
        (Some(url), None) => {
            check_url(url, cx);
            Some(Check::Http(url.value.clone()))
        }
        (None, Some(run)) => Some(Check::Run(argv(run, cx))),
        _ => {
            let reason = "a condition needs exactly one of http and run";
            let repair = "write until: {http: \"http://127.0.0.1:7000/drained\"}";
            cx.error(Code::Contradiction, written, reason, repair);
            None
        }
    };
    let every = raw.every.as_ref();
    if let Some(every) = every.filter(|every| every.value.0 < UNTIL_EVERY_MIN) {
        let repair = format!("use {} or more", TimeSpan(UNTIL_EVERY_MIN));
        cx.error(Code::OutOfRange, every, "looking so often is load", repair);
    }
    let deadline = raw.deadline.as_ref();
    let is_sane = |span: Duration| !span.is_zero() && span <= UNTIL_DEADLINE_MAX;
    if let Some(deadline) = deadline.filter(|deadline| !is_sane(deadline.value.0)) {
        let reason = "nobody waits for a switch so long, or not at all";
        let repair = format!(
            "use more than 0s and at most {}",
            TimeSpan(UNTIL_DEADLINE_MAX)
        );
        cx.error(Code::OutOfRange, deadline, reason, repair);
    }
    Some(Until {
        check: check?,
        every: every.map_or(TimeSpan(defaults::UNTIL_EVERY), |every| every.value),
        deadline: deadline.map_or(TimeSpan(defaults::UNTIL_DEADLINE), |span| span.value),
    })
}

fn timeout(raw: &raw::Hook, cx: &Context<'_>) -> TimeSpan {
    let Some(timeout) = &raw.timeout else {
        return TimeSpan(match raw.run {
            Some(_) => defaults::HOOK_RUN_TIME,
            None => defaults::HOOK_HTTP_TIME,
        });
    };
    if timeout.value.0.is_zero() || timeout.value.0 > HOOK_TIME_MAX {
        let reason = "an attempt ends some time, and takes some";
        let repair = format!("use more than 0s and at most {}", TimeSpan(HOOK_TIME_MAX));
        cx.error(Code::OutOfRange, timeout, reason, repair);
    }
    timeout.value
}

fn retries(raw: &raw::Hook, default: u32, cx: &Context<'_>) -> u32 {
    let Some(retries) = &raw.retries else {
        return default;
    };
    if retries.value > HOOK_RETRIES_MAX {
        let reason = "what fails so often is looked at by a person";
        let repair = format!("use 0 to {HOOK_RETRIES_MAX}; dead letters can be sent again");
        cx.error(Code::OutOfRange, retries, reason, repair);
    }
    retries.value
}

/// Checks that a URL can be asked for. Its host is looked up when that is done.
fn check_url(url: &Spanned<String>, cx: &Context<'_>) {
    if let Err(fault) = texts::check_url(&url.value, "headers: {authorization: …}") {
        cx.error(Code::InvalidValue, url, fault.reason, fault.repair);
    }
}

fn argv(run: &Spanned<Vec<raw::TextItem>>, cx: &Context<'_>) -> Vec<String> {
    let program = run.value.first();
    if program.is_none_or(|program| program.value.is_empty()) {
        let reason = "no program is given";
        let repair = "write run: [program, argument]; no shell is involved";
        cx.error(Code::MissingKey, run, reason, repair);
    }
    if run.value.len() > HOOK_WORDS_MAX {
        let reason = format!(
            "{} arguments are more than {HOOK_WORDS_MAX}",
            run.value.len()
        );
        cx.error(Code::TooLarge, run, reason, "put them into a script");
    }
    if let Some(item) =
        program.filter(|program| program.value.contains(' ') && run.value.len() == 1)
    {
        let reason = "this looks like a command line, and no shell will take it apart";
        let repair = "write run: [program, argument], one word each";
        cx.warning(Code::Contradiction, item, reason, repair);
    }
    values(Some(run))
}

fn environment(env: &Spanned<Table<String>>, cx: &Context<'_>) -> BTreeMap<String, String> {
    if env.value.0.len() > HOOK_WORDS_MAX {
        let reason = format!(
            "{} variables are more than {HOOK_WORDS_MAX}",
            env.value.0.len()
        );
        cx.error(Code::TooLarge, env, reason, "put them into a script");
    }
    let mut variables = BTreeMap::new();
    for (key, value) in &env.value.0 {
        let at = Place {
            span: key.span,
            path: value.path.clone(),
        };
        let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let is_name = key.text.bytes().next().is_some_and(is_letter)
            && key
                .text
                .bytes()
                .all(|byte| is_letter(byte) || byte.is_ascii_digit());
        if !is_name {
            let reason = format!("{:?} is not the name of a variable", key.text);
            cx.error(
                Code::InvalidName,
                at,
                reason,
                "use letters, digits and _ only",
            );
        } else if key.text.starts_with("SWITCHBACK_") {
            let reason = "variables that begin with SWITCHBACK_ tell the hook what happened";
            cx.error(Code::Contradiction, at, reason, "use another name");
        }
        variables.insert(key.text.clone(), value.value.clone());
    }
    variables
}

/// Headers that follow from the request itself.
const OWN_HEADERS: [&str; 6] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "user-agent",
];

fn headers(written: &Spanned<Table<String>>, cx: &Context<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (key, value) in &written.value.0 {
        texts::check_header_value(value, cx);
        let at = Place {
            span: key.span,
            path: value.path.clone(),
        };
        let Some(name) = texts::header_name(&key.text, at.clone(), cx) else {
            continue;
        };
        if OWN_HEADERS.contains(&&*name) || name.starts_with("webhook-") {
            let reason = format!("switchback itself decides about {name}");
            cx.error(Code::ProtectedHeader, at, reason, "leave it out");
            continue;
        }
        headers.insert(name, value.value.clone());
    }
    headers
}
