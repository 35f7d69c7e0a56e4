//! The database behind a service: what is recorded of it, and which versions it keeps from traffic.
//!
//! A version that cannot live with the database is broken however healthy it looks, so nothing gives it
//! traffic unless it is forced: neither a switch nor weights, nor a rollback to it, the judge's included.
//! What has traffic already keeps it: taking it away is what rollback is for.

use indexmap::IndexMap;
use switchback_config::model::{Backend, Name};

use super::Case;
use crate::command::{DatabaseChange, Refusal};
use crate::effective::Effective;
use crate::state::{CurrentSchema, DatabaseState, Mark, Phase, Rehearsal, Release, Unfit};

/// Records something about the database.
pub(super) fn change(case: &mut Case<'_>, change: &DatabaseChange) -> Result<(), Refusal> {
    match change {
        DatabaseChange::Schema(version) => set_schema(case, *version),
        DatabaseChange::Phase {
            to,
            leaves,
            against,
            force,
        } => enter(case, *to, *leaves, against, *force)?,
        DatabaseChange::Rehearsed { took_s } => {
            let (took_s, mark) = (*took_s, mark(case));
            case.state.database.rehearsed = Some(Rehearsal { took_s, mark });
            case.note(
                "schema_rehearsed",
                "the reverse migration was rehearsed elsewhere",
            );
        }
        DatabaseChange::Confirmed => {
            let mark = mark(case);
            let message = format!(
                "{} has confirmed the checklist of the reverse migration, and runs it",
                mark.by
            );
            case.state.database.confirmed = Some(mark);
            case.note("schema_reverse_confirmed", message);
        }
    }
    Ok(())
}

fn mark(case: &Case<'_>) -> Mark {
    Mark {
        by: case.asked.by.clone(),
        at: case.at,
        reason: case.asked.reason.clone(),
    }
}

/// A fact, however little it suits the versions that have traffic: they are named.
fn set_schema(case: &mut Case<'_>, version: u32) {
    if case.state.database.version() == Some(version) {
        return;
    }
    let mark = mark(case);
    case.state.database.schema = Some(CurrentSchema { version, mark });
    case.note(
        "schema_set",
        format!("the database has schema {version} now"),
    );
    let before = &case.before;
    let matters = |name: &Name| {
        before.weight(name) > 0 || *name == before.stable || before.previous.as_ref() == Some(name)
    };
    let names: Vec<Name> = before
        .backends
        .keys()
        .filter(|name| matters(name))
        .cloned()
        .collect();
    for name in names {
        if let Some(refusal) = unfit(&case.state.database, &name, &case.before.backends) {
            let role = match () {
                () if name == case.before.stable => "is stable",
                () if case.before.weight(&name) > 0 => "has weight",
                () => "is the rollback target",
            };
            case.note("schema_conflict", format!("{name} {role}, but {refusal}"));
        }
    }
}

/// A change of the schema goes forward step by step, and back to any step before the contract.
fn enter(
    case: &mut Case<'_>,
    to: Option<Phase>,
    leaves: Option<u32>,
    against: &[String],
    force: bool,
) -> Result<(), Refusal> {
    let from = case.state.database.phase();
    if from == to {
        return Ok(());
    }
    let Some(to) = to else {
        finish(case);
        return Ok(());
    };
    let may_follow = from.map_or(Some(Phase::Expand), Phase::next) == Some(to);
    let goes_back = from.is_some_and(|from| to < from && from != Phase::Contract);
    if !may_follow && !goes_back {
        let next = from.map_or(Some(Phase::Expand), Phase::next);
        let next = next.map_or("done", Phase::as_str);
        let from = from.map_or("no change of the schema is under way", Phase::as_str);
        return Err(Refusal::InvalidPhase(format!(
            "{} does not follow: {from}; next is {next}",
            to.as_str()
        )));
    }
    if to == Phase::Contract && !against.is_empty() && !force {
        let reasons = against.to_vec();
        return Err(Refusal::ContractGateClosed { reasons });
    }
    let leaves = match to {
        Phase::Contract => leaves.or_else(|| case.state.database.contract_leaves()),
        _ => None,
    };
    let (phase, mark) = (to, mark(case));
    case.state.database.release = Some(Release {
        phase,
        leaves,
        mark,
    });
    let rollback = match to {
        Phase::Contract => "what needs the old form cannot come back",
        _ => "everything can be rolled back",
    };
    case.note("schema_phase", format!("{}: {rollback}", to.as_str()));
    Ok(())
}

/// A change of the schema is over. What a contract has removed is gone also if nobody has said which schema
/// is left: the one that it was to leave.
fn finish(case: &mut Case<'_>) {
    let release = case.state.database.release.take();
    let leaves = release.and_then(|release| release.leaves);
    let is_news = |leaves: &u32| {
        let version = case.state.database.version();
        version.is_none_or(|version| version < *leaves)
    };
    match leaves.filter(is_news) {
        Some(leaves) => {
            let message = format!(
                "the change of the schema is over; the contract leaves schema {leaves}, as was said when it began"
            );
            case.note("schema_phase", message);
            set_schema(case, leaves);
        }
        None => case.note("schema_phase", "the change of the schema is over"),
    }
}

