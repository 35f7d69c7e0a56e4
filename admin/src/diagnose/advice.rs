//! The tree and its leaves: which kind of trouble it is, and which way back fits it.

use switchback_config::model::{Backend, Name};

use super::{Changed, Diagnosis, Errors, Kind, Question, Recommended};
use crate::age;
use crate::command::{Command, Declared, Refusal};
use crate::controller::database::unfit;
use crate::effective::Effective;
use crate::explain::Facts;
use crate::history::Settled;
use crate::methods::{Measured, data_risk, name};
use crate::state::Phase;
use crate::timings::{Way, percentile};

/// Everything that is known.
pub(crate) struct Known<'a> {
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) within_min: u32,
    /// What was changed in that time, the latest first.
    pub(crate) changes: Vec<Changed>,
    pub(crate) errors: Vec<Errors>,
    pub(crate) measured: &'a Measured,
    /// Flags that are on.
    pub(crate) flags_on: Vec<Name>,
    /// What would be in force after a command; none: what is now.
    pub(crate) plan: &'a dyn Fn(&Command) -> Result<Option<Effective>, Refusal>,
}

/// A way back before it is ranked: the higher, the better it fits.
struct Candidate {
    way: Way,
    fit: u32,
    command: String,
    because: String,
    possible: bool,
}

/// Walks the tree.
pub(crate) fn diagnose(known: Known<'_>) -> Diagnosis {
    let mut candidates = candidates(&known);
    candidates.sort_by_key(|one| (!one.possible, std::cmp::Reverse(one.fit), one.way));
    let methods = candidates.into_iter().map(|one| recommend(&known, one));
    let methods: Vec<Recommended> = methods.collect();
    Diagnosis {
        service: known.facts.service.clone(),
        at: known.facts.at,
        within_min: known.within_min,
        finding: finding(&known, methods.first()),
        tree: tree(&known),
        methods,
        changes: known.changes,
        errors: known.errors,
    }
}

impl Known<'_> {
    fn last(&self, kind: Kind) -> Option<&Changed> {
        self.changes.iter().find(|change| change.kind == kind)
    }

    fn errs(&self, backend: &Name) -> bool {
        self.errors.iter().any(|errors| errors.backend == *backend)
    }

    /// Backends that are neither stable nor previous and have traffic.
    fn canaries(&self) -> impl Iterator<Item = &Name> {
        let effective = self.facts.effective;
        effective.backends.keys().filter(|name| {
            **name != effective.stable
                && effective.previous.as_ref() != Some(*name)
                && effective.weight(name) > 0
        })
    }

    /// Whether errors began after a change, as far as anybody errs.
    fn errors_follow(&self, change: &Changed) -> bool {
        let mut errors = self.errors.iter();
        errors.any(|errors| !errors.since_before && errors.since >= change.at)
    }

    fn ago(&self, change: &Changed) -> String {
        format!("{} ago", age::between(change.at, self.facts.at))
    }
}

fn tree(known: &Known<'_>) -> Vec<Question> {
    let of_kind = |kind: Kind| match known.last(kind) {
        Some(change) => (
            true,
            format!(
                "revision {} ({}) by {}, {}",
                change.revision,
                change.action,
                change.by,
                known.ago(change)
            ),
        ),
        None => (
            false,
            format!("nothing of the kind in the last {} min", known.within_min),
        ),
    };
    let question = |question: &'static str, (answer, because): (bool, String)| Question {
        question,
        answer,
        because,
    };
    vec![
        question("is it a config issue?", of_kind(Kind::Config)),
        question("is it a feature flag issue?", of_kind(Kind::Flag)),
        question("is it application code?", code(known)),
        question("is it a database migration?", of_kind(Kind::Database)),
    ]
}

/// Whether it is the code of a version.
fn code(known: &Known<'_>) -> (bool, String) {
    let effective = known.facts.effective;
    if let Some(canary) = known.canaries().find(|name| known.errs(name)) {
        let others = match known.errs(&effective.stable) {
            true => format!("{} errs too: it may not be the code", effective.stable),
            false => format!("{} does not", effective.stable),
        };
        let (because, alone) = (
            format!("{canary} is a canary and errs; {others}"),
            !known.errs(&effective.stable),
        );
        return (alone, because);
    }
    if let Some(trial) = effective.trial_at(known.facts.at) {
        let since = age::between(trial.since, known.facts.at);
        let errs = match known.errs(&trial.backend) {
            true => "and errs",
            false => "and does not err",
        };
        let because = format!("{} is stable since {since}, {errs}", trial.backend);
        return (known.errs(&trial.backend), because);
    }
    match known.last(Kind::Code) {
        Some(change) => {
            let because = format!(
                "revision {} ({}), {}",
                change.revision,
                change.action,
                known.ago(change)
            );
            (known.errors_follow(change), because)
        }
        None => (false, "no version is new".into()),
    }
}

