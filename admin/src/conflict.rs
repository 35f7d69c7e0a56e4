//! Where the file and what is in force disagree, who brought that about, and what would end it.
//!
//! Pure. Two kinds, because only one of them is a fault: something *differs* because somebody set it
//! at run time, as in any rollout; something is *refused* because the file or an override asks for what
//! must not be, such as traffic for a blocked version.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use switchback_config::model::{Backend, Name, Service};
use utoipa::ToSchema;

use crate::controller::database::unfit;
use crate::effective::Effective;
use crate::state::{Block, Override, ServiceState};

/// Whether a disagreement is somebody's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConflictKind)]
pub(crate) enum Kind {
    /// It was set at run time.
    Differs,
    /// It is asked for and cannot be.
    Refused,
}

/// A field in which file and what is in force disagree.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Conflict {
    /// Whether it is somebody's choice.
    pub(crate) kind: Kind,
    /// `weights`, `stable`, `backends.green`.
    pub(crate) field: String,
    /// What the file says.
    pub(crate) file: Value,
    /// What was set at run time; `null` if nothing was.
    #[serde(rename = "override")]
    pub(crate) overridden: Value,
    /// Who set or blocked it.
    pub(crate) by: Option<String>,
    /// When.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) at: Option<Timestamp>,
    /// Why, in their words.
    pub(crate) reason: Option<String>,
    /// What would end it.
    pub(crate) ends: String,
    /// All of it in one sentence.
    pub(crate) sentence: String,
}

/// All fields of a service in which file and what is in force disagree.
#[must_use]
pub(crate) fn conflicts(
    service: &str,
    file: &Service,
    state: &ServiceState,
    effective: &Effective,
    stable_only: bool,
) -> Vec<Conflict> {
    let case = Case {
        service,
        file,
        state,
        effective,
    };
    let mut found = Vec::new();
    found.extend(case.stable());
    found.extend(case.weights());
    found.extend(case.backends());
    found.extend(case.refused_stable());
    found.extend(case.refused_weights());
    found.extend(case.unfit());
    if stable_only && file.weights.len() > 1 {
        found.push(case.lost());
    }
    found
}

struct Case<'a> {
    service: &'a str,
    file: &'a Service,
    state: &'a ServiceState,
    effective: &'a Effective,
}

