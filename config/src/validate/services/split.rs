//! Stable, weights, and what must hold between the backends that have some.

use indexmap::IndexMap;

use crate::decode::{Context, Place, Spanned, Table};
use crate::defaults::WEIGHT_MAX;
use crate::diagnostic::Code;
use crate::model::{Backend, Name};
use crate::raw;
use crate::suggest;

/// A single backend is stable by itself.
pub(super) fn stable(
    written: &Spanned<raw::Service>,
    table: &Spanned<Table<raw::Backend>>,
    backends: &IndexMap<Name, Backend>,
    cx: &Context<'_>,
) -> Option<Name> {
    let known: Vec<&str> = table
        .value
        .0
        .iter()
        .map(|(key, _)| key.text.as_str())
        .collect();
    match &written.value.stable {
        None if known.len() > 1 => {
            let repair = format!("add stable: with one of {}", known.join(", "));
            cx.error(
                Code::MissingKey,
                written,
                "stable is missing: where would a rollback go?",
                repair,
            );
            None
        }
        None => backends.keys().next().cloned(),
        Some(stable) if known.contains(&&*stable.value) => Some(stable.value.clone()),
        Some(stable) => {
            let reason = format!("there is no backend {:?} in this service", stable.value);
            cx.error(
                Code::DanglingName,
                stable,
                reason,
                suggest::repair(&stable.value, &known, "backend"),
            );
            None
        }
    }
}

pub(super) fn weights(
    raw: &raw::Service,
    table: &Spanned<Table<raw::Backend>>,
    stable: &Name,
    cx: &Context<'_>,
) -> Option<IndexMap<Name, u32>> {
    let known: Vec<&str> = table
        .value
        .0
        .iter()
        .map(|(key, _)| key.text.as_str())
        .collect();
    let Some(written) = &raw.weights else {
        let all = known
            .iter()
            .map(|name| ((*name).to_owned(), if *name == stable { 100 } else { 0 }));
        return Some(all.collect());
    };
    let mut weights = IndexMap::new();
    for (key, weight) in &written.value.0 {
        if !known.contains(&&*key.text) {
            let at = Place {
                span: key.span,
                path: weight.path.clone(),
            };
            let reason = format!("there is no backend {:?} in this service", key.text);
            cx.error(
                Code::DanglingName,
                at,
                reason,
                suggest::repair(&key.text, &known, "backend"),
            );
        }
        if weight.value > WEIGHT_MAX {
            let reason = format!("a weight of {} is too large", weight.value);
            cx.error(
                Code::OutOfRange,
                weight,
                reason,
                format!("use 0 to {WEIGHT_MAX}"),
            );
        }
    }
    for name in known {
        match written.value.0.iter().find(|(key, _)| key.text == name) {
            Some((_, weight)) => {
                weights.insert(name.to_owned(), weight.value);
            }
            None => {
                let reason = format!("the weight of {name} is missing");
                cx.error(
                    Code::IncompleteWeights,
                    written,
                    reason,
                    format!("add {name}: 0, or its share"),
                );
            }
        }
    }
    if weights.values().all(|weight| *weight == 0) {
        cx.error(
            Code::NoWeight,
            written,
            "all weights are 0: no backend would get any request",
            "give one of them weight",
        );
    }
    Some(weights)
}

/// Two weighted backends with one label could not be told apart by blocks.
pub(super) fn check_versions(
    table: &Spanned<Table<raw::Backend>>,
    weights: &IndexMap<Name, u32>,
    cx: &Context<'_>,
) {
    let labels: Vec<&Spanned<String>> = table
        .value
        .0
        .iter()
        .filter(|(key, _)| weights.get(&key.text).is_some_and(|weight| *weight > 0))
        .filter_map(|(_, backend)| backend.value.version.as_ref())
        .collect();
    for (index, label) in labels.iter().enumerate() {
        if let Some(first) = labels[..index]
            .iter()
            .find(|first| first.value == label.value)
        {
            let reason = "another backend with weight has the same version";
            let repair = "give each version its own label, or one of them weight 0";
            cx.conflict(
                Code::SameVersion,
                *label,
                reason,
                repair,
                (first.span, "the other".into()),
            );
        }
    }
}

/// Keys stay on one backend only if canaries grow from the two ends of the key space.
const STICKY_CANARIES_MAX: usize = 2;

pub(super) fn check_affinity(
    raw: &raw::Service,
    weights: &IndexMap<Name, u32>,
    stable: &Name,
    cx: &Context<'_>,
) {
    let canaries = weights
        .iter()
        .filter(|(name, weight)| *name != stable && **weight > 0)
        .count();
    if let Some(affinity) = raw
        .affinity
        .as_ref()
        .filter(|_| canaries > STICKY_CANARIES_MAX)
    {
        let reason = format!(
            "{canaries} canaries have weight; affinity keeps at most {STICKY_CANARIES_MAX} apart"
        );
        cx.error(
            Code::TooManyCanaries,
            affinity,
            reason,
            "give fewer canaries weight, or remove affinity",
        );
    }
}