fn candidates(known: &Known<'_>) -> Vec<Candidate> {
    let mut found = flags(known);
    found.extend(config(known));
    found.extend(rollback(known));
    found.push(redeploy(known));
    found.extend(database(known));
    found
}

/// Flags that were changed and are on.
fn flags(known: &Known<'_>) -> Vec<Candidate> {
    let changes = known
        .changes
        .iter()
        .filter(|change| change.kind == Kind::Flag);
    let mut found: Vec<Candidate> = Vec::new();
    for change in changes {
        for flag in change
            .flags
            .iter()
            .filter(|flag| known.flags_on.contains(flag))
        {
            let command = format!("switchback flag off {flag}");
            if found.iter().any(|other| other.command == command) {
                continue;
            }
            found.push(Candidate {
                way: Way::FlagToggle,
                fit: 50 + fits(known, change),
                command,
                because: format!("{flag} was changed {}", known.ago(change)),
                possible: true,
            });
        }
    }
    found
}

/// The last change of the configuration.
fn config(known: &Known<'_>) -> Option<Candidate> {
    let change = known.last(Kind::Config)?;
    let before = change.revision.checked_sub(1)?;
    let service = known.facts.service;
    let restored = match &change.before {
        Some(settled) => change_by(known, &restore(service, before, settled)),
        None => Err(format!("{service} was not configured before it")),
    };
    let because = format!("{} by {}, {}", change.action, change.by, known.ago(change));
    let (possible, because) = match restored {
        Ok(()) => (true, because),
        Err(why) => (false, format!("{because}: {why}")),
    };
    Some(Candidate {
        way: Way::ConfigRevert,
        fit: 40 + fits(known, change),
        command: format!("switchback restore {before} {service}"),
        because,
        possible,
    })
}

fn restore(service: &Name, revision: u64, settled: &Settled) -> Command {
    Command::Restore {
        revision,
        services: [(service.clone(), settled.clone())].into(),
        flags: [].into(),
        force: false,
    }
}

/// Whether a command would change anything, or why not.
fn change_by(known: &Known<'_>, command: &Command) -> Result<(), String> {
    match (known.plan)(command) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("it would change nothing".into()),
        Err(refusal) => Err(format!("it is refused: {refusal}")),
    }
}

/// How well a change fits as the cause.
fn fits(known: &Known<'_>, change: &Changed) -> u32 {
    match known.errors_follow(change) {
        true => 20,
        false => 0,
    }
}

/// The red button.
fn rollback(known: &Known<'_>) -> Option<Candidate> {
    let service = known.facts.service;
    let effective = known.facts.effective;
    let canary = known.canaries().find(|name| known.errs(name));
    let canary = canary.or_else(|| known.canaries().next());
    let (way, suspect) = match (canary, &effective.previous) {
        (Some(canary), _) => (Way::CanaryToZero, canary),
        (None, Some(_)) => (Way::BlueGreenSwitch, &effective.stable),
        (None, None) => return None,
    };
    let (possible, because) = match &known.facts.button {
        Ok(Some(after)) => {
            let target = &after.stable;
            let because = match known.errs(suspect) {
                true => format!("{suspect} errs, {target} takes over"),
                false => format!("{suspect} is new, {target} takes over"),
            };
            (true, because)
        }
        Ok(None) => (false, "it would change nothing".into()),
        Err(refusal) => (false, format!("it is refused: {refusal}")),
    };
    // An error that everybody has is not the new version's.
    let target = match way {
        Way::CanaryToZero => Some(&effective.stable),
        _ => effective.previous.as_ref(),
    };
    let shared = target.is_some_and(|target| known.errs(target));
    let fit = match (known.errs(suspect), shared) {
        (true, false) => 100,
        (true, true) => 30,
        (false, _) => 35,
    };
    Some(Candidate {
        way,
        fit,
        command: format!("switchback rollback {service}"),
        because,
        possible,
    })
}

