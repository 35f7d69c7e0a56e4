//! Where traffic goes now.

use indexmap::IndexMap;
use switchback_config::model::Name;

use super::Facts;

/// Who serves the share of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    /// The backend itself.
    Itself,
    /// Another one, since it has no endpoint that works.
    By(Name),
    /// Nobody.
    ByNobody,
}

/// The first sentence says where traffic goes, the others what is odd about it.
pub(super) fn sentences(facts: &Facts<'_>) -> Vec<String> {
    let weighted = facts.effective.weights.iter();
    let weighted: Vec<&Name> = weighted
        .filter(|(_, w)| **w > 0)
        .map(|(name, _)| name)
        .collect();
    let mut shares: IndexMap<&Name, f64> = IndexMap::new();
    let (mut unserved, mut odd) = (0.0, Vec::new());
    for name in weighted {
        let share = facts.effective.share(name);
        match served(facts, name) {
            Served::Itself => *shares.entry(name).or_default() += share,
            Served::By(other) => {
                odd.push(format!(
                    "{name} has {} of the weight but no endpoint that works, so {other} serves its share.",
                    percent(share)
                ));
                let other = facts.effective.backends.get_key_value(&other);
                if let Some((other, _)) = other {
                    *shares.entry(other).or_default() += share;
                }
            }
            Served::ByNobody => {
                unserved += share;
                odd.push(format!(
                    "{name} has no endpoint that works, and nobody may serve its share."
                ));
            }
        }
    }
    let mut said = vec![first(facts, &shares, unserved)];
    said.extend(odd);
    if facts.panics() {
        said.push(
            "Health checks say that no endpoint with weight works anywhere, so they are not believed."
                .into(),
        );
    }
    said
}

fn first(facts: &Facts<'_>, shares: &IndexMap<&Name, f64>, unserved: f64) -> String {
    let service = facts.service;
    if shares.is_empty() {
        return format!("Every request to {service} is answered with 503.");
    }
    if let [(only, _)] = shares.iter().collect::<Vec<_>>()[..]
        && unserved <= 0.0
    {
        return format!("All traffic of {service} goes to {}.", facts.named(only));
    }
    let mut parts = Vec::new();
    if unserved > 0.0 {
        parts.push(format!("{} is answered with 503", percent(unserved)));
    }
    for (name, share) in shares {
        parts.push(format!("{} goes to {}", percent(*share), facts.named(name)));
    }
    format!("Of the traffic of {service}, {}.", listed(&parts))
}

/// As the data plane decides it.
fn served(facts: &Facts<'_>, backend: &Name) -> Served {
    let effective = facts.effective;
    if facts.is_usable(backend) {
        return Served::Itself;
    }
    let can_take =
        |other: &Name| other != backend && effective.weight(other) > 0 && facts.is_usable(other);
    if can_take(&effective.stable) {
        return Served::By(effective.stable.clone());
    }
    if *backend == effective.stable && facts.file.spill_to_canary {
        let canaries = effective.backends.keys().filter(|other| can_take(other));
        if let Some(other) = canaries.max_by_key(|other| effective.weight(other)) {
            return Served::By(other.clone());
        }
    }
    if facts.panics() {
        Served::Itself
    } else {
        Served::ByNobody
    }
}

/// A share with as many digits as say something.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `a, b and c`.
pub(super) fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}
