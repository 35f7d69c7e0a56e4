//! The settings of the judge.

use super::rules;
use crate::decode::{Context, OrOff, Spanned};
use crate::defaults;
use crate::diagnostic::Code;
use crate::model::{CompareTo, ErrorClass, OnFailure, Rollback, Uncontrolled};
use crate::raw;
use crate::units::{Percent, TimeSpan};

/// Bounds of `max_extra_errors` and `max_extra_slow`, in millionths: from one in ten thousand to
/// every second request.
const EXTRA: (u32, u32) = (100, 500_000);

/// Reads the settings.
pub(super) fn rollback(written: Option<&Spanned<raw::Rollback>>, cx: &Context<'_>) -> Rollback {
    let mut rollback = defaults::rollback();
    let Some(raw) = written.map(|written| &written.value) else {
        return rollback;
    };
    if let Some(extra) = &raw.max_extra_errors {
        check_extra(extra, extra.value, "use 0.01% to 50%", cx);
        rollback.max_extra_errors = extra.value;
    }
    if let Some(errors) = &raw.errors {
        if errors.value.is_empty() {
            let repair = "list what is a failure, such as 5xx, connect, timeout, reset";
            cx.error(
                Code::MissingKey,
                errors,
                "nothing would ever be a failure",
                repair,
            );
        }
        rollback.errors = errors
            .value
            .iter()
            .filter_map(|class| error_class(class, cx))
            .collect();
    }
    slowness(raw, &mut rollback, cx);
    if let Some(rules) = &raw.rules {
        rollback.rules = rules::rules(rules, cx);
    }
    rollback.false_rollbacks = raw
        .false_rollbacks
        .as_ref()
        .map_or(rollback.false_rollbacks, |rate| rate.value);
    rollback.compare_to = raw
        .compare_to
        .as_ref()
        .map_or(CompareTo::Stable, |compare_to| compare_to.value);
    rollback.min_failures = raw
        .min_failures
        .as_ref()
        .map_or(rollback.min_failures, |count| count.value);
    rollback.min_requests = raw
        .min_requests
        .as_ref()
        .map_or(rollback.min_requests, |count| count.value);
    rollback.on_failure = raw
        .on_failure
        .as_ref()
        .map_or(OnFailure::Rollback, |action| action.value);
    rollback.window = positive(raw.window.as_ref(), rollback.window, cx);
    rollback.unhealthy_for = positive(raw.unhealthy_for.as_ref(), rollback.unhealthy_for, cx);
    rollback.verify = positive(raw.verify.as_ref(), rollback.verify, cx);
    rollback.sample_paths = raw.sample_paths.as_ref().is_some_and(|paths| paths.value);
    rollback.uncontrolled = uncontrolled(raw.uncontrolled.as_ref(), rollback.uncontrolled);
    rollback
}

fn uncontrolled(
    written: Option<&Spanned<raw::Uncontrolled>>,
    default: Uncontrolled,
) -> Uncontrolled {
    let Some(raw) = written.map(|written| &written.value) else {
        return default;
    };
    Uncontrolled {
        span: raw.span.as_ref().map_or(default.span, |span| span.value),
        then: raw.then.as_ref().map_or(default.then, |then| then.value),
    }
}

/// What is slow, and how much of it is too much.
fn slowness(raw: &raw::Rollback, rollback: &mut Rollback, cx: &Context<'_>) {
    if let Some(extra) = &raw.max_extra_slow {
        let OrOff(value) = extra.value;
        if let Some(value) = value {
            check_extra(extra, value, "use 0.01% to 50%, or off", cx);
        }
        rollback.max_extra_slow = value;
    }
    if let Some(slow) = &raw.slow {
        rollback.slow = slow.value;
        if raw.max_extra_slow.is_none() && !rollback.heeds_time() {
            let reason = "nobody judges how long requests take";
            cx.error(Code::Contradiction, slow, reason, "add max_extra_slow: 5%");
        }
    }
}

fn check_extra<T>(written: &Spanned<T>, value: Percent, repair: &str, cx: &Context<'_>) {
    if !(EXTRA.0..=EXTRA.1).contains(&value.millionths()) {
        let reason = "no judge can work with this";
        cx.error(Code::OutOfRange, written, reason, repair);
    }
}

fn positive(written: Option<&Spanned<TimeSpan>>, default: TimeSpan, cx: &Context<'_>) -> TimeSpan {
    let Some(written) = written else {
        return default;
    };
    if written.value.0.is_zero() {
        cx.error(
            Code::OutOfRange,
            written,
            "this time is 0",
            format!("use more than 0s; the default is {default}"),
        );
    }
    written.value
}

fn error_class(written: &Spanned<String>, cx: &Context<'_>) -> Option<ErrorClass> {
    let text = written.value.as_str();
    let class = match text {
        "connect" => Some(ErrorClass::Connect),
        "timeout" => Some(ErrorClass::Timeout),
        "reset" => Some(ErrorClass::Reset),
        "slow" => Some(ErrorClass::Slow),
        _ => match (text.strip_suffix("xx"), text.strip_prefix("grpc:")) {
            (Some(digit), _) => digit
                .parse()
                .ok()
                .filter(|digit| (1..=5).contains(digit))
                .map(ErrorClass::Class),
            (_, Some(codes)) => grpc_codes(codes).map(ErrorClass::Grpc),
            _ => text
                .parse()
                .ok()
                .filter(|status| (100..=599).contains(status))
                .map(ErrorClass::Status),
        },
    };
    if class.is_none() {
        let reason = format!("{text:?} is not a kind of failure");
        let repair =
            "use 5xx, 4xx, a status such as \"503\", grpc:13,14, connect, timeout, reset or slow";
        cx.error(Code::InvalidValue, written, reason, repair);
    }
    class
}

fn grpc_codes(text: &str) -> Option<Vec<u8>> {
    let code = |code: &str| {
        code.trim()
            .parse()
            .ok()
            .filter(|code| (1..=16).contains(code))
    };
    text.split(',').map(code).collect()
}