/// What is left when nothing that serves is good.
fn redeploy(known: &Known<'_>) -> Candidate {
    let service = known.facts.service;
    let hooks = known.facts.file.hooks.iter();
    let mut hooks = hooks.filter_map(|hook| Some((hook, hook.carries_out.as_ref()?)));
    let because = match hooks.next() {
        Some((hook, carried)) => format!(
            "hook {} brings {} back with every rollback of it",
            hook.name, carried.backend
        ),
        None => "your deployment has to do it; switchback routes to it when it is healthy".into(),
    };
    let (command, possible, because) = match redeployed(known) {
        Ok((idle, deployed)) => {
            let endpoints = deployed.endpoints.iter();
            let endpoints: String = endpoints.map(|e| format!(" --endpoint {e}")).collect();
            let version = &deployed.version;
            let command = format!(
                "switchback deploy {service} --backend {idle} --version {version}{endpoints}"
            );
            match may_deploy(known, idle, deployed) {
                Ok(()) => (command, true, because),
                Err(refusal) => (command, false, format!("it is refused: {refusal}")),
            }
        }
        Err(why) => (format!("switchback deploy {service}"), false, why.into()),
    };
    Candidate {
        way: Way::RollingRedeploy,
        fit: 10,
        command,
        because,
        possible,
    }
}

/// What was stable before, as it was deployed, and where it could be.
fn redeployed<'a>(known: &Known<'a>) -> Result<(&'a Name, &'a Backend), &'static str> {
    let effective = known.facts.effective;
    let retained = known.facts.state.retained.first();
    let deployed = &retained.ok_or("no earlier version is remembered")?.deployed;
    let others = effective.backends.keys();
    let mut idle = others.filter(|name| **name != effective.stable && effective.weight(name) == 0);
    let idle = idle.next().ok_or("every backend has traffic")?;
    Ok((idle, deployed))
}

/// Whether a version may be deployed, and would get traffic then.
fn may_deploy(known: &Known<'_>, backend: &Name, deployed: &Backend) -> Result<(), Refusal> {
    let set = Command::SetBackend {
        service: known.facts.service.clone(),
        backend: backend.clone(),
        version: deployed.version.clone(),
        endpoints: deployed.endpoints.clone(),
        declared: Declared {
            schema: deployed.schema.clone(),
            migration: Some(deployed.migration),
        },
        force: false,
    };
    let after = (known.plan)(&set)?;
    let after = after.as_ref().unwrap_or(known.facts.effective);
    match unfit(&known.facts.state.database, backend, &after.backends) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// The last resort, which people run.
fn database(known: &Known<'_>) -> Option<Candidate> {
    let change = known.last(Kind::Database);
    let state = &known.facts.state.database;
    if change.is_none() && state.schema.is_none() {
        return None;
    }
    let begun = state.phase() == Some(Phase::Contract);
    let because = match (change, begun) {
        (_, true) => "the contract has begun: going forward with a fix beats it".to_owned(),
        (Some(change), _) => format!(
            "{} {}; going forward with a fix beats it",
            change.action,
            known.ago(change)
        ),
        (None, _) => "nothing was changed lately; going forward with a fix beats it".to_owned(),
    };
    Some(Candidate {
        way: Way::DatabaseRollback,
        fit: 0,
        command: format!("switchback schema reverse {}", known.facts.service),
        because,
        possible: true,
    })
}

fn recommend(known: &Known<'_>, candidate: Candidate) -> Recommended {
    let database = &known.facts.state.database;
    let times = known.measured.of(candidate.way, database);
    let us: Vec<u64> = times.iter().map(|timing| timing.us).collect();
    Recommended {
        method: candidate.way,
        name: name(candidate.way),
        command: candidate.command,
        because: candidate.because,
        possible: candidate.possible,
        p50_us: percentile(&us, 50),
        p99_us: percentile(&us, 99),
        measured: us.len(),
        data_risk: data_risk(candidate.way, known.facts.effective, database),
    }
}

fn finding(known: &Known<'_>, first: Option<&Recommended>) -> String {
    let names = known
        .errors
        .iter()
        .map(|errors| format!("{} (version {})", errors.backend, errors.version));
    let names: Vec<String> = names.collect();
    let what = match (&names[..], known.changes.first()) {
        ([], None) => {
            return format!(
                "nobody errs, and nothing was changed in the last {} min",
                known.within_min
            );
        }
        ([], Some(change)) => {
            return format!(
                "nobody errs; the last change was {} {}",
                change.action,
                known.ago(change)
            );
        }
        (names, _) => format!("{} errs", names.join(" and ")),
    };
    match first.filter(|first| first.possible) {
        Some(first) => format!("{what}: {} ({})", first.command, first.because),
        None => format!("{what}, and nothing that switchback can do fits"),
    }
}