impl Case<'_> {
    fn stable(&self) -> Option<Conflict> {
        let set = self.state.stable.as_ref()?;
        let file = &self.file.stable;
        let back = format!("switchback switch {} --to {file}", self.service);
        let back = Some(back).filter(|_| !self.effective.blocked.contains(file));
        self.differs("stable", set, file, String::clone, back)
    }

    fn weights(&self) -> Option<Conflict> {
        let set = self.state.weights.as_ref()?;
        if same_shares(&set.value, &self.file.weights) {
            return None;
        }
        let mut weighted = self.file.weights.iter().filter(|(_, weight)| **weight > 0);
        let back = format!(
            "switchback weights {} {}",
            self.service,
            table(&self.file.weights)
        );
        let blocked = weighted.any(|(name, _)| self.effective.blocked.contains(name));
        let back = Some(back).filter(|_| !blocked);
        let mut found = self.differs("weights", set, &self.file.weights, table, back)?;
        if let Some(lease) = &self.state.lease {
            found.ends = format!("it ends by itself at {}, or: {}", lease.until, found.ends);
        }
        let running = self
            .state
            .rollout
            .as_ref()
            .filter(|rollout| rollout.is_running());
        if let Some(rollout) = running {
            found.ends = format!(
                "the rollout of {} moves it on, or: {}",
                rollout.canary, found.ends
            );
        }
        Some(found)
    }

    fn backends(&self) -> impl Iterator<Item = Conflict> {
        self.state.backends.iter().filter_map(|(name, set)| {
            let file = self.file.backends.get(name)?;
            let endpoints = file.endpoints.iter().map(|e| format!(" --endpoint {e}"));
            let endpoints: String = endpoints.collect();
            let back = format!(
                "switchback backend set {} {name} --version {}{endpoints}",
                self.service, file.version
            );
            let back = Some(back).filter(|_| !self.state.blocked.contains_key(&file.version));
            self.differs(&format!("backends.{name}"), set, file, backend_text, back)
        })
    }

    /// An override that says something else than the file. `back`: the command that would set the
    /// file's value.
    fn differs<T: PartialEq + Serialize>(
        &self,
        field: &str,
        set: &Override<T>,
        file: &T,
        text: impl Fn(&T) -> String,
        back: Option<String>,
    ) -> Option<Conflict> {
        if set.value == *file {
            return None;
        }
        let why = in_brackets(set.reason.as_deref());
        let sentence = format!(
            "{field} is {}, set by {} at {:.0}{why}; the file says {}",
            text(&set.value),
            set.by,
            set.at,
            text(file)
        );
        let edit = format!("edit services.{}.{field} in the file", self.service);
        Some(Conflict {
            kind: Kind::Differs,
            field: field.into(),
            file: json!(file),
            overridden: json!(set.value),
            by: Some(set.by.clone()),
            at: Some(set.at),
            reason: set.reason.clone(),
            ends: back.map_or(edit.clone(), |back| format!("{edit}, or: {back}")),
            sentence,
        })
    }

    /// A stable that is blocked.
    fn refused_stable(&self) -> Option<Conflict> {
        let set = self.state.stable.as_ref();
        let wanted = set.map_or(&self.file.stable, |set| &set.value);
        let sentence = self.effective.conflicts.first()?.clone();
        let block = self.block_of(wanted);
        Some(Conflict {
            kind: Kind::Refused,
            field: "stable".into(),
            file: json!(self.file.stable),
            overridden: json!(set.map(|set| &set.value)),
            by: block.map(|block| block.by.clone()),
            at: block.map(|block| block.at),
            reason: block.and_then(|block| block.reason.clone()),
            ends: self.unblocking(wanted),
            sentence,
        })
    }

    /// Weights of blocked versions.
    fn refused_weights(&self) -> impl Iterator<Item = Conflict> {
        let set = self.state.weights.as_ref();
        let wanted = set.map_or(&self.file.weights, |set| &set.value);
        let who = if set.is_some() {
            "the override"
        } else {
            "the file"
        };
        let blocked = wanted
            .iter()
            .filter(|(name, weight)| **weight > 0 && self.effective.blocked.contains(*name));
        blocked.map(move |(name, weight)| {
            let block = self.block_of(name);
            let why = block.map_or(String::new(), |block| {
                let why = in_brackets(block.reason.as_deref());
                format!(" by {} since {}{why}", block.by, block.at)
            });
            let (version, stable) = (self.effective.version(name), &self.effective.stable);
            let sentence = format!(
                "{who} gives {name} weight {weight}, but its version {version:?} is blocked{why}; {stable} gets its share"
            );
            Conflict {
                kind: Kind::Refused,
                field: format!("weights.{name}"),
                file: json!(self.file.weights.get(name)),
                overridden: json!(set.and_then(|set| set.value.get(name))),
                by: block.map(|block| block.by.clone()),
                at: block.map(|block| block.at),
                reason: block.and_then(|block| block.reason.clone()),
                ends: self.unblocking(name),
                sentence,
            }
        })
    }

    /// What has traffic and cannot live with the database: nothing gives it any, but it may have been there
    /// before, or been put in the place of what was.
    fn unfit(&self) -> impl Iterator<Item = Conflict> {
        let effective = self.effective;
        let weighted = effective.backends.iter();
        let weighted = weighted.filter(|(name, _)| effective.weight(name) > 0);
        weighted.filter_map(|(name, deployed)| {
            let refusal = unfit(&self.state.database, name, &effective.backends)?;
            let set = self.state.backends.get(name);
            let weight = effective.weight(name);
            Some(Conflict {
                kind: Kind::Refused,
                field: format!("backends.{name}.schema"),
                file: json!(self.file.backends.get(name).map(|file| &file.schema)),
                overridden: json!(set.map(|set| &set.value.schema)),
                by: set.map(|set| set.by.clone()),
                at: set.map(|set| set.at),
                reason: set.and_then(|set| set.reason.clone()),
                ends: format!(
                    "give the traffic of {name} to a version that can live with the database, \
                     or deploy one there in place of {:?}",
                    deployed.version
                ),
                sentence: format!("{name} has weight {weight}, but {refusal}"),
            })
        })
    }

    fn lost(&self) -> Conflict {
        Conflict {
            kind: Kind::Refused,
            field: "weights".into(),
            file: json!(self.file.weights),
            overridden: Value::Null,
            by: None,
            at: None,
            reason: None,
            ends: "switchback acknowledge".into(),
            sentence:
                "the recorded state was lost, and with it what is blocked; only stable serves"
                    .into(),
        }
    }

    fn block_of(&self, backend: &Name) -> Option<&Block> {
        self.state.blocked.get(self.effective.version(backend))
    }

    fn unblocking(&self, backend: &Name) -> String {
        format!(
            "deploy a new version on {backend}, or: switchback unblock {} {backend}",
            self.service
        )
    }
}

/// Whether two tables give everybody the same share.
pub(crate) fn same_shares(one: &IndexMap<Name, u32>, other: &IndexMap<Name, u32>) -> bool {
    let sum = |table: &IndexMap<Name, u32>| table.values().copied().map(u64::from).sum::<u64>();
    let weight =
        |table: &IndexMap<Name, u32>, name: &Name| table.get(name).copied().map_or(0, u64::from);
    let (all, all_other) = (sum(one), sum(other));
    let mut names = one.keys().chain(other.keys());
    names.all(|name| weight(one, name) * all_other == weight(other, name) * all)
}

/// Weights as they are typed.
pub(crate) fn table(weights: &IndexMap<Name, u32>) -> String {
    let weights = weights
        .iter()
        .map(|(name, weight)| format!("{name}={weight}"));
    weights.collect::<Vec<_>>().join(" ")
}

fn backend_text(backend: &Backend) -> String {
    let endpoints = backend.endpoints.iter().map(ToString::to_string);
    let endpoints: Vec<String> = endpoints.collect();
    format!("version {:?} at {}", backend.version, endpoints.join(", "))
}

fn in_brackets(reason: Option<&str>) -> String {
    reason.map_or(String::new(), |reason| format!(" ({reason})"))
}