impl Case<'_> {
    /// Refuses traffic for a version that cannot live with the database.
    pub(super) fn require_fit(&self, backend: &Name, force: bool) -> Result<(), Refusal> {
        self.require_fit_among(&self.before.backends, backend, force)
    }

    /// The same for backends that are not in force yet.
    pub(super) fn require_fit_among(
        &self,
        backends: &IndexMap<Name, Backend>,
        backend: &Name,
        force: bool,
    ) -> Result<(), Refusal> {
        let refusal = unfit(&self.state.database, backend, backends).filter(|_| !force);
        refusal.map_or(Ok(()), Err)
    }

    /// Refuses more traffic than before for versions that cannot live with the database.
    pub(super) fn require_fit_weights(
        &self,
        backends: &IndexMap<Name, Backend>,
        weights: &IndexMap<Name, u32>,
    ) -> Result<(), Refusal> {
        let risers = rising(&self.before, weights);
        risers
            .into_iter()
            .try_for_each(|name| self.require_fit_among(backends, name, false))
    }
}

/// Who would get a larger share than now.
pub(super) fn rising<'a>(before: &Effective, weights: &'a IndexMap<Name, u32>) -> Vec<&'a Name> {
    let sum = |table: &IndexMap<Name, u32>| table.values().copied().map(u64::from).sum::<u64>();
    let (sum_before, sum_after) = (sum(&before.weights), sum(weights));
    let rises = |name: &Name, weight: u32| {
        u64::from(weight) * sum_before > u64::from(before.weight(name)) * sum_after
    };
    let risers = weights
        .iter()
        .filter(|(name, weight)| rises(name, **weight));
    risers.map(|(name, _)| name).collect()
}

/// Why a backend must not get traffic for the sake of the database.
pub(crate) fn unfit(
    database: &DatabaseState,
    backend: &Name,
    backends: &IndexMap<Name, Backend>,
) -> Option<Refusal> {
    let deployed = backends.get(backend)?;
    let (backend, version) = (backend.clone(), deployed.version.clone());
    Some(match database.unfit(deployed.schema.as_ref())? {
        Unfit::Incompatible { schema, why } => Refusal::SchemaIncompatible {
            backend,
            version,
            schema,
            why,
        },
        Unfit::ContractBegun { leaves, why } => Refusal::ContractBegun {
            backend,
            version,
            leaves,
            why,
        },
    })
}

/// A file cannot be refused for the sake of the database, but what it may not have is held back: the
/// weights and the stable of before stay in force, and the conflict is shown.
pub(super) fn hold_back(case: &mut Case<'_>, stable_only: bool) {
    hold_weights_back(case, stable_only);
    let after = Effective::new(case.file, &case.state, stable_only);
    let is_new = |name: &Name| {
        let (old, new) = (case.before.backends.get(name), after.backends.get(name));
        old.zip(new)
            .is_some_and(|(old, new)| old.version != new.version || old.schema != new.schema)
    };
    // In the place of what has traffic: who deploys has done it already.
    let in_use = |name: &Name| case.before.weight(name) > 0 && after.weight(name) > 0;
    let replaced = after.backends.keys();
    let replaced = replaced.filter(|name| is_new(name) && in_use(name));
    let refusals = replaced.filter_map(|name| unfit(&case.state.database, name, &after.backends));
    let refusals: Vec<Refusal> = refusals.collect();
    for refusal in refusals {
        let message = format!("the file replaces what has traffic, but {refusal}");
        case.note("schema_conflict", message);
    }
}

fn hold_weights_back(case: &mut Case<'_>, stable_only: bool) {
    let after = Effective::new(case.file, &case.state, stable_only);
    let risers = rising(&case.before, &after.weights).into_iter();
    // New versions of what has traffic are told of, and cannot be undone.
    let can_wait = |name: &&Name| {
        case.before.weight(name) == 0 || case.before.version(name) == after.version(name)
    };
    let refusals = risers
        .filter(can_wait)
        .filter_map(|name| unfit(&case.state.database, name, &after.backends));
    let refusals: Vec<String> = refusals.map(|refusal| refusal.to_string()).collect();
    let Some(why) = refusals.first().cloned() else {
        return;
    };
    let fits = |name: &Name| after.backends.contains_key(name);
    let before = case.before.weights.clone();
    if !before
        .iter()
        .all(|(name, weight)| *weight == 0 || fits(name))
    {
        let message =
            format!("the file gives traffic to what cannot live with the database: {why}");
        case.note("schema_conflict", message);
        return;
    }
    let table = after.backends.keys();
    let table = table.map(|name| (name.clone(), before.get(name).copied().unwrap_or(0)));
    let mut weights = case.overriding(table.collect(), case.file.weights.clone());
    let mut stable = case.overriding(case.before.stable.clone(), case.file.stable.clone());
    for reason in [&mut weights.reason, &mut stable.reason] {
        *reason = Some(why.clone());
    }
    case.state.weights = Some(weights);
    if after.stable != case.before.stable {
        case.state.stable = Some(stable);
    }
    let message = format!("the weights of the file are held back: {why}");
    case.note("schema_conflict", message);
}

/// What whoever registers a version has said about it, or what is known of the same version.
pub(super) fn declared(
    case: &Case<'_>,
    backend: &Name,
    version: &str,
    said: &crate::command::Declared,
) -> Result<
    (
        Option<switchback_config::model::SchemaSupport>,
        switchback_config::model::Migration,
    ),
    Refusal,
> {
    if let Some(refusal) = said.schema.as_ref().and_then(Refusal::of_schema) {
        return Err(refusal);
    }
    let known = [
        case.before.backends.get(backend),
        case.file.backends.get(backend),
    ];
    let mut same = known
        .into_iter()
        .flatten()
        .filter(|known| known.version == version);
    let same = same.next();
    let schema = said.schema.clone();
    let schema = schema.or_else(|| same.and_then(|same| same.schema.clone()));
    let migration = said.migration.or_else(|| same.map(|same| same.migration));
    Ok((schema, migration.unwrap_or_default()))
}
